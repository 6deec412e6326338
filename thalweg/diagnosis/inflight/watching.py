"""``thalweg.watch``: a run looked at from the side of its optimizer, while any loop trains."""

from __future__ import annotations

import functools
import math
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thalweg._base.errors import bad_argument
from thalweg._base.given import a_path, all_of, many
from thalweg._base.version import __version__
from thalweg.diagnosis import limits
from thalweg.diagnosis.families import ADAPTIVE, innermost
from thalweg.diagnosis.finding import Finding
from thalweg.diagnosis.inflight import batches, replicas
from thalweg.diagnosis.inflight.batches import Batches
from thalweg.diagnosis.inflight.detectors import DETECTORS
from thalweg.diagnosis.inflight.detectors.loss import nonfinite, of_exception, spikes
from thalweg.diagnosis.inflight.detectors.passes import unstepped
from thalweg.diagnosis.inflight.detectors.schedule import eval_mode
from thalweg.diagnosis.inflight.inside import Inside
from thalweg.diagnosis.inflight.memory import allocated
from thalweg.diagnosis.inflight.opening import SEEN, Opening, count_of
from thalweg.diagnosis.inflight.passes import LOOKED_AT, Passes
from thalweg.diagnosis.inflight.record import History, Sample, WatchedParameter
from thalweg.diagnosis.inflight.sampling import Sampler, second
from thalweg.diagnosis.inflight.sharpness import ITERATIONS, Sharpness, sharpness_of
from thalweg.diagnosis.inflight.shown import as_html
from thalweg.diagnosis.inflight.sinks import Sink
from thalweg.diagnosis.inflight.telling import Voice, WatchWarning
from thalweg.diagnosis.preflight.checks.mode import modal
from thalweg.diagnosis.preflight.checks.settings import decay_of, is_decoupled
from thalweg.diagnosis.preflight.losses import finite
from thalweg.diagnosis.preflight.subject import Subject, subject
from thalweg.diagnosis.symmetry import alike, held, units_alike

__all__ = ["Watch", "WatchWarning", "watch"]

#: the first updates, each of which is looked at: what goes wrong at the beginning is best seen there
EARLY = 12
#: then each tenth is, until so many updates, and each twentieth after them, unless the user says how often
OFTEN, OFTEN_UNTIL, SELDOM = 10, 100, 20
#: updates after which a run's replicas are compared, in samples
COMPARED = 5
#: of these looks every so many is one into the model too, where attention, routers and the ranks of updates are seen:
#: the first figure for the first looks, the second for later ones
INSIDE, INSIDE_LATER, INSIDE_FIRST = 4, 8, 24
#: updates that are looked at when a layer falls silent, and after how many such a look may come again
CLOSELY, APART = limits.DEAD_FOR, 100

#: updates after which layers whose units began alike are looked at: behind a head of zeros the first gradient is zero
ALIKE_AFTER = 2

#: settings of a group that say what kind of steps its parameters take
SETTINGS = ("weight_decay", "use_muon", "decoupled_weight_decay")

#: the detectors, with names for what is said where one fails
_NAMED = [(f"{one.__module__.rpartition('.')[2]}.{one.__name__}", one) for one in DETECTORS]

_WATCHED: weakref.WeakKeyDictionary[nn.Module, weakref.ref[Watch]] = weakref.WeakKeyDictionary()


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
    scheduler: Any = None,
    *,
    every: int | None = None,
    steps: int | None = None,
    log: str | Path | None = None,
    sinks: Iterable[Sink] = (),
) -> Watch:
    """Watch a run: loss, gradients, updates and schedule, by layer, beside any loop.

    >>> w = watch(model, optimizer, scheduler, log="run.jsonl")
    >>> for batch in w.batches(loader):
    ...     loss = w.loss(f(model, batch))
    ...     loss.backward()
    ...     optimizer.step()
    ...     optimizer.zero_grad()
    >>> print(w)

    It hangs on the optimizer's step, so that it sees what the optimizer gets and does: with accumulation, clipping,
    ``GradScaler``, ``torch.compile``, and on shards. The loss is seen where :meth:`Watch.loss` is told it. The first
    twelve updates are looked at, then each ``every``-th. What is found is told once, as a :class:`WatchWarning`.

    Args:
        model: what is trained; give the wrapped one (DistributedDataParallel, ``torch.compile``) where there is one.
        optimizer: that steps it, or several, which step one after the other.
        scheduler: of these, where there is one, or several.
        every: how often to look, in updates; an integer of at least 1. By default each tenth of the first hundred
            updates is looked at, and then each twentieth: what is wrong mostly shows early, and a look costs a third of
            a step of a small model.
        steps: how many updates the run has, where it is known.
        log: a file for the record, a line of JSON for each look; ``thalweg watch FILE`` shows it.
        sinks: functions of a step and its numbers; see :mod:`thalweg.diagnosis.inflight.sinks`.

    Raises:
        ValueError: for arguments that cannot be right, and for a model that another watch is looking at.
    """
    if every is not None and (not isinstance(every, int) or isinstance(every, bool) or every < 1):
        raise bad_argument("every", every, "a number of updates, an integer of at least 1")
    log = None if log is None else a_path("log", log)
    sinks = all_of("sinks", sinks, callable, "a function of a step and its numbers")
    about = subject(model, optimizer, _no_loss, scheduler, steps)
    bare = unwrapped(model)
    other = _WATCHED.get(bare)
    if other is not None and (known := other()) is not None and not known.closed:
        remedy = "Close it first: w.close(), or use it as `with thalweg.watch(...) as w:`"
        raise bad_argument("model", f"a watched {type(bare).__name__}", "one that no other watch looks at", remedy)
    found = Watch(about, every, log, sinks)
    _WATCHED[bare] = weakref.ref(found)
    return found


class Watch:
    """What :func:`watch` returns.

    Attributes:
        history: the samples and losses.
        closed: whether it looks no more.
    """

    def __init__(self, about: Subject, every: int | None, log: str | Path | None, sinks: Iterable[Sink]) -> None:
        self.about, self.every = about, every
        self.voice = Voice(log, sinks)
        self.closed = False
        self.source: Batches | None = None
        self.begun = self.last_end = time.perf_counter()
        self.pending: Callable[[], dict[str, list[float]]] | None = None
        self.open: Sample | None = None
        self.waiting: list[tuple[int, Tensor]] = []  # losses on a device, not yet moved
        self.skips: list[Tensor] = []  # for each step since the last look, whether a GradScaler has skipped it
        self.passes = self.told = 0
        self.backward_begun = self.backward = 0.0
        self.closely = -APART  # updates up to which each is looked at
        self.looks = self.opened = self.passes_before = 0
        self.looked_at = self.also = -1  # the last update that was looked at; one that is looked at besides
        self.suspects: set[str] = set()  # weights whose rows are all the same at the beginning
        self.versions: list[int] = []  # of some weights, after an update: what writes into them raises these
        self.history = History([], about.steps)
        self._begin()
        self.opening: Opening | None = None
        with self.voice.safely("the schedule"):
            self.opening = Opening(about)
            self.history.rises = self.opening.rises()
        self.handles = [*self._on_steps(), *self._on_gradients()]

    @property
    def findings(self) -> list[Finding]:
        """What was found, in the order of discovery."""
        return self.voice.findings

    @property
    def sinks(self) -> list[Sink]:
        """Those that still get numbers."""
        return self.voice.sinks

    # -- what the loop calls ----------------------------------------------------------------------------------------

    def loss(self, value: Any, share: float = 1.0) -> Any:
        """Tell the loss of the batch that is being computed.

        Args:
            value: a 0-dim tensor or a number; of several before one update the mean counts.
            share: what part of the batch's loss it is, where it was divided already, as by the number of micro-batches.

        Returns:
            The same, for ``w.loss(f(model, batch)).backward()``.
        """
        with self.voice.safely("the loss"):
            self.told += 1
            if isinstance(value, Tensor) and value.requires_grad and value.grad_fn is not None and not self.closed:
                self._attend(value)
            step = self.history.updates
            if isinstance(value, Tensor) and value.device.type != "cpu":
                self.waiting.append((step, value.detach().float() / share))
            else:
                self._loss(step, float(value.detach() if isinstance(value, Tensor) else value) / share)
        return value

    def batches(self, source: Iterable[Any]) -> Batches:
        """The batches of an iterable, as they are: the watch notes which one a step is made from, and the wait."""
        self.source = Batches(many("source", source, "an iterable of batches: a list, a DataLoader, a generator"))
        return self.source

    def save_batch(self, path: str | Path) -> None:
        """Save the present batch of :meth:`batches` with ``torch.save``.

        Raises:
            ValueError: where :meth:`batches` has given none.
        """
        if self.source is None or self.source.index < 0:
            raise bad_argument(
                "path", str(path), "a call while w.batches(loader) gives batches", "Loop over w.batches(loader)"
            )
        torch.save(self.source.present, path)

    def sharpness(self, loss: Tensor, iterations: int = ITERATIONS) -> Sharpness:
        """The sharpness of a loss at the present weights, and the edge of stability at the present rates.

        Args:
            loss: just computed from the model; of it no backward is made.
            iterations: products with the Hessian; each takes as long as some four steps.

        Raises:
            ValueError: for a loss without a graph, or that cannot be differentiated twice.
        """
        return sharpness_of(replace(self.about), loss, iterations)

    def close(self) -> None:
        """Look no more: take the hooks off, write the last numbers, close the record."""
        if self.closed:
            return
        self.closed = True
        for handle in self.handles:
            handle.remove()
        with self.voice.safely("the last numbers"):
            self._conclude()
            self._take()
            self.voice.tell(unstepped(self.history))
            self.voice.write({"updates": self.history.updates})
        self.voice.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with self.voice.safely("the end"):
            self.voice.tell(of_exception(error, self.about.model))
        self.close()

    def __str__(self) -> str:
        """The advice: every finding with evidence and remedy, or that nothing was found, and what was looked at."""
        return "\n\n".join([*map(str, self.findings), self._looked()])

    def _repr_html_(self) -> str:
        """The same in a notebook, with a curve for each pillar."""
        return as_html(self.history, self.findings, self._looked())

    def _looked(self) -> str:
        self._drain()
        looked = f"{self.looks} of {self.history.updates} updates were looked at"
        blind = "" if self.history.losses else "; the loss was not told: w.loss(loss)"
        scale = self.history.noise_scale
        noise = "" if scale is None else f"; the noise scale is {scale:.2g} micro-batches"
        kept = self.history.kept
        share = "" if math.isnan(kept) else f"; the loss falls by {kept:.0%} of what the gradients promise"
        return f"{len(self.findings)} findings; {looked}{blind}{noise}{share}"

    # -- setting up -------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Take stock of the parameters."""
        about = replace(self.about)  # whose parameters and owners are read again
        self.about = about
        self.modules = list(about.model.modules())
        self.params, self.state = list(about.parameters.values()), self._state()
        before = self.history
        self.history = replace(
            History(self._watched(), about.steps),
            **{name: getattr(before, name) for name in ("losses", "updates", "made", "batches", "poisoned", "rises")},
            **{name: getattr(before, name) for name in ("guess", "ahead", "fits", "apart")},
        )
        self.history.modal = modal(about.model)
        self.notes = Passes(self._some())
        self.sampler = Sampler(self.params, self._second)
        self.inside = self._inside()
        if self.voice.record is not None:
            shapes = [list(one.shape) for one in self.history.watched]
            names = [one.name for one in self.history.watched]
            header = {"thalweg": __version__, "names": names, "shapes": shapes, "steps": about.steps}
            self.voice.write({**header, "optimizers": [type(one).__name__ for one in about.optimizers]})

    def _some(self) -> list[nn.Parameter]:
        """A few parameters that are trained, from the first to the last."""
        trained = [p for p in self.params if p.requires_grad and p.is_leaf and id(p) in self.about.owners]
        return trained[:: max(1, len(trained) // LOOKED_AT)][:LOOKED_AT]

    def _watched(self) -> list[WatchedParameter]:
        return [self._one(name, p) for name, p in self.about.parameters.items()]

    def _one(self, name: str, p: nn.Parameter) -> WatchedParameter:
        owner = self.about.owner(name)
        low = p.dtype in (torch.bfloat16, torch.float16)
        plain = name.replace("_orig_mod.", "").removeprefix("module.").replace("_fsdp_wrapped_module.", "")
        if owner is None:
            return WatchedParameter(plain, p.requires_grad, None, 0, None, tuple(p.shape), low)
        coupled = owner.family is not None and not is_decoupled(owner, owner.family)
        of = (owner.number, owner.place, owner.family, tuple(p.shape), low, decay_of(owner), coupled, owner.tuned)
        return WatchedParameter(plain, p.requires_grad, *of)

    def _inside(self) -> Inside:
        updated = (i for i, one in self.history.trainable() if one.hidden and one.optimizer is not None)
        return Inside(self.about.model, self.params, [one.name for one in self.history.watched], list(updated))

    def _second(self, i: int) -> Any:
        one = self.history.watched[i]
        if one.optimizer is None or one.family is not ADAPTIVE:  # elsewhere ε has another unit
            return None
        optimizer = self.about.optimizers[one.optimizer]
        return second(optimizer, optimizer.param_groups[one.group], self.params[i])

    def _on_steps(self) -> Iterator[Any]:
        for number, one in enumerate(self.about.optimizers):
            yield stepped(one).register_step_pre_hook(functools.partial(self._begins, number))
            yield stepped(one).register_step_post_hook(functools.partial(self._ends, number))

    def _on_gradients(self) -> Iterator[Any]:
        """Backward passes are counted by the gradients of two parameters, of which one comes first and one last."""
        asking = [p for p in self.params if p.requires_grad and p.is_leaf]
        for p in {id(p): p for p in (asking[:1] + asking[-1:])}.values():
            yield p.register_post_accumulate_grad_hook(self._counts(p is asking[0]))  # type: ignore[no-untyped-call]

    def _counts(self, last: bool) -> Callable[[Tensor], None]:
        def count(_: Tensor) -> None:
            now = time.perf_counter()
            if not last:
                self.backward_begun = now
                return
            self.passes += 1
            if self.backward_begun:
                self.backward += now - self.backward_begun
            self.history.skipped += 1
            if self._due():
                with self.voice.safely("clipping"):
                    self.notes.passed()
            if self.history.skipped % 4 == 0 and not self.closed:
                with self.voice.safely("backward passes"):
                    self.history.idle = self.notes.idle
                    self.voice.tell(unstepped(self.history))

        return count

    # -- one update -------------------------------------------------------------------------------------------------

    def _begins(self, number: int, *_: Any) -> None:
        """An optimizer's step; an update begins with the first one's."""
        if number == 0:
            self._before()
        self._read_again(number)

    def _ends(self, number: int, *_: Any) -> None:
        """The same of the end, which the last one's is."""
        self._read_again(number)
        if number == len(self.about.optimizers) - 1:
            self._after()

    def _read_again(self, number: int) -> None:
        """Of an optimizer that steps by gradients computed since they were looked at: within its step, or before it.

        Those of the others are not the ones by which they have stepped: a generator's backward reaches the critic too.
        """
        sample = self.open
        if sample is None or not self._underway or self.passes == self.passes_before:
            return
        self.passes_before = self.passes
        self.history.apart = True
        with self.voice.safely("the step"):
            its = [one.optimizer in (number, None) for one in self.history.watched]
            self.sampler.computed(its)
            self.notes.now.clear()
            absent = zip(its, self.params, sample.absent, strict=True)
            sample.absent = [p.grad is None if mine else was for mine, p, was in absent]

    @property
    def _underway(self) -> bool:
        """Whether an update is looked at; one that has ended, but is not on the host yet, is not."""
        return self.open is not None and self.pending is None

    def _before(self) -> None:
        self.step_begun = time.perf_counter()
        with self.voice.safely("the mode"):
            self.history.evaluated = 0 if self.about.model.training else self.history.evaluated + 1
            if self._is_written() and self.history.updates - self.also >= self._apart:
                self.also = self.history.updates
        if not self._due():
            return
        with self.voice.safely("the step"):
            self._take()
            self._refresh()
            if self.history.updates == 0:
                self._ask(self.opening.before() if self.opening else ())
            self._compare_units()
            sample = self._sample()
            self.notes.stepping()
            self.sampler.begin(follows=self.looked_at == self.history.updates - 1)
            if self._looks_inside():
                self.inside.stepping()
            self.opened += 1
            self.open, self.passes_before = sample, self.passes

    def _compare_units(self) -> None:
        """Whether the units of a layer begin as copies, and remain so."""
        if self.history.updates == 0:
            self.suspects = alike(self.about.trainable)
        elif self.history.updates == ALIKE_AFTER and (stuck := held(self.about.trainable, self.suspects)):
            self.voice.tell([replace(units_alike(stuck, self.about.trainable), step=0)])

    def _after(self) -> None:
        now = time.perf_counter()
        with self.voice.safely("the step"):
            if self._is_skipped():
                self.open = None if self._underway else self.open
                self.notes.now.clear()
                self.passes = 0
                return
            if self.open is not None and self._underway:
                self.open.parts = self._parts(now)
                self.pending, self.looked_at = self.sampler.end(), self.history.updates
                self.inside.stepped()
            self.notes.end()
            if self.pending is not None and self._on_host():
                self._take()
            self._update_made()
        self.last_end = time.perf_counter()

    def _is_written(self) -> bool:
        """Whether something has written into the weights since the last update, as far as torch counts that."""
        return bool(self.versions) and [p._version for p in self.notes.parameters] != self.versions

    def _on_host(self) -> bool:
        """Whether the numbers need not be waited for; on a GPU they are taken at the next look."""
        return all(p.device.type == "cpu" for p in self.params)

    def _update_made(self) -> None:
        self.versions = [p._version for p in self.notes.parameters]
        self.history.updates += 1
        self.passes, self.told, self.history.skipped, self.backward, self.backward_begun = 0, 0, 0, 0.0, 0.0
        self.history.idle = 0
        if self.source is not None:
            self.source.waited = 0.0
        if self.history.evaluated == limits.STUCK_FOR:
            self.voice.tell(eval_mode(self.history))
        if self.history.updates == SEEN:
            self._conclude()

    def _is_skipped(self) -> bool:
        """Whether a GradScaler has told an optimizer that steps by itself to leave this step out.

        On a GPU that is known at the next look; until then the step counts as an update.
        """
        told = [found for one in self.about.optimizers if (found := getattr(one, "found_inf", None)) is not None]
        if all(found.device.type == "cpu" for found in told):
            return any(map(bool, told))
        self.skips.append(torch.stack([found.float().reshape(()) for found in told]).amax())
        return False

    # -- the first updates ------------------------------------------------------------------------------------------

    def _attend(self, loss: Tensor) -> None:
        """Look at the graph behind the loss of one of the first updates; note what its backward begins with."""
        if self.told == 1 and not self._due():  # at other steps only whether more than one pass is made is asked
            self.notes.begun += 1
            return
        early, opening = self.history.updates < EARLY, self.opening
        first = self.passes == 0 and opening is not None and len(opening.forwards) == self.history.updates
        if opening is not None and first and not opening.over:
            present = self.source.present if self.source is not None else None
            self._ask(opening.see(loss, present))
            self.history.guess, self.history.fits = opening.guess, opening.fits
        if self.told == 1 and self._looks_inside():
            with self.voice.safely("attention and routers"):
                self.inside.see(loss)
        self.notes.attend(loss, early, self.source.index if self.source is not None else None)

    def _ask(self, checks: Iterable[Any]) -> None:
        found: list[Finding] = []
        for one, known in checks:
            with self.voice.safely("the beginning"):
                found += [replace(told, step=told.step or 0) for told in one(known) if isinstance(told, Finding)]
        self.voice.tell(found)

    def _conclude(self) -> None:
        """What takes several losses, once."""
        opening, self.opening = self.opening, None
        if opening is not None and self.history.updates:
            self._ask(opening.later(self.history.updates))
            self.history.ahead = opening.ahead

    # -- a look -----------------------------------------------------------------------------------------------------

    def _due(self) -> bool:
        step = self.history.updates
        due = step < EARLY or step % self._apart == 0 or step < self.closely or step == self.also
        return due and not self.closed

    @property
    def _apart(self) -> int:
        """Updates from one look to the next."""
        return self.every or (OFTEN if self.history.updates < OFTEN_UNTIL else SELDOM)

    def _looks_inside(self) -> bool:
        every = INSIDE if self.opened < INSIDE_FIRST else INSIDE_LATER
        return self.opened % every == 0 or self.history.is_strained

    def _refresh(self) -> None:
        """Look again at who updates what: layers are replaced, unfrozen, added to the optimizer."""
        state = self._state()
        if state[0] != self.state[0]:
            self._begin()
        elif state != self.state:
            self.state, self.about = state, replace(self.about)
            self.history.watched = self._watched()

    def _state(self) -> list[Any]:
        """What changes when layers are replaced, moved, unfrozen, given to an optimizer, or a group's settings are."""
        modules = self.modules
        params = [p for module in modules for p in module._parameters.values() if p is not None]
        within = [id(one) for module in modules for one in module._modules.values()]
        groups = [group for one in self.about.optimizers for group in one.param_groups]
        members = [(len(group["params"]), sum(map(id, group["params"]))) for group in groups]
        settings = [tuple(group.get(name) for name in SETTINGS) for group in groups]
        whole = within, [(id(p), p.device) for p in params]
        return [whole, [p.requires_grad for p in params], members, settings]

    def _sample(self) -> Sample:
        return Sample(
            self.history.updates,
            time.perf_counter() - self.begun,
            [[float(group["lr"]) for group in one.param_groups] for one in self.about.optimizers],
            [p.grad is None for p in self.params],
            self.passes or None,
            [count_of(one) for one in self.about.schedulers],
            self.about.model.training,
        )

    def _parts(self, now: float) -> dict[str, float]:
        whole, optimizer = now - self.last_end, now - self.step_begun
        data = self.source.waited if self.source is not None else 0.0
        parts = {"data": data, "backward": self.backward, "optimizer": optimizer}
        return {**parts, "forward": max(0.0, whole - sum(parts.values()))}

    def _take(self) -> None:
        """Move the numbers of the open sample to the host, and let the detectors look."""
        self._drain()
        sample, pending = self.open, self.pending
        self.open = self.pending = None
        if sample is None or pending is None:
            return
        sample.fill(pending(), _scale(self.about.optimizers))
        sample.memory, sample.noise = allocated(self.params[0].device), self.notes.noise()
        sample.clip = self.notes.clip()
        vars(sample).update(self.inside.take())
        sample.foretell()
        self.history.dtypes |= self.inside.dtypes
        self.history.add(sample)
        sample.noise_scale, sample.promised = self.history.noise_scale, self.history.promised
        sample.falls = self.history.losses.falls
        self.looks += 1
        self._judge()
        if self.history.is_suspect and self.history.updates > max(EARLY, self.closely + APART):
            self.closely = self.history.updates + CLOSELY
        self.voice.send(sample, self.history)

    def _judge(self) -> None:
        found: list[Finding] = []
        for name, detector in _NAMED:
            with self.voice.safely(name):
                found += detector(self.history)
        if self.looks % COMPARED == 0:
            found += replicas.drift(self.about.model, self.history, self.sampler)
        self.voice.tell(found)

    # -- losses -----------------------------------------------------------------------------------------------------

    def _loss(self, step: int, value: float) -> None:
        if not self.history.losses.tell(step, value):
            return
        if self.source is not None and self.source.index >= 0:
            self.history.batches[step] = (self.source.index, batches.hash_of(self.source.present))
            if not all(map(finite, batches.tensors_of(self.source.present))):
                self.history.poisoned.add(step)
        self.voice.tell([*nonfinite(self.history), *spikes(self.history)])

    def _drain(self) -> None:
        """Move to the host what waits on a device: losses, and whether steps were skipped."""
        waiting, self.waiting = self.waiting, []
        if waiting:
            values = torch.stack([loss.reshape(()) for _, loss in waiting]).tolist()
            for (step, _), value in zip(waiting, values, strict=True):
                self._loss(step, value)
        skips, self.skips = self.skips, []
        if skips:
            self._leave_out([skip > 0 for skip in torch.stack(skips).tolist()])
        self.history.made.extend(self.notes.drain())

    def _leave_out(self, skipped: Sequence[bool]) -> None:
        """Steps that were counted and have changed nothing; the last of them is the one that was looked at."""
        self.history.updates -= sum(skipped)
        if skipped[-1]:
            self.open = self.pending = None
        if all(skipped):
            self.history.idle += len(skipped)
            self.voice.tell(unstepped(self.history))


def unwrapped(model: Any) -> Any:
    """A model without what torch.compile and DistributedDataParallel put around it."""
    while isinstance(inner := getattr(model, "_orig_mod", None) or _replica(model), nn.Module):
        model = inner
    return model


def _replica(model: Any) -> Any:
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else None


def _no_loss(*_: Any) -> Any:
    raise AssertionError("a watch computes no loss")


def stepped(optimizer: Any) -> Any:
    """What has hooks on its step: the optimizer, or the one within a wrapper that has none."""
    return optimizer if hasattr(optimizer, "_optimizer_step_post_hooks") else innermost(optimizer)


def _scale(optimizers: Sequence[Any]) -> float:
    """By what gradients are too large, where the optimizer itself divides them."""
    scale = next((s for one in optimizers if (s := getattr(one, "grad_scale", None)) is not None), None)
    return 1.0 if scale is None else float(scale)
