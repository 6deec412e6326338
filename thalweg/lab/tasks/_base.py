"""What a task is: everything of a training run that is not the optimizer."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Set
from typing import Any, ClassVar

from torch import Tensor, nn


class Task(abc.ABC):
    """A model factory, a batch stream, a loss, a fixed held-out evaluation, a horizon and a batch size.

    Everything that may vary is a function of ``seed``, so that all contestants of a race meet the same initial
    weights and the same data order; the runner also seeds the global generators of torch, numpy and Python with it,
    before the model, before the batches and before the first step (dropout).

    What a task opens to read is part of what it is, like its code: a race on changed files makes new runs. The
    evaluation of weights that are finite and of ordinary size must be finite: what is not, or an exception, ends the
    race.

    A subclass states the class variables and the four methods; its docstring's first line is the title that
    ``thalweg tasks`` shows.

    Attributes:
        name: what the user types; lower case, words joined by ``-``.
        steps: the horizon T, in optimizer steps, of a full run.
        batch_size: examples in a batch, as :meth:`batches` makes them (the first dimension of its tensors).
        good_for: one line: what a race on this task can and cannot show.
        unit: of the loss and of the evaluation, e.g. ``"nats per byte"``.
        head: names of the modules that make the output, where the model itself does not show it; () for none.
        fixed: what is the same for all seeds on purpose: ``"model"`` (one initial model, as in fine-tuning) or
            ``"batches"`` (one order of the data). Else two seeds must differ in both, or the task is refused.
        seconds_per_run: of one core for a whole run with AdamW, as measured once; 0 if not known.
    """

    name: ClassVar[str]
    steps: ClassVar[int]
    batch_size: ClassVar[int]
    good_for: ClassVar[str] = ""
    unit: ClassVar[str] = "loss"
    head: ClassVar[tuple[str, ...] | None] = None
    fixed: ClassVar[Set[str]] = frozenset()
    seconds_per_run: ClassVar[float] = 0.0
    #: the module of the user's file that the task was loaded from
    home: str | None = None

    @abc.abstractmethod
    def model(self, seed: int) -> nn.Module:
        """A freshly initialised model; the same seed gives the same weights, bit for bit."""

    @abc.abstractmethod
    def batches(self, seed: int) -> Iterator[Any]:
        """An endless stream of training batches; the same seed gives the same ones in the same order."""

    @abc.abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """The scalar training loss of one batch (0-dim, differentiable)."""

    @abc.abstractmethod
    def evaluate(self, model: nn.Module) -> float:
        """The held-out loss on a fixed set: the same for every contestant, deterministic, in eval mode, no gradient."""

    def sample(self) -> Any:
        """An input ``x`` for which ``model(x)`` runs, to see which layer makes the output; None if there is none."""
        return None

    def data(self) -> Mapping[str, str]:
        """Where the data come from, for the record: names, SHA-256, versions."""
        return {}

    @property
    def module(self) -> str:
        """The name of the module that it comes from."""
        return self.home or type(self).__module__

    @property
    def title(self) -> str:
        """The first line of the docstring, or the name."""
        return ((type(self).__doc__ or "").strip() or self.name).splitlines()[0]
