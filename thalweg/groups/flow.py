"""How parameters reach a model's output: one forward pass as a graph, whoever saw it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

from thalweg.groups.dims import Fans, Origin

#: what an operation does with the parameters that meet activations in it; ``filter`` convolves each channel by itself,
#: ``opaque`` is code that cannot be seen into
Does = Literal["parameter", "input", "multiply", "convolve", "filter", "look up", "scale", "opaque", "other"]
#: the dimensions of a parameter that are summed over with activations, and those that the result has
Layout = tuple[frozenset[int], frozenset[int]]

_PRODUCTS = ("multiply", "convolve", "filter")
_LAYERS = (*_PRODUCTS, "look up", "opaque")


@dataclass(frozen=True)
class Operation:
    """One operation of a forward pass.

    Attributes:
        does: its kind.
        inputs: the steps that it computes with; None for a constant.
        own: names of the parameters that it is (``does="parameter"``) or holds (a module seen as one operation).
        inside: names of further parameters that such a module holds.
        fans: of a product, the dimensions of each input that it sums over and keeps.
        beyond: of a scaling, whether each input has dimensions that no other has; empty where that is not known.
        moves: whether it hands its first input on as it is, in another shape or order.
        sums: whether it sums its input over dimensions.
    """

    does: Does
    inputs: tuple[Hashable | None, ...] = ()
    own: frozenset[str] = frozenset()
    fans: tuple[Fans | None, ...] = ()
    inside: frozenset[str] = frozenset()
    beyond: tuple[bool, ...] = ()
    moves: bool = False
    sums: bool = False


@dataclass(frozen=True)
class Known:
    """What is known of a model's parameters before its flow is read.

    Attributes:
        matrices: names of those that are known to be matrices.
        stacks: names of those with three dimensions or more: what is picked from them by an index may be a matrix.
    """

    matrices: AbstractSet[str] = frozenset()
    stacks: AbstractSet[str] = frozenset()


class Flow:
    """A forward pass, and what each parameter does in it.

    A value that is computed from parameters alone (a masked, normalised, noisy or low-rank weight) stands for those
    parameters, until it meets activations: that operation is their use.

    Attributes:
        uses: parameter → how it meets activations: a set of :data:`Does`. Nothing of one that the pass does not meet.
        layouts: parameter → how its dimensions meet activations, as far as that is seen, each way once.
        steps: every operation in order. Its key is the node of the graph that was read, which has the arguments.
        source: how the graph was seen, as a phrase.
        appeared: parameters that the model had not before the pass.
    """

    def __init__(
        self,
        steps: Mapping[Hashable, Operation],
        outputs: Sequence[Hashable],
        known: Known,
        source: str,
        origins: Callable[[Hashable], Sequence[Origin] | None],
        appeared: AbstractSet[str] = frozenset(),
    ) -> None:
        """Read the steps.

        Args:
            steps: in an order in which each follows its inputs.
            outputs: the steps that the model returns.
            known: what is known of the parameters.
            source: how the graph was seen, as a phrase.
            origins: of a step computed from parameters alone, where the dimensions of its value come from.
            appeared: parameters that the pass made.
        """
        self.uses: dict[str, set[Does]] = {}
        self.layouts: dict[str, dict[Layout, None]] = defaultdict(dict)
        self.source, self.steps, self.appeared = source, steps, appeared
        self._outputs, self._matrices, self._stacks, self._origins = outputs, known.matrices, known.stacks, origins
        self._layers: dict[Hashable, frozenset[str]] = {}
        self._ways: dict[Hashable, set[tuple[str, frozenset[int]]]] = defaultdict(set)
        self._scaled: dict[Hashable | None, frozenset[str]] = {}
        self._made_of: dict[Hashable | None, frozenset[str] | None] = {None: frozenset()}
        for node, step in steps.items():
            self._made_of[node] = self._read(node, step)

    @property
    def met(self) -> set[str]:
        """The parameters that the pass meets."""
        return {*self.uses, *(name for step in self.steps.values() for name in step.inside)}

    def makers(self, names: AbstractSet[str]) -> tuple[set[str], set[str]]:
        """Those of the named parameters that make the output, and those that only add to it.

        Nearest to the output are the layers from which a path leads to it that meets no other layer. A layer that
        another of these is computed from is none of them. A layer that adds to what earlier ones hand past it to the
        output (the end of a residual block) is not what makes it.
        """
        nearest = [self._nearest(output, names) for output in self._outputs]
        ends = {end for group in nearest for end in group}
        before = {end: self._upstream(end) for end in ends}
        last = ends.difference(*before.values())
        last -= {end for end in last if any(self._returns(end, before[end] & before[other]) for other in last - {end})}
        alone = {end for group in nearest for end in group & last if not group & before[end]}
        made = self._named(alone) & names
        return made, (self._named(last - alone) & names) - made

    def upstream(self, names: AbstractSet[str]) -> set[str]:
        """The parameters of layers from which others, that hold the named ones, are computed."""
        ends = [node for node, held in self._layers.items() if held & names]
        return {name for end in ends for node in self._upstream(end) for name in self._layers.get(node, ())}

    def _read(self, node: Hashable, step: Operation) -> frozenset[str] | None:
        """Names of the parameters that alone make a value; None where activations take part."""
        if step.does in ("parameter", "input"):
            return step.own if step.does == "parameter" else None
        parts = [self._made_of[before] for before in step.inputs]
        if self._without_activations(step, parts):
            return frozenset().union(*(part for part in parts if part))
        if step.does == "look up" and (picked := self._picked(parts)):
            return picked
        self._scale(node, step, parts)
        self._record(node, step, parts)
        return None

    def _scale(self, node: Hashable, step: Operation, parts: list[frozenset[str] | None]) -> None:
        """Note where activations scale a weight that has dimensions beyond theirs: it is a weight still, until it meets
        others in a product, or is summed."""
        before = [self._scaled.get(one, frozenset()) for one in step.inputs]
        if step.moves and len(before) == 1 and before[0]:
            self._scaled[node] = before[0]
        elif step.does == "scale":
            fresh = [part for part, more in zip(parts, step.beyond, strict=False) if part and more]
            if names := frozenset().union(*before, *(fresh if None in parts else [])):
                self._scaled[node] = names

    def _weights(self, step: Operation, parts: list[frozenset[str] | None]) -> frozenset[str]:
        """The scaled weights that a product or a sum takes for weights: beside a weight they are activations."""
        found = [self._scaled[one] for one in step.inputs if one in self._scaled]
        kernel = step.does == "convolve" and step.inputs[1] in self._scaled
        beside = step.does in _PRODUCTS and len(parts) > len(found) and not any(parts)
        return frozenset().union(*found) if found and (step.sums or kernel or beside) else frozenset()

    def _picked(self, parts: list[frozenset[str] | None]) -> frozenset[str]:
        """The stack of matrices from which one is picked by an index; empty where it is no such stack."""
        tables = [part for part in parts if part]
        return tables[0] if len(tables) == 1 and tables[0] <= self._stacks else frozenset()

    def _without_activations(self, step: Operation, parts: list[frozenset[str] | None]) -> bool:
        if step.own or step.does == "look up" or None in parts:
            return False
        if step.does in _PRODUCTS:  # a constant factor is data; a known matrix acts on the parameter beside it
            return all(parts) and not any(part & self._matrices for part in parts if part)
        return True

    def _record(self, node: Hashable, step: Operation, parts: list[frozenset[str] | None]) -> None:
        factors = [part for part in parts if part]
        if step.does in _PRODUCTS and (step.own or all(parts)):  # what a known matrix acts on is data, not a matrix
            acted_on = [part for part in factors if not part & self._matrices]
            factors = [part for part in factors if part & self._matrices]
            self._note(frozenset().union(*acted_on), "other")
        if step.does in _PRODUCTS and any(step.fans):  # what is added to a product is no factor of it
            added = [part for part, fans in zip(parts, step.fans, strict=False) if part and fans is None]
            factors = [part for part in factors if part not in added]
            self._note(frozenset().union(*added), "other")
        names = step.own.union(*factors)
        self._note(names, step.does)
        if scaled := self._weights(step, parts):
            self._note(scaled, "multiply" if step.sums else step.does)
            self._layers[node] = scaled
        for before, part, fans in zip(step.inputs, parts, step.fans, strict=False):
            if part and part <= names and fans is not None:
                self._lay(node, before, fans)
        if step.does in _LAYERS:
            self._layers[node] = names | scaled

    def _note(self, names: Iterable[str], does: Does) -> None:
        for name in names:
            self.uses.setdefault(name, set()).add(does)

    def _lay(self, node: Hashable, factor: Hashable, fans: Fans) -> None:
        """Note which dimensions of the parameters that make a factor are summed over, and which are kept."""
        contracted, produced = fans.of(self._origins(factor) or ())
        for name in {name for name, _ in contracted | produced}:
            summed, kept = (frozenset(i for one, i in side if one == name) for side in (contracted, produced))
            self.layouts[name][summed, kept] = None
            self._ways[node].add((name, summed))

    def _returns(self, end: Hashable, before: AbstractSet[Hashable]) -> bool:
        """Whether a layer is the way back through layers that others are computed from, as where an output is the
        derivative of another by the input."""
        known = {way for node in before for way in self._ways.get(node, ())}
        back = self._ways.get(end, set())
        return bool(back) and all(any(name == other and way != one for other, one in known) for name, way in back)

    def _nearest(self, output: Hashable, names: AbstractSet[str]) -> set[Hashable]:
        found, seen, todo = set(), {output}, [output]
        while todo:
            node = todo.pop()
            if self._layers.get(node, frozenset()) & names:
                found.add(node)
                continue
            before = {one for one in self.steps[node].inputs if one is not None} - seen
            seen |= before
            todo.extend(before)
        return found

    def _upstream(self, node: Hashable) -> set[Hashable]:
        seen: set[Hashable] = set()
        todo = [node]
        while todo:
            before = {one for one in self.steps[todo.pop()].inputs if one is not None} - seen
            seen |= before
            todo.extend(before)
        return seen

    def _named(self, nodes: Iterable[Hashable]) -> set[str]:
        return {name for node in nodes for name in self._layers[node]}
