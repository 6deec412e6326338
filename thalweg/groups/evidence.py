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

#: how many examples are tried with values, which takes a large model's time
LIKELIEST = 4
#: a pass in training mode, or not; None or an error where it cannot be seen that way
Way = Callable[[bool], Flow | None]


@dataclass(frozen=True)
class ForwardEvidence:
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

    @property
    def appeared(self) -> set[str]:
        """The parameters that the model had not before a pass."""
        return {name for flow in self.flows for name in flow.appeared}

    @property
    def hides(self) -> bool:
        """Whether a pass goes through code that cannot be seen into, where parameters may be met unseen."""
        return any(step.does == "opaque" for flow in self.flows for step in flow.steps.values())

    def uses(self, name: str) -> set[Does]:
        """How a parameter meets activations."""
        return {does for flow in self.flows for does in flow.uses.get(name, ())}

    def layout(self, name: str) -> Layout | None:
        """How the dimensions of a parameter meet activations; None where that is not seen, or is not one way."""
        found = {layout for flow in self.flows for layout in flow.layouts.get(name, ())}
        return found.pop() if len(found) == 1 else None

    def first_layout(self, name: str) -> Layout | None:
        """How the dimensions of a parameter meet activations where it is used first."""
        return next((layout for flow in self.flows for layout in flow.layouts.get(name, ())), None)

    def makers(self, names: AbstractSet[str]) -> tuple[set[str], set[str]]:
        """As :meth:`Flow.makers`; what makes an output in one mode, from which the other goes on, is none."""
        made, beside = self.flow.makers(names)
        if self.training is None:
            return made, beside
        more, further = self.training.makers(names)
        made, more = made - (self.training.upstream(more) - more), more - (self.flow.upstream(made) - made)
        return made | more, (beside | further) - made - more


def look(model: nn.Module, sample: Any, known: Known) -> ForwardEvidence | None:
    """See a forward pass: on the sample; without one, on what the model says that it takes, or on symbols, or on what
    its first layers take. None where all of these fail.

    Raises:
        ValueError: for a sample that the model does not run on.
    """
    if sample is not None:
        return _with_training(lambda training: by_running(model, sample, known, training=training), known, strict=True)
    best: ForwardEvidence | None = None
    for way, sound in _ways(model, known):
        if found := _with_training(way, known):
            best = found if best is None or len(known.matrices & best.met) < len(known.matrices & found.met) else best
            if sound or known.matrices <= best.met:  # guessed values may have led past some layers
                break
    return best


def _ways(model: nn.Module, known: Known) -> Iterator[tuple[Way, bool]]:
    """Ways to see a forward pass, and whether each goes by nothing that was guessed."""
    hub = list(example.of_hub(model))
    yield from _runs(model, hub, known, "a run on the model's own example", 10 * SMALL)
    yield (lambda training: by_tracing(model, known, training=training)), True
    if not hub:
        yield from _runs(model, list(example.inferred(model)), known, "a run on a made-up input", SMALL)


def _runs(model: nn.Module, samples: list[Any], known: Known, source: str, most: int) -> Iterator[tuple[Way, bool]]:
    """A run on each sample on shapes; and with values on the likeliest of them, where a model is no larger than
    ``most``, of which the first comes first where the model is small."""
    suited = [example.suited(x, model) for x in samples]
    size = sum(p.numel() for p in model.parameters())
    shapes = [(partial(_on_shapes, model, x, known, source), False) for x in suited]
    values = [(partial(_with_values, model, x, known, source), True) for x in suited[:LIKELIEST] if size <= most]
    first = 1 if size <= SMALL else 0
    yield from (*values[:first], *shapes, *values[first:])


def _on_shapes(model: nn.Module, sample: Any, known: Known, source: str, training: bool) -> Flow | None:
    return on_shapes(model, sample, known, source, training=training, guesses=True)


def _with_values(model: nn.Module, sample: Any, known: Known, source: str, training: bool) -> Flow | None:
    return with_values(model, sample, known, source, training=training)


def _with_training(way: Way, known: Known, *, strict: bool = False) -> ForwardEvidence | None:
    flow = way(False) if strict else _attempt(way, False)
    if flow is None:
        return None
    return ForwardEvidence(flow, None if known.matrices <= flow.met else _attempt(way, True))


def _attempt(way: Way, training: bool) -> Flow | None:
    try:
        return way(training)
    except Exception:  # whatever a user's forward may raise
        return None
