"""How deep in its model each parameter is, and learning rates that decay towards the input."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from torch import nn

from thalweg._base.errors import bad_argument
from thalweg.groups.rules import Effect, Rule, times
from thalweg.groups.view import Param, View

_LISTS = (nn.Sequential, nn.ModuleList)
_RECURRENT_LAYER = re.compile(r"_l(\d+)(?:_reverse)?(?:\.|$)")


class LayerDecay(Rule):
    r"""Learning rates that shrink from the output to the input, so that fine-tuning keeps what the early layers know.

    $$\eta_l = \eta\,\xi^{\,T - l}, \qquad
    l = \begin{cases} 0 & \text{embeddings, and what comes before the first block} \\
    1, \dots, L & \text{the blocks} \\
    L + 1 & \text{the head, and what comes after the last block} \end{cases}$$

    with $T$ the greatest $l$ in the model: the head learns at $\eta$.

    The blocks are the children of the outermost lists (``nn.ModuleList``, ``nn.Sequential``) of like modules, in the
    order in which they are registered: ``layers.0``, ``layers.1``, …; of an encoder and a decoder, first the one, then
    the other; ``layer1.0``, ``layer1.1``, ``layer2.0``, … of a ResNet; the layers of an LSTM. Where there are none,
    they are the single layers in such lists. What stands between two blocks counts with the one before it. Which layer
    is the head, and what is an embedding, is told by :func:`roles`.

    Args:
        decay: ξ in (0, 1]; 0.65 to 0.9 are usual; 1 / 2.6 in ULMFiT.
        blocks: where structure does not tell: globs of the blocks' names, from input to output, such as
            ``"stages.*.blocks.*"``, or ``["conv1", "conv2", "fc"]``. A module in a block is no block of its own.

    Raises:
        ValueError: for a number outside its range; for a glob that matches no module with parameters; for a model
            without lists of blocks.

    Sources: Howard & Ruder 2018, "Universal language model fine-tuning for text classification" (discriminative
    fine-tuning), https://arxiv.org/abs/1801.06146; Clark et al. 2020, "ELECTRA: Pre-training text encoders as
    discriminators rather than generators", https://arxiv.org/abs/2003.10555 (its code decays each block once more, for
    a pooler that it no longer has)
    """

    optional = True

    def __init__(self, decay: float, blocks: str | Iterable[str] = ()) -> None:
        if not (isinstance(decay, (int, float)) and 0 < decay <= 1):
            raise bad_argument("decay", decay, "a number in (0, 1]")
        super().__init__("*", lr=times(decay))
        self.decay = decay
        self.blocks = (blocks,) if isinstance(blocks, str) else tuple(blocks)

    def bind(self, view: View) -> Callable[[Param], Effect]:
        """This rule for one model."""
        found = depths(view, self.blocks)
        top = max(found.values(), default=0)

        def effect(param: Param) -> Effect:
            depth = found[param.names[0]]
            return {"lr": times(self.decay ** (top - depth))}, f"depth {depth} of {top}"

        return effect

    def __repr__(self) -> str:
        blocks = f", blocks={list(self.blocks)}" if self.blocks else ""
        return f"LayerDecay({self.decay}{blocks})"


def depths(view: View, blocks: Iterable[str] = ()) -> dict[str, int]:
    """The depth l of each parameter, by the first of its names, as :class:`LayerDecay` has it."""
    kinds = {name: kind for name, (kind, _) in view.verdicts.items()}
    members = _chosen(view, tuple(blocks)) if blocks else _found(view, kinds)
    block = {name: i for i, names in enumerate(members, 1) for name in names}
    heads = {id(place.module) for p in view.params if kinds[p.names[0]] == "head" for place in p.places}
    heads -= {id(module) for module in view.model.modules() if _has_parts(module)}  # a bias beside the head is its own
    depth: dict[str, int] = {}
    before, last = 0, len(members)
    for param in view.params:
        name = param.names[0]
        if kinds[name] == "head" or any(id(place.module) in heads for place in param.places):
            depth[name] = last + 1
        elif name in block:
            depth[name] = before = block[name]
        elif kinds[name] == "embedding":
            depth[name] = 0
        else:
            depth[name] = last + 1 if before == last else before
    return depth


def _chosen(view: View, globs: tuple[str, ...]) -> list[set[str]]:
    """The parameters of each block that the user names."""
    chosen: dict[str, set[str]] = {}
    for glob in globs:
        count = len(chosen)
        for name, _ in view.model.named_modules():
            new = name and name not in chosen and not any(name.startswith(f"{outer}.") for outer in chosen)
            if new and fnmatch.fnmatchcase(name, glob) and view.inside(name):
                chosen[name] = view.inside(name)
        if len(chosen) == count:
            raise bad_argument("blocks", glob, "a glob of modules with parameters", "model.named_modules() lists them")
    return list(chosen.values())


def _found(view: View, kinds: Mapping[str, str]) -> list[set[str]]:
    """The parameters of each block that structure shows: of lists of like modules; else of lists of single layers."""
    for composite in (True, False):
        if found := list(_BlockSearch(view, kinds, composite).blocks("", view.model)):
            return found
    remedy = "Say them from input to output: blocks=['conv1', 'conv2', …]"
    raise bad_argument("blocks", (), f"lists of blocks in {type(view.model).__name__}, but it has none", remedy)


class _BlockSearch:
    """Looks for lists of blocks, from the outside in.

    Args:
        view: the model.
        kinds: what each parameter is.
        composite: whether a block has parts; else any layer in a list is one.
    """

    def __init__(self, view: View, kinds: Mapping[str, str], composite: bool) -> None:
        self.view, self.composite = view, composite
        self.layers = {name for name, kind in kinds.items() if kind not in ("embedding", "head", "vector")}
        self.heads = {name for name, kind in kinds.items() if kind == "head"}
        lists = [module for module in view.model.modules() if isinstance(module, _LISTS)]
        self.in_lists = Counter(type(child) for one in lists for child in one.children() if _has_parts(child))

    def blocks(self, name: str, module: nn.Module) -> Iterator[set[str]]:
        """The parameters of each block in a module."""
        if isinstance(module, nn.RNNBase):
            yield from _layers_of(self.view.inside(name))
            return
        like = self._like(module)
        children = [(f"{name}.{child_name}".removeprefix("."), child) for child_name, child in module.named_children()]
        if like and not self.composite:
            yield from self._layers(children)
            return
        for child_name, child in children:
            names = self.view.inside(child_name)
            if not names & self.layers:
                continue
            whole = like and type(child) in like and not (isinstance(child, nn.Sequential) and self._like(child))
            inner = [] if whole else list(self.blocks(child_name, child))
            yield from inner or ([names] if like else [])

    def _layers(self, children: Iterable[tuple[str, nn.Module]]) -> list[set[str]]:
        """The layers of a list; a norm belongs to the layer before it."""
        found: list[set[str]] = []
        for name, child in children:
            names = self.view.inside(name)
            if names & self.layers:
                found += list(self.blocks(name, child)) or [names]
            elif found and not names & self.heads:
                found[-1] |= names
        return found

    def _like(self, module: nn.Module) -> set[type]:
        """The types of a list's children that are blocks; empty where it is no list of blocks."""
        if not isinstance(module, _LISTS):
            return set()
        children = [child for child in module.children() if any(True for _ in child.parameters())]
        if not self.composite:
            return {type(child) for child in children}
        parts = Counter(type(child) for child in children if _has_parts(child))
        if isinstance(module, nn.ModuleList):
            return set(parts)
        return {kind for kind, n in parts.items() if n > 1 or (self.in_lists[kind] > 1 and kind not in _LISTS)}


def _has_parts(module: nn.Module) -> bool:
    return any(name != "parametrizations" for name, _ in module.named_children())


def _layers_of(names: set[str]) -> list[set[str]]:
    """The parameters of each layer of a recurrent module."""
    by_layer: dict[int, set[str]] = {}
    for name in names:
        number = _RECURRENT_LAYER.search(name)
        by_layer.setdefault(int(number[1]) if number else 0, set()).add(name)
    return [by_layer[number] for number in sorted(by_layer)]
