"""Learning rates by width, so that what was tuned on a narrow model serves a wide one (muP)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

from torch import nn

from thalweg._base.errors import bad_argument
from thalweg.groups.places import EMBEDDINGS, MATRICES, is_transposed
from thalweg.groups.rules import Effect, Rule, times
from thalweg.groups.twin import unwrapped
from thalweg.groups.view import Param, View

Like = Literal["adam", "sgd"]
Output = Literal["lr", "multiplier"]
#: a narrower model; its shapes by name; or the base size of each size that counts as width
Base = nn.Module | Mapping[str, Sequence[int]] | Mapping[int, int]


class MuP(Rule):
    r"""Learning rates tuned at a base width, for any width: the maximal update parametrization (muP).

    With $r_\text{in}$, $r_\text{out}$ the ratios of a parameter's fan-in and fan-out to those at the base width,

    $$\eta = \eta_\text{base} \cdot \begin{cases} 1 / r_\text{in} & \text{Adam-like} \\
    r_\text{out} / r_\text{in} & \text{SGD-like} \end{cases}$$

    | parameter | grows with width | Adam-like | SGD-like |
    | --- | --- | --- | --- |
    | input weight, embedding, bias, gain | fan-out | 1 | r |
    | hidden weight | both | 1/r | 1 |
    | output weight, ``output="lr"`` | fan-in | 1/r | 1/r |
    | output weight, ``output="multiplier"`` | fan-in | 1 | r |

    Adam-like is an optimizer that normalises the gradient entry by entry: Adam, RMSprop, Lion, …. Muon is neither: at
    its own scale, √max(1, m/n), it moves hidden matrices alike at every width; set their lr by a rule above this one.

    The rest of muP is the model's own business: hidden and input weights begin with a variance of 1/fan-in, embeddings
    with one that does not change with width; attention divides by the width of a head, not its root; and the output

    - with ``output="lr"`` begins with a variance of 1/(r · fan-in), which is the paper's 1/fan-in² fixed at the base
      width; or at zero;
    - with ``output="multiplier"`` is multiplied by 1/r in forward, and begins with the variance that it has at the base
      width. The two are the same function at every step; an output that is tied with an embedding needs this one.

    Which size is the fan-in is told by the module; where it is hand-made, by the parameter's use (see :func:`roles`).

    Args:
        base: the model at the base width (on ``torch.device("meta")`` it takes no memory); or its shapes by name,
            ``{name: tuple(p.shape) for name, p in base.named_parameters()}``; or the base size of each size that is a
            width, ``{1024: 256, 4096: 1024}``, where no other dimension has such a size.
        like: ``"adam"`` or ``"sgd"``: how updates scale with the gradient.
        output: what keeps the output in scale: the ``"lr"`` of its weight, or a ``"multiplier"`` in forward.
        independent_decay: divide weight_decay (which must be given) by the same factor, so that lr · weight_decay, the
            share of a weight that goes at each step, is the same at every width. False where decay does not multiply
            by lr, as with ``independent_weight_decay=True``.

    Raises:
        ValueError: for a base with other parameters or dimensions; for a size that occurs nowhere; for tied output
            weights with ``output="lr"``; for a parameter in which it cannot be told what its fan-in is. A rule above
            that sets its lr answers for it.

    Sources: Yang et al. 2022, "Tensor Programs V: Tuning large neural networks via zero-shot hyperparameter transfer",
    table 3 (``output="lr"``) and table 8 (``"multiplier"``), https://arxiv.org/abs/2203.03466; on decay: Kosson et al.
    2025, "Weight decay may matter more than muP", https://arxiv.org/abs/2510.19093
    """

    optional = True

    def __init__(
        self, base: Base, *, like: Like = "adam", output: Output = "lr", independent_decay: bool = True
    ) -> None:
        for name, value, allowed in (("like", like, get_args(Like)), ("output", output, get_args(Output))):
            if value not in allowed:
                raise bad_argument(name, value, f"one of {', '.join(map(repr, allowed))}")
        if not (isinstance(base, nn.Module) or (isinstance(base, Mapping) and base)):
            raise bad_argument("base", base, "a module, shapes by name, or base sizes by size")
        self.base, self.like, self.output = base, like, output
        super().__init__("*", lr=times(1), **({"weight_decay": times(1)} if independent_decay else {}))

    def bind(self, view: View) -> Callable[[Param], Effect]:
        """This rule for one model."""
        shapes = _shapes(self.base, view)
        return lambda param: self._effect(param, shapes[param.names[0]])

    def __repr__(self) -> str:
        base = type(self.base).__name__ if isinstance(self.base, nn.Module) else f"{len(self.base)} sizes"
        decay = "" if "weight_decay" in self.keys else ", independent_decay=False"
        return f"MuP({base}, like={self.like!r}, output={self.output!r}{decay})"

    def _effect(self, param: Param, base: tuple[int, ...]) -> Effect:
        if "lr" in param.settings:  # exact, as a rule above has it; its decay goes with it
            return None
        fan_in, fan_out = _growth(param, base)
        embeds = any(isinstance(place.module, EMBEDDINGS) for place in param.places)
        is_output = fan_in != 1 and fan_out == 1 and param.kind in ("head", "embedding")
        tied = any(isinstance(place.module, MATRICES) for place in param.places) and (
            (embeds and fan_out != 1) or (is_output and param.kind == "embedding")
        )
        if tied and self.output == "lr":
            raise bad_argument(
                "output", self.output, f'"multiplier", since {param.name} is embedding and output at once'
            )
        factor, note = (1 / fan_in if self.like == "adam" else fan_out / fan_in), ""
        if self.output == "multiplier" and (is_output or tied):
            growth = fan_in * fan_out  # one of them is 1
            factor = 1.0 if self.like == "adam" else growth
            note = f", the output times {1 / growth:.4g} in forward"
        settings = {key: times(factor if key == "lr" else 1 / factor) for key in self.settings}
        return settings, f"muP: fan-in × {fan_in:.4g}, fan-out × {fan_out:.4g}{note}"


def _growth(param: Param, base: tuple[int, ...]) -> tuple[float, float]:
    """The ratios of fan-in and fan-out to those at the base width."""
    shape = tuple(param.parameter.shape)
    if len(shape) != len(base):
        raise bad_argument("base", base, f"a shape like {shape} for {param.name}")
    ratios = [size / small for size, small in zip(shape, base, strict=True)]
    if param.at_sight[0] == "vector":
        return 1.0, math.prod(ratios)
    if all(ratio == 1 for ratio in ratios):
        return 1.0, 1.0
    modules = [place.module for place in param.places]
    embeds = any(isinstance(module, EMBEDDINGS) for module in modules)
    turned = embeds or is_transposed(param.parameter, list(param.places))
    if turned or any(isinstance(module, MATRICES) for module in modules):
        if any(ratio != 1 for ratio in ratios[2:]):
            raise bad_argument("base", base, f"the kernel size of {param.name} {shape}: it is no width")
        return (ratios[0], ratios[1]) if turned else (ratios[1], ratios[0])
    return _growth_by_use(param, ratios, base)


def _growth_by_use(param: Param, ratios: list[float], base: tuple[int, ...]) -> tuple[float, float]:
    """Of a parameter whose module does not tell its fan-in from its fan-out."""
    grown = [ratio for ratio in ratios if ratio != 1]
    bilinear = any(isinstance(place.module, nn.Bilinear) for place in param.places)
    contracted, produced = ({1, 2}, {0}) if bilinear else param.layout or (frozenset(), frozenset())
    if bilinear and 1 not in ratios[1:]:
        contracted = set()  # with both of its inputs grown, what its fan-in is depends on how these do
    if all(ratio == 1 or i in contracted ^ produced for i, ratio in enumerate(ratios)):
        return math.prod(ratios[i] for i in contracted), math.prod(ratios[i] for i in produced)
    if len(grown) == 2 and grown[0] == grown[1]:
        return grown[0], grown[1]
    if len(grown) == 1 and param.kind in ("head", "embedding"):
        return (grown[0], 1.0) if param.kind == "head" else (1.0, grown[0])
    if len(grown) == 1 and param.scales:
        return 1.0, grown[0]
    shape = tuple(param.parameter.shape)
    remedy = "Set its lr by a rule above MuP"
    raise bad_argument("base", base, f"to tell which sizes of {param.name} {shape} are its fan-in", remedy)


def _shapes(base: Base, view: View) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter at the base width."""
    shapes = {param.names[0]: tuple(param.parameter.shape) for param in view.params}
    if isinstance(base, nn.Module):
        narrow = {name: tuple(p.shape) for name, p in unwrapped(base)[1].named_parameters()}
    elif all(isinstance(key, int) for key in base):
        return _by_size(base, shapes)  # type: ignore[arg-type]
    else:
        narrow = {str(name).removeprefix(view.prefix): tuple(shape) for name, shape in base.items()}  # type: ignore[arg-type]
    if different := sorted(shapes.keys() ^ narrow.keys()):
        raise bad_argument("base", ", ".join(different), "the parameters of the model, but only one of them has these")
    return narrow


def _by_size(base: Mapping[int, int], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    for size, small in base.items():
        if not (isinstance(small, int) and small > 0):
            raise bad_argument("base", small, f"a size for {size} at the base width, an integer > 0")
        if not any(size in shape for shape in shapes.values()):
            raise bad_argument("base", size, "sizes that occur in the model")
    return {name: tuple(base.get(size, size) for size in shape) for name, shape in shapes.items()}
