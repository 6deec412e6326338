"""What can be seen of a model's forward pass, by whatever way leads to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from thalweg.groups import example
from thalweg.groups.flow import Does, Flow, Known, Layout
from thalweg.groups.running import SMALL, by_running, on_shapes, with_values
from thalweg.groups.tracing import by_tracing

#: a pass in training mode, or not; None or an error where it cannot be seen that way
Way = Callable[[bool], Flow | None]


@dataclass(frozen=True)
class Evidence:
    """A forward pass in evaluation mode, and one in training mode where the first does not meet all matrices."""

    flow: Flow
    training: Flow | None = None

    @property
    def source(self) -> str:
        """How it was seen, as a phrase."""
        return self.flow.source

    @property
    def flows(self) -> list[Flow]:
        """All passes."""
        return [self.flow, *([self.training] if self.training else [])]

    @property
    def met(self) -> set[str]:
        """The parameters that some pass meets."""
        return {name for flow in self.flows for name in flow.met}

    def uses(self, name: str) -> set[Does]:
        """How a parameter meets activations."""
        return {does for flow in self.flows for does in flow.uses.get(name, ())}

    def layout(self, name: str) -> Layout | None:
        """How the dimensions of a parameter meet activations; None where that is not seen, or is not one way."""
        found = {layout for flow in self.flows for layout in flow.layouts.get(name, ())}
        return found.pop() if len(found) == 1 else None

    def makers(self, names: AbstractSet[str]) -> tuple[set[str], set[str]]:
        """As :meth:`Flow.makers`; what makes an output in one mode, from which the other goes on, is none."""
        made, beside = self.flow.makers(names)
        if self.training is None:
            return made, beside
        more, further = self.training.makers(names)
        made, more = made - (self.training.upstream(more) - more), more - (self.flow.upstream(made) - made)
        return made | more, (beside | further) - made - more


def look(model: nn.Module, sample: Any, known: Known) -> Evidence | None:
    """See a forward pass: on the sample; without one, on what the model says that it takes, or on symbols, or on what
    its first layers take. None where all of these fail.

    Raises:
        ValueError: for a sample that the model does not run on.
    """
    if sample is not None:
        return _with_training(lambda training: by_running(model, sample, known, training=training), known, strict=True)
    for way in _ways(model, known):
        if found := _with_training(way, known):
            return found
    return None


def _ways(model: nn.Module, known: Known) -> Iterator[Way]:
    hub = list(example.of_hub(model))
    yield from _runs(model, hub, known, "a run on the model's own example")
    yield lambda training: by_tracing(model, known, training=training)
    if not hub:
        yield from _runs(model, list(example.inferred(model)), known, "a run on a made-up input")


def _runs(model: nn.Module, samples: list[Any], known: Known, source: str) -> Iterator[Way]:
    """A run on each sample with values or on shapes: first what takes less, of both what takes little."""
    shapes = [partial(_on_shapes, model, example.suited(x, model), known, source) for x in samples]
    values = [partial(_with_values, model, example.suited(x, model), known, source) for x in samples]
    size = sum(p.numel() for p in model.parameters())
    yield from (*values, *shapes) if size <= SMALL else (*shapes, *(values if size <= 10 * SMALL else ()))


def _on_shapes(model: nn.Module, sample: Any, known: Known, source: str, training: bool) -> Flow | None:
    return on_shapes(model, sample, known, source, training=training, guesses=True)


def _with_values(model: nn.Module, sample: Any, known: Known, source: str, training: bool) -> Flow | None:
    return with_values(model, sample, known, source, training=training)


def _with_training(way: Way, known: Known, *, strict: bool = False) -> Evidence | None:
    flow = way(False) if strict else _attempt(way, False)
    if flow is None:
        return None
    return Evidence(flow, None if known.matrices <= flow.met else _attempt(way, True))


def _attempt(way: Way, training: bool) -> Flow | None:
    try:
        return way(training)
    except Exception:  # whatever a user's forward may raise
        return None
