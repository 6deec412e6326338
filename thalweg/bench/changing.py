"""Steps that change: what no steady step shows, and what trainings do.

Each situation is built twice, for our optimizer and for torch's fastest, and both step in turn. What happens before a
step is not timed, unless it is a part of the situation.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.bench import entrants, torchs
from thalweg.bench.result import ChangingStep
from thalweg.bench.turns import Times, ratio, reason, take_turns

Build = Callable[[Any], Any]

#: steps that are thrown away: everything has changed a few times by then
WARM = 20


class Changing:
    """Optimizers, and what happens before each of their steps.

    Args:
        optimizers: they step one after the other.
        change: is called before a step with its number, from 0 on.
        within: is called with each optimizer before its step, and timed.
        period: steps of a turn, where not all are alike.

    Attributes:
        seconds: of each step, the turns one after the other.
    """

    def __init__(
        self,
        optimizers: list[Any],
        change: Callable[[int], Any] = lambda t: None,
        within: Callable[[Any], Any] = lambda optimizer: None,
        period: int = 1,
    ) -> None:
        self.optimizers, self.change, self.within, self.period = optimizers, change, within, period
        self.seconds: list[float] = []
        self._count = itertools.count()

    def prepare(self) -> None:
        """What changes before the first step of the turn."""
        self.change(next(self._count))

    def step(self) -> None:
        """All steps of the turn."""
        self._timed()
        for _ in range(self.period - 1):
            self.prepare()
            self._timed()

    def warm(self) -> None:
        """Steps that are thrown away."""
        for _ in range(-(-WARM // self.period)):
            self.prepare()
            self.step()
        self.seconds.clear()

    @property
    def longest(self) -> float | None:
        """The longest step of a turn over its median, in the median of the turns; None where a turn is one step."""
        turns = [self.seconds[i : i + self.period] for i in range(0, len(self.seconds), self.period)]
        return statistics.median(max(t) / statistics.median(t) for t in turns) if turns and self.period > 1 else None

    def _timed(self) -> None:
        start = time.perf_counter()
        for optimizer in self.optimizers:
            self.within(optimizer)
            optimizer.step()
        self.seconds.append(time.perf_counter() - start)


@dataclass(frozen=True)
class Kit:
    """Fresh tensors for a situation: the same numbers for everyone.

    Attributes:
        scale: below 1 makes fewer, for tests.
        device: where they are.
    """

    scale: float
    device: str

    def count(self, size: int) -> int:
        """``size``, or less where the scale is below 1."""
        return max(2, int(size * self.scale)) if size > 1 else 1

    def params(self, count: int, *shape: int) -> list[nn.Parameter]:
        """Parameters with gradients."""
        generator = torch.Generator().manual_seed(0)
        numbers = [torch.randn(shape, generator=generator).to(self.device) for _ in range(self.count(count))]
        params = [nn.Parameter(0.02 * x) for x in numbers]
        for p, x in zip(params, numbers, strict=True):
            p.grad = 1e-3 * x
        return params


@dataclass(frozen=True)
class Situation:
    """What changes, and the optimizers over what it changes in: ``make(build, kit)``.

    Attributes:
        kinds: torch's forms that step rightly then, fastest first.
    """

    what: str
    make: Callable[[Build, Kit], Changing]
    kinds: tuple[str, ...] = ("fused", "foreach")


def changing_step(
    name: str, situation: str, seconds: float, least: int, most: int, scale: float, device: str, compiled: bool
) -> ChangingStep:
    """Step ours and torch's in turn.

    Args:
        name: of the optimizer; torch has one of that name.
        situation: of :data:`SITUATIONS`.
        seconds, least, most: how long each steps, as :func:`thalweg.bench.turns.take_turns` takes them.
        scale: below 1 makes fewer tensors, for tests.
        device: where they are.
        compiled: whether torch's under ``torch.compile`` takes part.
    """
    result: ChangingStep = {
        "optimizer": name, "situation": situation, "backend": None, "torch_kind": None, "ms": None, "spread": None,
        "longest": None, "torch_ms": None, "torch_spread": None, "torch_longest": None, "vs_torch": None,
        "vs_compiled": None, "note": "",
    }  # fmt: skip
    make, kinds, kit = SITUATIONS[situation].make, SITUATIONS[situation].kinds, Kit(scale, device)
    try:
        mine = _warm(make(lambda params: entrants.over(name, params), kit))
        build = lambda kind: _warm(make(lambda params: _torchs(name, kind, params), kit))  # noqa: E731
        kind, theirs = torchs.first_that_runs(build, kinds)
        steppers = {"ours": mine, "torch": theirs}
        if compiled:
            torch._dynamo.reset()  # what was compiled before does not count against this one's limit
            steppers["compiled"] = _warm(make(lambda params: _compiled(name, params), kit))
    except Exception as error:  # its result, not the benchmark's end
        return {**result, "note": reason(error)}
    times = take_turns(steppers, seconds, least, most, device=device)
    ours, torch_s = times["ours"], times["torch"]
    period = mine.period
    return {
        **result,
        "backend": entrants.backend_of(mine.optimizers[0]),
        "torch_kind": kind,
        "ms": _each(ours.ms, period),
        "spread": _each(ours.spread, period),
        "longest": mine.longest,
        "torch_ms": _each(torch_s.ms, period),
        "torch_spread": _each(torch_s.spread, period),
        "torch_longest": theirs.longest,
        "vs_torch": ratio(torch_s, ours),
        "vs_compiled": ratio(times.get("compiled", Times()), ours),
        "note": "; ".join(filter(None, (t.error for t in times.values()))),
    }


def _each(ms: float | None, period: int) -> float | None:
    return None if ms is None else ms / period


def _warm(changing: Changing) -> Changing:
    changing.warm()
    return changing


def _torchs(name: str, kind: str, params: Any) -> Any:
    cls = torchs.twin(name)
    return cls(params, **torchs.arguments(cls, name, kind))


def _compiled(name: str, params: Any) -> Any:
    """Torch's, whose step ``torch.compile`` has compiled, and compiles again where it must."""
    optimizer = _torchs(name, torchs.compilable(torchs.twin(name)), params)
    optimizer.step = torch.compile(optimizer.step)
    return optimizer


def _groups(
    count: int, change: Callable[[list[dict[str, Any]], int], Any], lr: Callable[[], Any] = lambda: 1e-3
) -> Any:
    def make(build: Build, kit: Kit) -> Changing:
        optimizer = build([{"params": [p], "lr": lr()} for p in kit.params(count, 1000)])
        return Changing([optimizer], lambda t: change(optimizer.param_groups, t))

    return make


def _rate(t: int, i: int) -> float:
    return 1e-3 * (1 + 1e-3 * ((7 * t + i) % 11))


def _float_rates(groups: list[dict[str, Any]], t: int) -> None:
    for i, group in enumerate(groups):
        group["lr"] = _rate(t, i)


def _tensor_rates(groups: list[dict[str, Any]], t: int) -> None:
    for i, group in enumerate(groups):
        group["lr"].fill_(_rate(t, i))


def _experts(count: int, active: int) -> Any:
    """Two tensors each, and 40 that always have gradients; at the first step all have, so that all have states."""

    def make(build: Build, kit: Kit) -> Changing:
        dense, experts = kit.params(40, 4096), [kit.params(2, 4096) for _ in range(kit.count(count))]
        gradients = [[p.grad for p in expert] for expert in experts]
        drawn = torch.Generator().manual_seed(0)

        def change(t: int) -> None:
            on = set(torch.randperm(len(experts), generator=drawn)[: kit.count(active)].tolist())
            for i, (expert, own) in enumerate(zip(experts, gradients, strict=True)):
                _give(expert, own if i in on or t == 0 else [None] * len(own))

        return Changing([build(dense + [p for expert in experts for p in expert])], change)

    return make


def _give(params: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    for p, g in zip(params, gradients, strict=True):
        p.grad = g


def _halves(build: Build, kit: Kit) -> Changing:
    params = kit.params(100, 4096)
    gradients = [p.grad for p in params]
    change = lambda t: _give(params, [g if i % 2 == t % 2 else None for i, g in enumerate(gradients)])  # noqa: E731
    return Changing([build(params)], change)


def _one_missing(build: Build, kit: Kit) -> Changing:
    params = kit.params(1000, 1000)
    gradient = params[1].grad

    def change(t: int) -> None:
        params[1].grad = None if t % 10 == 9 else gradient

    return Changing([build(params)], change, period=10)


def _moved(build: Build, kit: Kit) -> Changing:
    params = kit.params(150, 4096)

    def change(t: int) -> None:
        for p in params:
            p.data = p.data.clone()

    return Changing([build(params)], change)


def _loaded(build: Build, kit: Kit) -> Changing:
    optimizer = build(kit.params(150, 4096))
    optimizer.step()
    saved = copy.deepcopy(optimizer.state_dict())
    return Changing([optimizer], within=lambda optimizer: optimizer.load_state_dict(saved))


def _steady(count: int, *shape: int) -> Any:
    return lambda build, kit: Changing([build(kit.params(count, *shape))])


def _optimizers(build: Build, kit: Kit) -> Changing:
    return Changing([build([p]) for p in kit.params(100, 1000)])


def _strides(turn: Callable[[Tensor], Tensor], *shape: int) -> Any:
    def make(build: Build, kit: Kit) -> Changing:
        params = kit.params(50, *shape)
        for p in params:
            assert p.grad is not None
            p.grad = turn(p.grad)
        return Changing([build(params)])

    return make


#: torch's fused form on a CPU takes a gradient's numbers in the order in which they lie in memory, whatever its strides
#: say: of a gradient that is kept transposed it makes another step, without a word
RIGHT_BY_STRIDES = ("foreach",)

SITUATIONS: dict[str, Situation] = {
    "groups, lr changed": Situation(
        "200 groups of one tensor of 1,000 elements, lr set at each step", _groups(200, _float_rates)
    ),
    "groups, lr a tensor": Situation(
        "the same, lr a tensor that is filled", _groups(200, _tensor_rates, lambda: torch.tensor(1e-3))
    ),
    "groups": Situation("200 groups, nothing changes", _groups(200, lambda groups, t: None)),
    "1,000 groups": Situation("1,000 groups, nothing changes", _groups(1000, lambda groups, t: None)),
    "experts 64, 8": Situation(
        "64 experts of two tensors of 4,096, 8 drawn at each step, and 40 tensors beside", _experts(64, 8)
    ),
    "experts 256, 32": Situation("256 experts, 32 drawn", _experts(256, 32)),
    "experts 8, 7": Situation("8 experts, 7 drawn", _experts(8, 7)),
    "halves": Situation("of 100 tensors every second has a gradient, in turn", _halves),
    "one missing": Situation("of 1,000 tensors one has no gradient at every tenth step", _one_missing),
    "moved": Situation("150 tensors, p.data is a new tensor at each step", _moved),
    "loaded": Situation("150 tensors, load_state_dict and the next step", _loaded),
    "100 optimizers": Situation("100 optimizers of one tensor of 1,000", _optimizers),
    "1 tensor": Situation("one tensor of 16", _steady(1, 16)),
    "10 tensors": Situation("ten tensors of 1,000", _steady(10, 1000)),
    "gradients transposed": Situation(
        "50 matrices 128 × 128 whose gradients are kept transposed",
        _strides(lambda g: g.mT.contiguous().mT, 128, 128),
        RIGHT_BY_STRIDES,
    ),
    "gradients channels_last": Situation(
        "50 contiguous kernels (64, 32, 3, 3), gradients in channels_last",
        _strides(lambda g: g.contiguous(memory_format=torch.channels_last), 64, 32, 3, 3),
        RIGHT_BY_STRIDES,
    ),
}
