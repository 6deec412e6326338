"""A watched run as a notebook shows it: a line for each pillar, and the findings."""

from __future__ import annotations

import html
import math
import statistics

from thalweg.diagnosis.finding import Finding
from thalweg.diagnosis.inflight.record import History, Sample
from thalweg.schedule import sparkline


def as_html(history: History, findings: list[Finding], looked: str) -> str:
    """A table with a curve for each pillar, the findings below it."""
    samples = list(history.recent)
    matrices = [i for i, one in history.trainable() if one.hidden]
    rows = {
        "loss": [x for x in history.losses.values() if math.isfinite(x)],
        "gradient norm": [s.norm for s in samples if s.is_finite],
        "update ratio": [x for s in samples if (x := _middle(s, matrices)) is not None],
        "learning rate": [s.rates[0][0] for s in samples],
        "promised decrease": [s.promised for s in samples if math.isfinite(s.promised)],
        "seen decrease": [s.falls for s in samples if math.isfinite(s.falls)],
        "noise scale": [s.noise_scale for s in samples if s.noise_scale is not None],
        "largest attention logit": [max(s.logits.values()) for s in history.inside if s.logits],
        "experts in effect, fewest": [min(x.used for x in s.routers.values()) for s in history.inside if s.routers],
    }
    table = "".join(
        f"<tr><th>{name}</th><td><code>{_curve(values)}</code></td><td>{values[-1]:.4g}</td></tr>"
        for name, values in rows.items()
        if values
    )
    told = "".join(f"<pre>✗ {html.escape(str(one))}</pre>" for one in findings)
    return f"<table>{table}</table>{told}<p>{html.escape(looked)}</p>"


def _middle(sample: Sample, at: list[int]) -> float | None:
    known = [sample.update[i] for i in at if math.isfinite(sample.update[i])]
    return statistics.median(known) if known else None


def _curve(values: list[float]) -> str:
    size = -(-len(values) // sparkline.WIDTH)
    means = [statistics.fmean(values[i : i + size]) for i in range(0, len(values), size)]
    return sparkline.curve(means, min(means))
