"""Evidence that no run has brought, and what is told of it: for the tests of the verdict and of its words."""

from __future__ import annotations

from statistics import fmean

from thalweg.lab import wording
from thalweg.lab.evidence import Evidence, Rules
from thalweg.lab.verdict import compare

TASK = {"name": "bytes-gpt", "parameters": 121_344, "steps": 400, "batch_size": 16, "unit": "nats per byte"}
RULES = Rules(margin=0.02)
WOBBLE = (0.01, -0.004, 0.0, 0.006, -0.01, -0.002, 0.003, 0.005)
CLASSES = {"adamw": "AdamW", "muon": "Muon", "sgd": "SGD", "momentum": "SGD", "lion": "Lion", "twin": "AdamW"}


def evidence(label, loss, n=5, wobble=1.0, horizons=None, **more):
    def around(value, shift=0):
        return {i: value + wobble * WOBBLE[(i + shift) % 8] for i in range(n)}

    shorter = {steps: around(value, shift=steps) for steps, value in (horizons or {}).items()}
    return Evidence(label, around(loss), shorter, **more)


ADAMW = evidence("adamw", 2.036, horizons={100: 2.45, 200: 2.265}, block_seconds=[0.016] * 6, state_bytes=970_752)
MUON = evidence(
    "muon",
    1.793,
    wobble=-0.5,
    horizons={100: 2.3, 200: 2.08, 300: 1.9},
    block_seconds=[0.020, 0.0205, 0.021, 0.02, 0.0203, 0.0208],
    state_bytes=485_376,
)


def told(baseline, *challengers, rules=RULES, flags=(), runs=(), task=TASK, **protocol):
    """The part of a result that its sentences are made of, with them."""
    result = {
        "task": task,
        "protocol": {"look": rules.look, "alpha": rules.alpha, **protocol},
        "contestants": [_entry(side) for side in (baseline, *challengers)],
        "comparisons": [compare(baseline, challenger, task, rules) for challenger in challengers],
        "runs": list(runs),
        "flags": list(flags),
    }
    wording.tell(result)
    return result


def _entry(side):
    return {
        "label": side.label,
        "optimizer": CLASSES.get(side.label, side.label),
        "tuned": True,
        "mean_loss": fmean(side.losses.values()),
        "diverged": side.diverged,
        "state_bytes": side.state_bytes or 0,
    }
