"""What a task is: everything of a training run that is not the optimizer."""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from thalweg.groups import Rule
from thalweg.schedule import Schedule


class Task(abc.ABC):
    """A model factory, a batch stream, a loss, a fixed held-out evaluation, a horizon and a batch size.

    Everything that may vary is a function of ``seed``, so that all contestants of a race meet the same initial
    weights and the same data order; the runner also seeds the global generators of torch, numpy and Python with it,
    before the model, before the batches and before the first step (dropout).

    What a task opens to read is part of what it is, like its code: a race on changed files makes new runs. The
    evaluation of weights that are finite and of ordinary size must be finite: what is not, or an exception, ends the
    race.

    A subclass states the class variables and the four methods; its docstring's first line is the title that
    ``thalweg tasks`` shows. The hooks below them are what :func:`thalweg.train.fit` has: who trains with clipping, or
    with a schedule of his own, races with it. Without them a race has its own conditions.

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
        accumulate: batches to one step, at least 1; their mean loss is descended.
        clip: largest global norm of the gradients, above 0; None for no clipping.
        autocast: ``torch.bfloat16`` for a loss in mixed precision; None for none.
        device: where model, sample and batches are moved to, such as ``"cuda"``; :meth:`evaluate` moves what it feeds.
        compile: whether the model's forward is compiled; a string names the backend of ``torch.compile``.
    """

    name: ClassVar[str]
    steps: ClassVar[int]
    batch_size: ClassVar[int]
    good_for: ClassVar[str] = ""
    unit: ClassVar[str] = "loss"
    head: ClassVar[tuple[str, ...] | None] = None
    fixed: ClassVar[Set[str]] = frozenset()
    seconds_per_run: ClassVar[float] = 0.0
    accumulate: ClassVar[int] = 1
    clip: ClassVar[float | None] = None
    autocast: ClassVar[torch.dtype | None] = None
    device: ClassVar[str] = "cpu"
    compile: ClassVar[bool | str] = False
    #: the module of the user's file that the task was loaded from
    home: str | None = None

    @abc.abstractmethod
    def model(self, seed: int) -> nn.Module:
        """A freshly initialised model; the same seed gives the same weights, bit for bit."""

    def batches(self, seed: int) -> Iterator[Any] | DataLoader[Any]:
        """An endless stream of training batches; the same seed gives the same ones in the same order.

        Or a ``DataLoader``, which is read again whenever it ends. Where this method is not written, it is one over
        :meth:`dataset`, shuffled by the seed, without an incomplete last batch.
        """
        dataset = self.dataset()
        assert dataset is not None
        generator = torch.Generator().manual_seed(seed)
        return DataLoader(dataset, self.batch_size, shuffle=True, drop_last=True, generator=generator)

    def dataset(self) -> Dataset[Any] | None:
        """What to train on, a map-style ``torch.utils.data.Dataset``; in the place of :meth:`batches`."""
        return None

    @abc.abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor | Mapping[str, Tensor] | tuple[Tensor, ...]:
        """The scalar training loss of one batch (0-dim, differentiable).

        Or several: of a mapping the sum of its values is descended, and each is recorded; of a tuple the first is
        descended, and the others are recorded.
        """

    @abc.abstractmethod
    def evaluate(self, model: nn.Module) -> float:
        """The held-out loss on a fixed set: the same for every contestant, deterministic, in eval mode, no gradient."""

    def metrics(self, model: nn.Module) -> Mapping[str, float]:
        """What else is to be seen of a trained model, such as its accuracy; it is shown, and never picks a winner.

        Called at the end of a run, with the model in eval mode and without gradients.
        """
        return {}

    def schedule(self, steps: int) -> Schedule | None:
        """The factor of the peak learning rate as a function of the step, for a run of ``steps`` steps.

        From :mod:`thalweg.schedule`, or any function; None for the race's: a linear warmup over 5 % of the steps, then
        linear decay to zero. Runs have several lengths, and each has a schedule of its own.
        """
        return None

    def groups(self) -> Sequence[Rule]:
        """Rules of parameter groups, such as ``[NoDecay(), Rule("*.gate", lr=times(0.1))]``; above the race's own.

        The race's own say that embeddings, head and vectors have ``lr × multiplier`` and no weight decay. See
        :func:`thalweg.groups.of`.
        """
        return ()

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
