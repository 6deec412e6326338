"""The first updates of a run, seen through the graphs of their losses: what ``check`` asks before, answered in passing.

No batch is read and no forward made for it. What needs one, such as a probe with other tokens, is for ``check``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.diagnosis.curve import Curve, draw, steps_by_itself
from thalweg.diagnosis.families import ORTHOGONAL
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.inflight.graph import pairs_with_all, seen_behind, sees_ahead
from thalweg.diagnosis.preflight import pairing
from thalweg.diagnosis.preflight.checks import (
    data,
    gradients,
    horizon,
    matrices,
    membership,
    mode,
    movement,
    outputs,
    settings,
)
from thalweg.diagnosis.preflight.fine import Fine
from thalweg.diagnosis.preflight.forward import Forward
from thalweg.diagnosis.preflight.known import AHEAD, STEPS, Preflight, roles_of
from thalweg.diagnosis.preflight.probes import Answers, shift, tokens_of
from thalweg.diagnosis.preflight.reading import Read, same, tensors_of
from thalweg.diagnosis.preflight.rehearsal import Rehearsal
from thalweg.diagnosis.preflight.subject import Subject, modules_of

#: updates whose losses are looked at, and after how many of them dead units are named
SEEN, DEAD_AFTER = 8, 4
#: examples of a batch that are kept until then
KEPT = 128
#: steps of a schedule that are drawn; each takes some 10 µs
DRAWN = 20_000
#: factor of its peak at which a schedule is at its end
ENDED = 0.05

Check = Callable[[Preflight], Iterable[Finding | Fine]]
#: what needs the model and its optimizer alone
BEFORE: tuple[Check, ...] = (
    *(mode.dropout, movement.marked, membership.twice, membership.untied),
    *(settings.betas, settings.decay, matrices.orthogonal, horizon.owners, horizon.counts),
)
#: what the first loss shows, and what takes several
FIRST: tuple[Check, ...] = (
    *(outputs.initial, outputs.uphill, outputs.activations, outputs.exclusive, outputs.weights, outputs.padding),
    *(
        outputs.collapses,
        outputs.shapes,
        outputs.reshaped,
        outputs.visible,
        data.scaled,
        membership.frozen,
        membership.unregistered,
    ),
)
#: of these, what is asked of a loss that is written by hand, too
BY_HAND: tuple[Check, ...] = (outputs.weights, outputs.collapses, data.scaled, membership.unregistered)
LATER: tuple[Check, ...] = (data.one_class_each, data.paired, outputs.head, movement.statistics)


class Opening:
    """What is known of the first updates.

    Args:
        about: the run.

    Attributes:
        guess: the loss of guessing, where the first one is not below it; None where that is not known.
        fits: whether the loss compares outputs with targets, in a function that torch has for it.
        ahead: for groups whose schedule is stepped at each update, the sum of the rates of the whole run.
    """

    def __init__(self, about: Subject) -> None:
        self.about = about
        drawn = STEPS if about.steps is None else max(about.steps, min(DRAWN, AHEAD * about.steps))
        self.updates = 0
        self.curves: list[Curve] = [draw(o, about.scheduler_of(o), drawn) for o in about.optimizers]
        self.counts = {id(one): count_of(one) or 0 for one in about.schedulers}
        self.guess: float | None = None
        self.fits = False
        self.ahead: dict[tuple[int, int], float] = {}
        self.forwards: list[Forward] = []
        self.losses: list[float] = []
        self.first_batch: Any = None
        self.batches: list[tuple[bool, bool] | None] = []  # whether each equals the first one, and is the same object
        self.statistics = {name: b.clone() for name, b in _frozen_statistics(about.model)}

    @property
    def over(self) -> bool:
        """Whether all has been seen."""
        return len(self.forwards) >= SEEN

    def rises(self) -> set[tuple[int, int]]:
        """The groups, by optimizer and number, that a scheduler gives a rate at some step."""
        return {
            (number, group)
            for number, (optimizer, curve) in enumerate(zip(self.about.optimizers, self.curves, strict=True))
            for group in range(len(curve.rates[0]))
            if self.about.scheduler_of(optimizer) is not None and curve.peak(group) > 0
        }

    def before(self) -> Iterator[tuple[Check, Preflight]]:
        """The checks that need no loss, each with what it looks at."""
        known = self._known([], [])
        known.roles = roles_of(known) if _goes_by_role(self.about) else {}
        return ((one, known) for one in BEFORE)

    def see(self, loss: Tensor, batch: Any) -> Iterator[tuple[Check, Preflight]]:
        """Take in the loss of an update, before its backward.

        Args:
            loss: of its first micro-batch.
            batch: that this was computed from, where it is known.

        Returns:
            The checks that can be made now.
        """
        seen = seen_behind(loss, {id(p): name for name, p in self.about.parameters.items()})
        self._compare(batch)
        number = len(self.forwards)
        self.forwards.append(_slim(seen))
        self.losses.append(float(loss.detach()))
        if number == 0:
            known = self._known([seen], self.losses)
            self.guess, self.fits = seen.calls[0].guessed() if known.untrained else None, bool(seen.calls)
            known.answers = _answers(seen)
            if (shape := pairs_with_all(loss)) is not None:
                yield partial(_broadcasts, shape), known
            if known.answers.shift is None and _predicts(seen) and sees_ahead(loss):
                yield self._unmasked, known
            yield from ((one, known) for one in FIRST if seen.calls or one in BY_HAND)
        if number + 1 == DEAD_AFTER:
            yield gradients.dead, self._known(self.forwards, self.losses)

    def later(self, updates: int) -> Iterator[tuple[Check, Preflight]]:
        """The checks that compare the losses, after so many updates."""
        self.updates = updates
        known = self._known(self.forwards, self.losses)
        known.paired = pairing.z_scores(*_examples(self.forwards))
        known.rehearsal = Rehearsal(gradients=[0.0] * len(self.forwards), buffers=self._changed())
        yield from ((one, known) for one in (self._alike, self._schedule, *LATER))

    def _known(self, forwards: list[Forward], losses: list[float]) -> Preflight:
        return Preflight(self.about, Read((), 0), self.curves, forwards=forwards or [Forward()], losses=list(losses))

    def _changed(self) -> set[str]:
        now = dict(_frozen_statistics(self.about.model))
        return {name for name, was in self.statistics.items() if name in now and not torch.equal(now[name], was)}

    def _compare(self, batch: Any) -> None:
        if not self.forwards:
            self.first_batch = batch
        elif batch is None or self.first_batch is None:
            self.batches.append(None)
        else:
            pairs = zip(tensors_of(batch), tensors_of(self.first_batch), strict=False)
            self.batches.append((same(batch, self.first_batch), any(a is b for a, b in pairs)))

    def _schedule(self, known: Preflight) -> Iterator[Finding | Fine]:
        """The horizon of a scheduler that is stepped at each update; one that would fit the run, and is not stepped.

        One that is stepped once an epoch has another unit, and is left alone.
        """
        for number, (optimizer, curve) in enumerate(zip(self.about.optimizers, self.curves, strict=True)):
            scheduler = self.about.scheduler_of(optimizer)
            if scheduler is None or self.about.steps is None or not steps_by_itself(scheduler):
                continue
            moved = (count_of(scheduler) or 0) - self.counts.get(id(scheduler), 0)
            if moved >= self.updates / 2:
                sums = map(sum, zip(*curve.rates[: self.about.steps], strict=True))
                self.ahead |= {(number, group): total for group, total in enumerate(sums)}
                yield from horizon.horizon(known)
            elif moved == 0 and _fits(curve.factors(), self.about.steps):
                yield finding(
                    "scheduler_out_of_step",
                    f"The {type(scheduler).__name__} ends at step {self.about.steps}, as the run does, and was not "
                    f"stepped in {self.updates} updates.",
                    numbers={"each": 0.0},
                )

    def _unmasked(self, known: Preflight) -> Iterator[Finding]:
        """A language model whose attention has no mask."""
        yield finding(
            "label_visible",
            "The targets are the next tokens, and attention gives weight to what comes after a position; none is "
            "expected.",
        )

    def _alike(self, known: Preflight) -> Iterator[Finding]:
        """Batches that are copies of the first one; inputs that stay the same although the batches differ."""
        if not self.batches or None in self.batches:
            return
        pairs = [pair for pair in self.batches if pair is not None]
        if all(equal and not one for equal, one in pairs):
            yield finding(
                "data_repeated",
                f"The first {len(pairs) + 1} batches hold the same numbers, in tensors of their own; different ones "
                "are expected.",
            )
        given = [list(f.inputs[0]) if f.inputs else [] for f in self.forwards]
        if given[0] and not any(equal for equal, _ in pairs) and all(same(x, given[0]) for x in given[1:]):
            yield finding(
                "loss_ignores_batch",
                f"The first layer was given the same numbers at each of {len(given)} updates, though the batches "
                "differ.",
            )


def count_of(scheduler: Any) -> int | None:
    """How often a scheduler has been stepped; None where it does not say.

    ``last_epoch`` goes before ``_step_count``, to which accelerate adds the micro-batches without an update.
    """
    counts = (getattr(scheduler, name, None) for name in ("last_epoch", "_step_count"))
    return next((count for count in counts if isinstance(count, int)), None)


def _fits(factors: list[float], steps: int) -> bool:
    """Whether a schedule that decays is at its end when the run is."""
    factors = factors[: int(1.1 * steps) + 1]
    top = factors.index(max(factors))
    end = next((top + after for after, factor in enumerate(factors[top:]) if factor <= ENDED), 0)
    return end >= 0.75 * steps


def _frozen_statistics(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The running means of batch norms whose weights are frozen, by name."""
    for name, module in modules_of(model, nn.modules.batchnorm._BatchNorm):
        own = list(module.parameters())
        if own and not any(p.requires_grad for p in own) and isinstance(module.running_mean, Tensor):
            yield f"{name}.running_mean".lstrip("."), module.running_mean


def _slim(seen: Forward) -> Forward:
    """What later checks need of a loss: no outputs, and of inputs and labels a part."""
    calls = [
        replace(call, output=torch.empty_like(call.output, device="meta"), target=call.target[:KEPT].clone())
        if call.target.ndim
        else replace(call, output=torch.empty_like(call.output, device="meta"))
        for call in seen.calls[:1]
    ]
    inputs = tuple(x[:KEPT].clone() for x in (seen.inputs or ((), {}))[0][:2] if x.ndim)
    return Forward(calls, seen.dead, (inputs, {}))


def _answers(seen: Forward) -> Answers:
    """By how many places targets are shifted; that a model sees what follows is for a probe to find."""
    tokens = tokens_of(seen)
    by = None if tokens is None else shift(tokens, seen.calls)
    return Answers() if by in (None, 1) else Answers(shift=by, earlier=0.0)


def _broadcasts(shape: tuple[int, ...], known: Preflight) -> Iterator[Finding]:
    """Outputs from each of which all targets were subtracted."""
    yield finding(
        "loss_broadcasts",
        f"From each of the outputs, of shape {shape}, all targets are subtracted, which gives a matrix; the same shape "
        "is expected.",
        outputs.head_of(known),
    )


def _predicts(seen: Forward) -> bool:
    """Whether the targets are the next tokens."""
    tokens = tokens_of(seen)
    return tokens is not None and shift(tokens, seen.calls) == 1


def _examples(forwards: list[Forward]) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and class numbers of each loss, one for each example; nothing where they are something else."""
    inputs, labels = [], []
    for seen in forwards:
        given = [x for x in (seen.inputs or ((), {}))[0] if x.is_floating_point() and x.ndim > 1]
        calls = [call for call in seen.calls if call.name == "cross_entropy"]
        own = [call.target for call in calls if not call.target.is_floating_point()]
        if len(given) != 1 or len(own) != 1 or own[0].shape != given[0].shape[:1]:
            return [], []
        inputs.append(given[0])
        labels.append(own[0])
    return inputs, labels


def _goes_by_role(about: Subject) -> bool:
    """Whether an optimizer's steps depend on what a parameter is."""
    owners = (about.owner(name) for name in about.trainable)
    return any(owner is not None and owner.family is ORTHOGONAL for owner in owners)
