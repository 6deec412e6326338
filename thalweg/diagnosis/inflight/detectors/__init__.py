"""What the samples tell: each detector looks at a history and gives findings; one that it gave is not given again."""

from collections.abc import Callable, Iterable

from thalweg.diagnosis.finding import Finding
from thalweg.diagnosis.inflight.detectors import gradients, inside, loss, passes, schedule, updates, written
from thalweg.diagnosis.inflight.record import History

Detector = Callable[[History], Iterable[Finding]]

#: all, in the order of the pillars
DETECTORS: tuple[Detector, ...] = (
    *(*loss.DETECTORS, *passes.DETECTORS, *gradients.DETECTORS, *inside.DETECTORS, *written.DETECTORS),
    *(*updates.DETECTORS, *schedule.DETECTORS),
)
