"""What a watch says: findings, each once and without those that another explains; the record, the sinks, warnings."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from thalweg.diagnosis.explained import standing
from thalweg.diagnosis.finding import Finding
from thalweg.diagnosis.inflight.record import History, Sample, as_line
from thalweg.diagnosis.inflight.sinks import JsonLines, Sink


class WatchWarning(UserWarning):
    """Something that a watch found, or that it cannot do."""


class Voice:
    """Says what a watch has to say, and lets no error of its own end a training.

    Args:
        log: the file of the record; None for none.
        sinks: functions of a step and its numbers.

    Attributes:
        findings: what was told, in order.
        failed: whether the latest of what was tried has failed.
    """

    def __init__(self, log: str | Path | None, sinks: Iterable[Sink]) -> None:
        self.findings: list[Finding] = []
        self.sinks = list(sinks)
        self.record = None if log is None else JsonLines(log)
        self.said: set[str] = set()

    def tell(self, found: Iterable[Finding]) -> None:
        """Tell findings that are new, of a cause that was not told yet."""
        causes = {one.cause for one in self.findings}
        for one in standing((one for one in found if one.cause not in causes), causes):
            if one.cause in causes:
                continue
            causes.add(one.cause)
            self.findings.append(one)
            self.write({"finding": one.as_dict()})
            warnings.warn(str(one), WatchWarning, stacklevel=2)

    def send(self, sample: Sample, history: History) -> None:
        """Write a sample into the record and into each sink."""
        if self.record is not None:
            self.write(as_line(sample, history.losses))
        if self.sinks:
            self._sink(sample.step, self._numbers(sample, history))

    def write(self, line: Mapping[str, Any]) -> None:
        """Write a line of the record; where the disk is full it ends here."""
        record = self.record
        if record is None:
            return
        try:
            record.write(line)
        except OSError as error:
            self.record = None
            with contextlib.suppress(OSError):
                record.close()
            self.say(f"{record.path} cannot be written ({error}); the record ends here, and training goes on")

    def say(self, text: str) -> None:
        """Say something once."""
        if text not in self.said:
            self.said.add(text)
            warnings.warn(f"thalweg.watch: {text}", WatchWarning, stacklevel=2)

    def close(self) -> None:
        """Close the record."""
        if self.record is not None:
            with contextlib.suppress(OSError):
                self.record.close()

    def safely(self, what: str) -> Safely:
        """A watch must not end a training: what goes wrong in it is said once."""
        return Safely(self, what)

    def _sink(self, step: int, numbers: Mapping[str, float | str]) -> None:
        for sink in list(self.sinks):
            try:
                sink(step, numbers)
            except Exception as error:
                self.sinks.remove(sink)
                raised = f"{type(error).__name__}: {error}"
                self.say(f"a sink raised {raised}; it gets no more numbers, and training goes on")

    def _numbers(self, sample: Sample, history: History) -> dict[str, float | str]:
        numbers: dict[str, float | str] = {"norm": sample.norm, "lr": sample.rates[0][0]}
        known = {
            **{"loss": history.losses.get(sample.step), "noise_scale": sample.noise_scale},
            **{"promised": sample.promised, "falls": sample.falls},
            **{f"logit/{layer}": value for layer, value in sample.logits.items()},
            **{f"experts/{name}": load.used for name, load in sample.routers.items()},
            **{f"rank/{name}": update for name, (_, update) in sample.ranks.items()},
        }
        numbers |= {name: value for name, value in known.items() if value is not None and math.isfinite(value)}
        for kind, values in (("update", sample.update), ("gradient", sample.gradient)):
            pairs = zip(history.watched, values, strict=True)
            numbers |= {f"{kind}/{one.name}": value for one, value in pairs if math.isfinite(value)}
        return numbers | {f"finding/{found.cause}": str(found) for found in self.findings if found.step == sample.step}


@dataclass(slots=True)
class Safely:
    """What :meth:`Voice.safely` gives: no generator, since it is entered several times at each step."""

    voice: Voice
    what: str

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if not isinstance(error, Exception) or isinstance(
            error, WatchWarning
        ):  # of a user who wants errors of warnings
            return False
        self.voice.say(f"{self.what} could not be looked at ({type(error).__name__}: {error}); training goes on")
        return True
