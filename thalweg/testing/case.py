"""An optimizer under test: how to make it, what it is to equal, what it claims, and what does not apply to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from thalweg import registry
from thalweg._base.errors import bad_argument
from thalweg.engine.optimizer import Optimizer
from thalweg.testing import walks
from thalweg.testing.walks import MIXED, Feed, nothing

#: words of torch's constructors for how a step is computed, not what it is
IMPLEMENTATION = ("foreach", "fused", "capturable", "differentiable", "backend")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Claim:
    """One property.

    Attributes:
        words: what is claimed, as the id of a test has it.
        test: raises :class:`thalweg.testing.Failure` unless it holds; takes the case and hyperparameters.
        options: hyperparameters with which it holds.
    """

    words: str
    test: Callable[[Case, Mapping[str, Any]], None]
    options: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Case:
    """An optimizer under test.

    Args:
        optimizer: a class, or a function ``(params, **hyperparameters)`` that makes one; a name is one of
            :mod:`thalweg.optim`.
        reference: the same for what it must equal, step by step in float64: torch's class of the same optimizer, or a
            plain transcription of the paper.
        flags: sets of hyperparameters to try beside the defaults. Each must change the path.
        shapes: of the parameters. The default holds 0-dim and empty ones.
        lr: learning rate of most walks; None where the constructor takes none.
        downhill: a learning rate with which 200 steps from 2 reach the bottom of x².
        learns: a learning rate with which a small network learns a small task; ``downhill`` if None.
        base: hyperparameters that go with every set of flags, so that a few steps show what they do.
        options: hyperparameters that are always passed, to the reference too, but for ``transforms``.
        claims: properties from :mod:`thalweg.testing.claims` that it has.
        backends: ways to compute the same step, all of which are run: arguments of the constructor by a word, or
            values of ``backend``. None finds out: those of Thalweg that serve here; or torch's ``foreach`` and
            ``fused``, where the constructor takes them.
        dtypes: of parameters that it serves.
        complex: whether it takes complex parameters, as pairs of real ones; else it must refuse them.
        alone: whether a group steps the same without the others; else by a sum over all groups, say, they are coupled.
        coupled: whether a tensor's step depends on other tensors of its group; None: where groups do.
        drop_in: whether it stands for its reference, a class of torch: with the same arguments and checkpoints. None:
            where the names are the same.
        feed: what it needs beyond gradients: ``feed(optimizer, step, loss)`` is called before each step and gives the
            arguments of ``step``, such as a closure; ``loss`` is None where gradients are random.
        within: how far from its reference float64 may lead in 100 steps.
        bad: values of arguments that must be refused, beside those that follow from declarations of Thalweg:
            ``{"lr": [-1.0], "betas": [(0.9, 1.0)]}``.
        exempt: checks that are left out, by name, each with the reason that a report gives.
        device: where parameters are.
        name: in reports; that of the class if empty.

    Raises:
        ValueError: for an optimizer of no such name, or an argument outside its range.
    """

    optimizer: Any
    reference: Callable[..., torch.optim.Optimizer] | None = None
    flags: Sequence[Mapping[str, Any]] = ()
    shapes: Sequence[Sequence[int]] = MIXED
    lr: float | None = 0.01
    downhill: float = 0.05
    alone: bool = True
    base: Mapping[str, Any] = field(default_factory=dict)
    learns: float | None = field(default=None, kw_only=True)
    options: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    claims: Sequence[Claim] = field(default=(), kw_only=True)
    backends: Sequence[str] | Mapping[str, Mapping[str, Any]] | None = field(default=None, kw_only=True)
    dtypes: Sequence[torch.dtype] = field(default=DTYPES, kw_only=True)
    complex: bool = field(default=True, kw_only=True)
    coupled: bool | None = field(default=None, kw_only=True)
    drop_in: bool | None = field(default=None, kw_only=True)
    feed: Feed = field(default=nothing, kw_only=True)
    within: float = field(default=1e-10, kw_only=True)
    bad: Mapping[str, Iterable[Any]] = field(default_factory=dict, kw_only=True)
    exempt: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    device: str = field(default="cpu", kw_only=True)
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        made = self.optimizer
        if isinstance(made, str):
            found = registry.optimizers().get(made)
            if found is None:
                raise bad_argument("optimizer", made, "a class, or the name of one in thalweg.optim")
            made = found
        if not callable(made):
            raise bad_argument("optimizer", made, "a class, or a function that makes an optimizer")
        object.__setattr__(self, "optimizer", made)
        object.__setattr__(self, "coupled", not self.alone if self.coupled is None else self.coupled)
        object.__setattr__(self, "name", self.name or getattr(made, "__name__", type(made).__name__))
        if self.drop_in is None:
            same = torchs(self.reference) and getattr(self.reference, "__name__", "") == self.name
            object.__setattr__(self, "drop_in", same)
        if self.drop_in and not torchs(self.reference):
            raise bad_argument("drop_in", True, "False, unless the reference is a class of torch.optim")

    @property
    def declared(self) -> type[Optimizer] | None:
        """The class, where it is one of Thalweg's kind: its declarations can be read."""
        made = self.optimizer
        return made if isinstance(made, type) and issubclass(made, Optimizer) else None

    @cached_property
    def arguments(self) -> Mapping[str, inspect.Parameter]:
        """What the constructor takes, ``params`` aside; nothing is known of what ``**kwargs`` would take."""
        try:
            found = dict(inspect.signature(self.optimizer).parameters)
        except (TypeError, ValueError):  # a class written in C has no signature
            return {}
        variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        return {n: p for n, p in list(found.items())[1:] if p.kind not in variable}

    def takes(self, argument: str) -> bool:
        """Whether the constructor says that it takes an argument of that name."""
        return argument in self.arguments

    def make(self, params: Any, /, **given: Any) -> Any:
        """The optimizer over ``params``, with the learning rate and the options of the case unless given."""
        return self.optimizer(params, **self._arguments(given))

    def make_reference(self, params: Any, /, **given: Any) -> Any:
        """The reference over ``params``, made alike; what the transforms of ours do, it does by itself."""
        assert self.reference is not None
        arguments = self._arguments(given)
        arguments.pop("transforms", None)
        return self.reference(params, **arguments)

    def _arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        rate = {} if self.lr is None else {"lr": self.lr}
        return {**rate, **self.options, **given}

    def start(self, shapes: Sequence[Sequence[int]] | None = None, dtype: torch.dtype = torch.float64) -> Any:
        """Fresh random parameters of the case's shapes, or of others."""
        return walks.parameters(self.shapes if shapes is None else shapes, dtype, device=self.device)

    def walk(self, optimizer: Any, params: Sequence[Tensor], steps: int, start: int = 0) -> Any:
        """Steps with random gradients, fed with what the case feeds."""
        walks.walk(optimizer, params, steps, start, self.feed)

    def advance(self, optimizer: Any, step: int) -> None:
        """One step with the gradients that are there, fed with what the case feeds."""
        walks.advance(optimizer, step, self.feed)

    def taken(self, steps: int, /, dtype: torch.dtype = torch.float64, **given: Any) -> list[Parameter]:
        """The parameters after a walk with these hyperparameters."""
        params: list[Parameter] = self.start(dtype=dtype)
        self.walk(self.make(params, **given), params, steps)
        return params


def torchs(reference: Any) -> bool:
    """Whether it is a class of ``torch.optim``."""
    return isinstance(reference, type) and reference.__module__.startswith("torch.optim")
