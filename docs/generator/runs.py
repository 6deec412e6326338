"""What the pictures show: paths and sensitivities of every optimizer, computed once and kept in ``docs/data``.

``python -m docs.generator.runs`` computes what is missing or was made by another rule; with names, those again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from docs.generator.surfaces import SURFACES, Surface
from docs.generator.walking import needs_a_model, train, walk
from thalweg.explain import explain
from thalweg.registry import optimizers

FILE = Path(__file__).parents[1] / "data" / "runs.json"
#: what each optimizer is tried with: two in a decade, from 1e-4 to 100
RATES = tuple(float(f"{10 ** (k / 2):.3g}") for k in range(-8, 5))
SEEDS = (0, 1)
#: heights are compared on a scale of powers of ten that ends here above the lowest point
CLOSE = 1e-3

Run = dict[str, Any]


def load() -> dict[str, Run]:
    """What was computed, by the name of the optimizer."""
    if not FILE.exists():
        return {}
    found: dict[str, Run] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def current(found: dict[str, Run], names: Iterable[str] = ()) -> dict[str, Run]:
    """The same with what is missing or outdated, and ``names`` in any case, computed; written where that changes it."""
    runs = {name: found[name] for name in optimizers() if name in found}
    torch.set_num_threads(1)
    for name, cls in optimizers().items():
        if name in names or runs.get(name, {}).get("rule") != fingerprint(cls):
            print(f"running {name}", flush=True)
            runs[name] = compute(cls)
            _write(runs)
    if runs.keys() != found.keys():
        _write(runs)
    return runs


def best_rate(run: Run) -> tuple[float, float] | None:
    """The lowest held-out loss on the digits, and the learning rate that led there; None where every run diverged."""
    found = [(loss, lr) for lr, loss in zip(RATES, run["digits"], strict=True) if loss is not None]
    return min(found, default=None)


def compute(cls: type) -> Run:
    """Paths over the surfaces at the best rate for each, and the loss of a small task at every rate."""
    surfaces = () if needs_a_model(cls) else SURFACES
    return {
        "rule": fingerprint(cls),
        **{surface.name: best_path(cls, surface) for surface in surfaces},
        "digits": [_rounded(sum(train(cls, lr, seed).held_out for seed in SEEDS) / len(SEEDS)) for lr in RATES],
    }


def fingerprint(cls: type) -> str:
    """Of all that determines a run: the formula as it is traced, and the defaults."""
    about = explain(cls)  # type: ignore[arg-type]
    rule = about.formula.latex if about.formula else "\n".join(about.text.math)
    text = "\n".join([rule, *(f"{s.name}={s.default!r}" for s in about.settings)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def best_path(cls: type, surface: Surface, **options: Any) -> Run | None:
    """That of the rate which is lowest on average, in powers of ten."""
    tried = []
    for lr in RATES:
        path = walk(cls, surface, lr, **options)
        if path is not None:
            heights = surface.height(*torch.tensor(path, dtype=torch.float64).T) - surface.least
            tried.append((float(torch.log10(heights.clamp_min(0) + CLOSE).mean()), float(heights[-1]), lr, path))
    if not tried:
        return None
    _, height, lr, path = min(tried)
    flat = [round(c, 3) + 0.0 for point in path for c in point]
    return {"lr": lr, "end": _rounded(max(height, 0.0)), "path": flat}


def _rounded(x: float) -> float | None:
    return float(f"{x:.3g}") if math.isfinite(x) else None


def _write(runs: dict[str, Run]) -> None:
    """One optimizer a line."""
    lines = [f"{json.dumps(name)}: {json.dumps(run, separators=(',', ':'))}" for name, run in sorted(runs.items())]
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compute what the pictures show.")
    parser.add_argument("names", nargs="*", help="optimizers to compute again")
    current(load(), parser.parse_args().names)
