"""All that is tried on a run before it starts; the checks then only read it."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from thalweg._base.errors import bad_argument
from thalweg.diagnosis import limits
from thalweg.diagnosis.curve import MOST, Curve, draw
from thalweg.diagnosis.preflight import pairing, probes
from thalweg.diagnosis.preflight.forward import Forward, observe
from thalweg.diagnosis.preflight.losses import BINARY, LossCall, scalar_of
from thalweg.diagnosis.preflight.reading import Read, copied, read, tensors_of
from thalweg.diagnosis.preflight.rehearsal import Rates, Rehearsal, rehearse, silent_on
from thalweg.diagnosis.preflight.snapshot import Snapshot
from thalweg.diagnosis.preflight.subject import Subject, checked_loss
from thalweg.groups.roles import Role, roles
from thalweg.groups.twin import undisturbed
from thalweg.train import rng
from thalweg.train.data import generators_of

#: of a run whose length is not known, as far as its schedule is drawn
STEPS = 1000
#: how far beyond the end of the run a schedule is drawn, in lengths of the run
AHEAD = 20


@dataclass
class Preflight:
    """What was read, seen and tried.

    Attributes:
        subject: the run.
        read: its first batches.
        forwards: what the loss has shown on each of them, before any step.
        losses: on each of them; losses_after: after the rehearsal.
        after: what the loss has shown on the first batch after the rehearsal.
        answers: what the model answered to probes.
        curves: of each optimizer, from the present step to :data:`AHEAD` lengths of the run.
        rehearsal: at the rates of the schedule; None where the loss does not depend on the parameters.
        warmed: the same with a warmup, where the first one ended badly without.
        roles: what each parameter is, by name; empty where that could not be told.
        paired: z-scores of labels against inputs, by their shift within the batch.
        modes_changed: modules that the loss has put into eval mode.
        labels_outside: a label that is no class, and the number of classes.
        state_bytes: of the optimizers' states after the rehearsal.
        drawn: whether the loss, in eval mode, depends on random numbers: it draws its data itself, as a generator's.
        seconds: that all of it took.
    """

    subject: Subject
    read: Read
    curves: list[Curve]
    forwards: list[Forward] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    losses_after: list[float] = field(default_factory=list)
    after: Forward | None = None
    answers: probes.Answers = field(default_factory=probes.Answers)
    rehearsal: Rehearsal | None = None
    warmed: Rehearsal | None = None
    roles: dict[str, Role] = field(default_factory=dict)
    paired: dict[int, float] = field(default_factory=dict)
    modes_changed: list[str] = field(default_factory=list)
    labels_outside: tuple[int, int] | None = None
    state_bytes: int = 0
    drawn: bool = False
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        """Of the run, or of what is looked at where they are not known."""
        return self.subject.steps or STEPS

    @property
    def peaks(self) -> Rates:
        """The highest rate of each group of each optimizer within the run."""
        groups = (range(len(optimizer.param_groups)) for optimizer in self.subject.optimizers)
        return [[curve.peak(i, self.steps) for i in its] for curve, its in zip(self.curves, groups, strict=True)]

    @property
    def first(self) -> Forward:
        """What the first batch has shown."""
        return self.forwards[0]

    @property
    def untrained(self) -> bool:
        """Whether the model begins where guessing begins, as far as that is known."""
        calls = self.first.calls if self.forwards else []
        guessed = [(call.value(), call.guessed()) for call in calls[:1]]
        return bool(guessed) and all(g is not None and value >= limits.UNTRAINED * g for value, g in guessed)

    @property
    def warms_up(self) -> bool:
        """Whether the schedule begins well below its peak."""
        return any(curve.factors(self.steps)[0] < 0.5 for curve in self.curves)

    @property
    def apart(self) -> set[str]:
        """Trainable parameters that no optimizer holds and no gradient reaches, as those of a moving average.

        They have no part in this run: the copy that an average is kept in, a teacher, the other network of a pair.
        """
        if self.rehearsal is None or not self.rehearsal.whole or self.rehearsal.nonfinite:
            return set()
        return {name for name in self.rehearsal.silent if self.subject.owner(name) is None}

    def has_units(self, call: LossCall) -> bool:
        """Whether the layer nearest to a loss has a unit for each class; True where there is no such layer.

        Similarities of examples have none, and their labels may all be 0.
        """
        near = self.nearest(call)
        return not near or self.subject.parameters[near].shape[:1] == (call.classes,)

    def nearest(self, call: LossCall) -> str:
        """The name of the parameter that stands nearest before a loss; empty without one."""
        return next((name for name, p in self.subject.parameters.items() if id(p) == call.leaf), "")


def explore(subject: Subject, batches: Any) -> Preflight:
    """Read, look and rehearse; then put everything back as it was, also where the user's code raises.

    Raises:
        ValueError: for batches or a loss that cannot be right.
    """
    began = time.perf_counter()
    kept = Snapshot(subject.model, subject.optimizers, generators_of(batches))
    try:
        with undisturbed():
            curves = [draw(o, subject.scheduler_of(o), _drawn(subject.steps)) for o in subject.optimizers]
            known = Preflight(subject, read(batches), curves)
            _look(known)
            if known.labels_outside is None and all(map(math.isfinite, known.losses)):
                _ask(known)
                kept.restore()
                _try(known, kept)
    finally:
        kept.restore()
    known.seconds = time.perf_counter() - began
    return known


def _drawn(steps: int | None) -> int:
    return STEPS if steps is None else max(steps, min(MOST, AHEAD * steps))


def _look(known: Preflight) -> None:
    """Run the loss on each batch, before any step."""
    subject, model = known.subject, known.subject.model
    modes = {name: module.training for name, module in model.named_modules()}
    draws = rng.capture()
    for number, batch in enumerate(known.read.batches):
        rng.restore(draws)
        seen = Forward()
        try:
            observe(model, subject.loss, copied(batch), seen)
            value = checked_loss(scalar_of(seen.value))
        except Exception as error:
            if known_labels := _outside(seen):
                known.labels_outside = known_labels
                known.forwards.append(seen)
                return
            if isinstance(error, ValueError) and str(error).startswith("loss(model, batch)="):
                raise
            raise _refusal(subject, batch, number, error) from error
        known.forwards.append(seen)
        known.losses.append(float(value.detach()))
        known.labels_outside = known.labels_outside or _outside(seen)
    known.modes_changed = [name for name, module in model.named_modules() if modes[name] and not module.training]
    seen_value = scalar_of(known.first.value)
    known.rehearsal = Rehearsal() if seen_value.requires_grad else None


def _outside(seen: Forward) -> tuple[int, int] | None:
    """A label that is no class, and the number of classes; None where there is none."""
    for call in seen.calls:
        labels = call.labels
        if labels is not None and labels.numel() and (labels.max() >= call.classes or labels.min() < 0):
            return int(labels.max() if labels.max() >= call.classes else labels.min()), call.classes
        if call.name in BINARY and call.target.numel() and (call.target.max() > 1 or call.target.min() < 0):
            return int(call.target.max() if call.target.max() > 1 else call.target.min()), 2
    return None


def _refusal(subject: Subject, batch: Any, number: int, error: Exception) -> ValueError:
    """What is wrong where the loss raises: the batch, its device, or what the exception says."""
    what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    given = tensors_of(batch)
    if not given:
        allowed = f"batches of tensors that loss(model, batch) takes (it raised {what})"
        return bad_argument(f"batches[{number}]", batch, allowed, "Encode texts as token numbers first")
    devices = {str(x.device) for x in given}
    mine = {str(p.device) for p in subject.model.parameters()}
    if devices.isdisjoint(mine):
        allowed = f"tensors on the model's device, {', '.join(sorted(mine))} (the loss raised {what})"
        remedy = "Move the model with model.to(device) before the optimizer is built, or each batch to its device"
        return bad_argument(f"batches[{number}]", f"tensors on {', '.join(sorted(devices))}", allowed, remedy)
    shapes = [tuple(x.shape) for x in given]
    remedy = "loss(model, batch) is called with the model and one batch as it was read"
    shown = f"{getattr(subject.loss, '__qualname__', subject.loss)}, which raised {what} on tensors of shapes {shapes}"
    return bad_argument("loss", shown, "a function that runs on the batches", remedy)


def _ask(known: Preflight) -> None:
    """Probes that change nothing but modes; what the model cannot answer is left out."""
    model, seen, answers = known.subject.model, known.first, known.answers
    draws = rng.capture()

    def loss() -> float:
        rng.restore(draws)
        return known.subject.number(known.read.fresh(0))

    with _skipping(answers, "repeated"):
        answers.repeated = _relative(loss(), loss())
    with _skipping(answers, "modes"):
        with probes.evaluating(model, on=False):
            training = loss()
        with probes.evaluating(model):
            answers.modes = _relative(training, loss())
    if len(set(known.losses)) == 1:
        with _skipping(answers, "random numbers"), probes.evaluating(model):
            known.drawn = len({known.subject.number(known.read.fresh(0)) for _ in range(2)}) > 1
    with _skipping(answers, "others"):
        answers.others = probes.examples(model, seen)
    tokens = probes.tokens_of(seen)
    if tokens is not None:
        with _skipping(answers, "shift"):
            answers.shift = probes.shift(tokens, seen.calls)
            answers.earlier = probes.earlier(model, seen, tokens) if answers.shift is not None else None
        with _skipping(answers, "filled"):
            answers.filled = probes.filled(model, seen, tokens)
    known.roles = roles_of(known)
    with _skipping(answers, "paired"):
        known.paired = pairing.z_scores(*_examples(known))


@contextlib.contextmanager
def _skipping(answers: probes.Answers, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a user's model may raise in another mode or on changed inputs
        answers.skipped.append(f"{what}: {type(error).__name__}: {error}")


def _relative(one: float, other: float) -> float:
    return abs(one - other) / max(abs(one), abs(other), 1e-12)


def roles_of(known: Preflight) -> dict[str, Role]:
    """What each parameter is, by name; empty where that cannot be told."""
    inputs = known.first.inputs
    sample = None if inputs is None or (inputs[1] and inputs[0]) else (inputs[1] or tuple(inputs[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a guess is good enough here, and is not what the user asked for
        try:
            return {role.name: role for role in roles(known.subject.model, sample)}
        except Exception:  # whatever a copy of the user's model may raise
            return {}


def _examples(known: Preflight) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Inputs and class numbers of each batch, one for each example; nothing where they are something else."""
    inputs, labels = [], []
    for seen in known.forwards:
        given = [x for x in tensors_of(list(seen.inputs or ())) if x.is_floating_point() and x.ndim > 1]
        own = [call.target for call in seen.calls if call.name == "cross_entropy" and call.labels is not None]
        if len(given) != 1 or len(own) != 1 or own[0].shape != given[0].shape[:1]:
            return [], []
        inputs.append(given[0])
        labels.append(own[0])
    return inputs, labels


def _try(known: Preflight, kept: Snapshot) -> None:
    """The rehearsal, from the state as it is."""
    if known.rehearsal is None:
        return
    batch = known.read.batches[0]
    ramp = known.warms_up
    rehearsal = known.rehearsal = rehearse(known.subject, batch, known.peaks, ramp)
    if rehearsal.raised:
        known.answers.skipped.append(f"steps of the optimizer: {rehearsal.raised}")
    known.state_bytes = bytes_of_states(known.subject.optimizers)
    if not rehearsal.nonfinite:
        if math.isfinite(rehearsal.end):
            rehearsal.silent = silent_on(known.subject, known.read, rehearsal.silent)
        known.losses_after = _losses(known)
        known.after = Forward()
        observe(known.subject.model, known.subject.loss, copied(batch), known.after)
    if not ramp and rehearsal.whole and not rehearsal.nonfinite:
        kept.restore()
        known.warmed = rehearse(known.subject, batch, known.peaks, True)


def bytes_of_states(optimizers: tuple[torch.optim.Optimizer, ...]) -> int:
    """What the states of optimizers take."""
    states = (state for optimizer in optimizers for state in optimizer.state.values())
    return sum(x.numel() * x.element_size() for state in states for x in tensors_of(list(state.values())))


def _losses(known: Preflight) -> list[float]:
    draws, found = rng.capture(), []
    for batch in known.read.batches:
        rng.restore(draws)
        found.append(known.subject.number(batch))
    return found
