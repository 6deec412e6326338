"""A watched run as a notebook shows it: a line for each pillar, and the findings."""

from __future__ import annotations

import html
import math
import statistics

from thalweg.diagnosis.finding import Finding
from thalweg.diagnosis.inflight.record import History, Sample
from thalweg.schedule.sparkline import along


def as_html(history: History, findings: list[Finding], looked: str) -> str:
    """A table with a curve for each pillar, the findings below it."""
    samples = list(history.recent)
    matrices = [i for i, one in history.trainable() if one.hidden]
    rows = {
        "loss": [(step, x) for step, x in history.losses.items() if math.isfinite(x)],
        "gradient norm": [(s.step, s.norm) for s in samples if s.is_finite],
        "update ratio": [(s.step, x) for s in samples if (x := _middle(s, matrices)) is not None],
        "learning rate": [(s.step, s.rates[0][0]) for s in samples],
        "promised decrease": [(s.step, s.promised) for s in samples if math.isfinite(s.promised)],
        "seen decrease": [(s.step, s.falls) for s in samples if math.isfinite(s.falls)],
        "noise scale": [(s.step, s.noise_scale) for s in samples if s.noise_scale is not None],
        "largest attention logit": [(s.step, max(s.logits.values())) for s in history.inside if s.logits],
        "experts in effect, fewest": [
            (s.step, min(x.used for x in s.routers.values())) for s in history.inside if s.routers
        ],
    }
    steps = [step for line in rows.values() for step, _ in line]
    table = "".join(
        f'<tr><th>{name}</th><td><code style="white-space: pre">{along(line, min(steps), max(steps))}</code></td>'
        f"<td>{line[-1][1]:.4g}</td></tr>"
        for name, line in rows.items()
        if line
    )
    told = "".join(f"<pre>✗ {html.escape(str(one))}</pre>" for one in findings)
    return f"<table>{table}</table>{told}<p>{html.escape(looked)}</p>"


def _middle(sample: Sample, at: list[int]) -> float | None:
    known = [sample.update[i] for i in at if math.isfinite(sample.update[i])]
    return statistics.median(known) if known else None
