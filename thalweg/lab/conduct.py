"""What an optimizer does beside its updates: counted, and found out by comparing what it had no reason to change.

An optimizer is handed parameters and their gradients. Whoever trains more within a step, calls backward, runs a model,
reads batches, draws from generators that the data and dropout rest on, changes anything but its parameters, or keeps
something from run to run, may be of use; but what a race says of it is not what it says of the others, so it is named.
Rules of the library need no watching. Python can hide anything from Python: what is found is true, and what is not
found is not proven absent.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.lab import calls
from thalweg.lab.result import Conduct
from thalweg.lab.tasks import Task, imports
from thalweg.lab.tasks.fingerprint import digest
from thalweg.train import rng

#: numbers up to which all weights are compared at every step; above, at every 20th step
OFTEN, SELDOM = 5_000_000, 20
#: what is looked into among the attributes of a class and the names of a module
_PLAIN = (bool, int, float, str, bytes, tuple, list, dict, set, Tensor)


class Unwatched:
    """A run of a rule of the library."""

    def building(self) -> contextlib.AbstractContextManager[Any]:
        """The optimizer is made."""
        return contextlib.nullcontext()

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Stand around the steps of an optimizer."""

    def stream(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches of the run."""
        return batches

    def asked(self) -> contextlib.AbstractContextManager[Any]:
        """Within a step: the optimizer asks for the loss, and is charged for it."""
        return contextlib.nullcontext()

    def rested(self) -> None:
        """The weights were looked at by others, such as an evaluation of their means: compare from here on."""

    def report(self, steps: int, passes: int) -> Conduct:
        """What was counted and found; at the end of the run, with the steps and passes that the race saw."""
        return Conduct(steps=steps, changes=steps, passes=passes, own_forward=0, own_backward=0, found=[])


class Watched(Unwatched):
    """Watches one run of one optimizer.

    Args:
        task: of the run.
        rule: the optimizer's class.
        model: freshly made.
        held: hashes of the examples that the evaluation feeds to the model.
    """

    def __init__(self, task: Task, rule: type, model: nn.Module, held: set[bytes]) -> None:
        self.task, self.rule, self.model, self.held = task, rule, model, held
        self.found: set[str] = set()
        self.calls = calls.Calls()
        self.steps = self.changes = 0
        self.within = self.closure = False
        self.weights: list[Tensor] | None = None
        self.params: list[Tensor] = []
        self.every = 1
        self.kept = self._kept()
        self.shape, self.own = _shape(model), _own_of(task)
        self.generators: list[torch.Generator] = []
        self.states: list[Tensor] = []
        self.drawn: tuple[Any, ...] = ()

    # -- what the race does, seen from here ----------------------------------------------------------------------

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """The optimizer is made."""
        before = _copies(list(self.model.parameters()))
        with self._watching("its constructor"):
            yield
        if not _equal(before, list(self.model.parameters())):
            self.found.add("changes the weights in its constructor")

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Stand around the steps of an optimizer."""
        self.params = [p for group in optimizer.param_groups for p in group["params"]]
        self.every = 1 if sum(p.numel() for p in self.params) <= OFTEN else SELDOM
        step = optimizer.step

        @functools.wraps(getattr(step, "__func__", step))
        def watched(_: Any, *args: Any, **kwargs: Any) -> Any:
            with self._step():
                return step(*args, **kwargs)

        optimizer.step = types.MethodType(watched, optimizer)  # type: ignore[method-assign]
        for name in ("train", "eval"):
            if callable(switch := getattr(optimizer, name, None)):
                setattr(optimizer, name, self._switched(switch))

    def stream(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches of the run."""
        drawn = 0
        while True:
            if self.within:
                self.found.add("reads batches in its steps")
            try:
                batch = next(batches)
            except StopIteration:
                return
            drawn += 1
            if drawn <= 2:  # a generator function makes its generator when it is first asked
                self.generators = _generators(batches)
            yield batch

    @contextlib.contextmanager
    def asked(self) -> Iterator[None]:
        """Within a step: the optimizer asks for the loss, and is charged for it."""
        if not self.within:
            yield
            return
        self._compare_generators()
        self.within, self.closure = False, True
        with self.calls.paused():
            yield
        self.within = True
        self._note_generators()

    def rested(self) -> None:
        """The weights were looked at by others, such as an evaluation of their means: compare from here on."""
        self.weights = None

    def report(self, steps: int, passes: int) -> Conduct:
        """What was counted and found; at the end of the run, with the steps and passes that the race saw."""
        changed = sorted(name for name, mark in self._kept().items() if self.kept.get(name) != mark)
        if changed:
            self.found.add(f"keeps something on its class or in its module ({', '.join(changed[:3])})")
        if _shape(self.model) != self.shape:
            self.found.add("changes the model's modules or hooks")
        if _own_of(self.task) != self.own:
            self.found.add("changes the task")
        return Conduct(
            steps=steps,
            changes=self.changes,
            passes=passes,
            own_forward=self.calls.forward,
            own_backward=self.calls.backward,
            found=sorted(self.found),
        )

    # -- within a step --------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _step(self) -> Iterator[None]:
        look = self.steps % self.every == 0
        self.steps += 1
        if self.weights is not None and look and not _equal(self.weights, self.params):
            self.found.add("changes the weights outside of its steps")
        before = (self.weights or _copies(self.params)) if look else []
        others = [x for x in (*self.model.parameters(), *self.model.buffers()) if all(x is not p for p in self.params)]
        kept, self.closure = _copies(others), False
        self._note_generators()
        with self._watching("its steps"):
            yield
        self._compare_generators()
        if not self.closure and not _equal(kept, others):
            self.found.add("changes buffers or frozen weights of the model")
        self.changes += not look or not _equal(before, self.params)
        self.weights = _copies(self.params) if look and self.every == 1 else None

    @contextlib.contextmanager
    def _watching(self, where: str) -> Iterator[None]:
        forward, backward = self.calls.forward, self.calls.backward
        self.within = True
        try:
            with self.calls.counted():
                yield
        finally:
            self.within = False
            if self.calls.backward > backward:
                self.found.add(f"calls backward itself, in {where}")
            if self.calls.forward > forward:
                self.found.add(f"runs a model itself, in {where}")
            if self.held & self.calls.fed:
                self.found.add("feeds held-out examples to a model")
            self.calls.fed.clear()

    def _switched(self, switch: Callable[..., Any]) -> Callable[..., Any]:
        def switched(*args: Any, **kwargs: Any) -> Any:
            with self._watching("train() or eval()"):
                return switch(*args, **kwargs)

        return switched

    def _kept(self) -> dict[str, str]:
        """Marks of what the user's classes and modules behind the rule hold."""
        found: dict[str, str] = {}
        for cls in self.rule.__mro__:
            module = sys.modules.get(cls.__module__)
            file = getattr(module, "__file__", None)
            if cls is object or cls.__module__.partition(".")[0] in ("torch", "thalweg"):
                continue
            found |= _marks(vars(cls), f"{cls.__name__}.")
            if (
                module is not None
                and file
                and imports.own(module.__name__, file)
                and cls.__module__ != self.task.module
            ):
                found |= _marks(vars(module), "")
        return found

    def _note_generators(self) -> None:
        self.drawn = rng.marks()
        self.states = [g.get_state() for g in self.generators]

    def _compare_generators(self) -> None:
        if rng.marks() != self.drawn:
            self.found.add("draws from a global random generator in its steps")
        if not _equal(self.states, [g.get_state() for g in self.generators]):
            self.found.add("draws from the generator of the batches")


def _copies(tensors: list[Any]) -> list[Tensor]:
    return [x.detach().clone() for x in tensors]


def _equal(a: list[Tensor], b: list[Any]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) or _same_bits(x, y) for x, y in zip(a, b, strict=True))


def _same_bits(x: Tensor, y: Tensor) -> bool:
    """Weights that are not numbers any more are equal too."""
    return x.shape == y.shape and torch.equal(torch.nan_to_num(x), torch.nan_to_num(y.detach()))


def _marks(values: Mapping[str, Any], prefix: str) -> dict[str, str]:
    """Of the plain values among a namespace's, and of what its functions hold."""
    found = {}
    for name, value in values.items():
        held = inspect.unwrap(value) if isinstance(value, types.FunctionType) else value
        if isinstance(held, types.FunctionType):
            inside = {key: one for key, one in vars(held).items() if key != "hooked"}  # torch marks what it wraps
            found[f"{prefix}{name}"] = digest(_flat([inside, held.__defaults__ or (), held.__kwdefaults__ or {}]))
        elif isinstance(held, _PLAIN) and not name.startswith("__"):
            found[f"{prefix}{name}"] = digest(_flat(held))
    return found


def _flat(value: Any, depth: int = 3) -> Any:
    """Containers of plain values and tensors; anything else by its identity."""
    if isinstance(value, Mapping) and depth:
        return [[_flat(k, depth - 1), _flat(v, depth - 1)] for k, v in value.items()]
    if isinstance(value, list | tuple) and depth:
        return [_flat(one, depth - 1) for one in value]
    if isinstance(value, set) and depth:
        return sorted(repr(one) for one in value)
    return value if isinstance(value, bool | int | float | str | bytes | Tensor | None) else id(value)


def _shape(model: nn.Module) -> list[Any]:
    """The modules, their hooks, and what was put in the place of their methods."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        (name, id(module), [len(getattr(module, kind)) for kind in hooks], "forward" in vars(module))
        for name, module in model.named_modules()
    ]


def _own_of(task: Task) -> list[Any]:
    """The methods of a task."""
    names = ("model", "batches", "loss", "evaluate", "metrics")
    return [(id(getattr(type(task), name, None)), name in vars(task)) for name in names]


def _generators(value: Any, depth: int = 6) -> list[torch.Generator]:
    """Torch's generators that an iterator draws from, as far as they can be seen from it."""
    if isinstance(value, torch.Generator):
        return [value]
    if not depth:
        return []
    if isinstance(value, types.GeneratorType):
        inside = [*(value.gi_frame.f_locals.values() if value.gi_frame else ()), value.gi_yieldfrom]
    elif hasattr(value, "sampler") or isinstance(value, Task):
        inside = list(vars(value).values())
    elif type(value).__module__.startswith("torch.utils.data"):
        inside = list(getattr(value, "__dict__", {}).values())
    else:
        return []
    found = [g for one in inside for g in _generators(one, depth - 1)]
    return list({id(g): g for g in found}.values())
