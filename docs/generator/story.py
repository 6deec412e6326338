"""The pictures of the story, which are runs of the library: ``make docs-pictures`` draws them in ``docs/images``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import thalweg
from docs.generator import charts
from docs.generator.runs import RATES
from docs.generator.surfaces import CAMEL, STRAIGHT, TILTED, Surface
from docs.generator.walking import TRAIN_STEPS, Trained, train, walk
from thalweg.linalg.newton_schulz import newton_schulz
from thalweg.schedule import constant, linear, wsd

FOLDER = Path(__file__).parents[1] / "images" / "story"
#: everyone in the story: a class, and what else than its defaults
CAST: dict[str, tuple[Any, dict[str, Any]]] = {
    "SGD": (thalweg.SGD, {}),
    "momentum": (thalweg.SGD, {"momentum": 0.9}),
    "RMSprop": (thalweg.RMSprop, {}),
    "Adam": (thalweg.Adam, {}),
    "AdamW": (thalweg.AdamW, {}),
    "Lion": (thalweg.Lion, {}),
    "Muon": (thalweg.Muon, {}),
}
SEEDS = (0, 1)
FINE_RATES = tuple(10 ** (k / 8) for k in range(-24, 9))
WALK_STEPS = 60


def pictures() -> dict[str, Callable[[], str]]:
    """Each by the name of its file."""
    return {
        "valley": lambda: walks(TILTED, "SGD", "momentum"),
        "valley-straight": lambda: walks(STRAIGHT, "momentum", "RMSprop", "Adam"),
        "valley-tilted": lambda: walks(TILTED, "momentum", "RMSprop", "Adam"),
        "basins": lambda: basins(0.02, 0.1, 0.18),
        "spectrum": spectrum,
        "rates": lambda: rates("SGD", "momentum", "RMSprop", "AdamW", "Lion", "Muon"),
        "training": lambda: training("SGD", "momentum", "AdamW", "Muon"),
        "schedules": schedules,
    }


def walks(surface: Surface, *names: str) -> str:
    """Paths, each with the rate, of eight a decade, that ends lowest."""
    paths = []
    for name in names:
        cls, options = CAST[name]
        tried = {lr: walk(cls, surface, lr, WALK_STEPS, **options) for lr in FINE_RATES}
        ends = {
            lr: float(surface.height(*torch.tensor(path[-1]))) - surface.least for lr, path in tried.items() if path
        }
        lr = min(ends, key=ends.__getitem__)
        label = f"{name}, lr {lr:.2g}: ends {max(ends[lr], 0.0):.1g} above the lowest point"
        paths.append(charts.Path(label, tried[lr] or []))
    return charts.over(surface, paths, width=420)


def basins(*rates: float) -> str:
    """Plain SGD from one start with several rates."""
    paths = []
    for lr in rates:
        path = walk(thalweg.SGD, CAMEL, lr, WALK_STEPS) or []
        end = float(CAMEL.height(*torch.tensor(path[-1]))) - CAMEL.least
        paths.append(charts.Path(f"SGD, lr {lr:g}: ends {max(end, 0.0):.1g} above the lowest point", path))
    return charts.over(CAMEL, paths, width=420)


def rates(*names: str) -> str:
    """Held-out loss against the learning rate."""
    series = {}
    for name in names:
        losses = {lr: _mean(name, lr) for lr in RATES}
        series[name] = [(lr, loss) for lr, loss in losses.items() if math.isfinite(loss)]
    return charts.lines(
        series,
        "8×8 digits: how wide is the valley of learning rates?",
        "learning rate",
        "held-out loss, nats",
        log_x=True,
        log_y=True,
        y_range=(0.05, 5.0),
        width=560,
    )


def training(*names: str) -> str:
    """Training loss over the steps, each with the rate that ends lowest on held-out digits."""
    series = {}
    for name in names:
        lr = min(RATES, key=lambda rate, name=name: _key(_mean(name, rate)))  # type: ignore[misc]
        runs = [_trained(name, lr, seed) for seed in SEEDS]
        label = f"{name}, lr {lr:g}: held out {sum(r.held_out for r in runs) / len(runs):.3f}"
        series[label] = _smooth([sum(step) / len(step) for step in zip(*(r.losses for r in runs), strict=True)])
    return charts.lines(
        series, "8×8 digits", "step", "training loss, nats", log_y=True, y_range=(0.02, 3.0), width=560, height=280
    )


def spectrum() -> str:
    """Singular values of a momentum matrix in mid-training, before and after Muon makes it orthogonal; scaled alike."""
    found = train(thalweg.Muon, 0.03, seed=0, steps=TRAIN_STEPS // 2)
    buffer: Tensor = found.optimizer.state[found.optimizer.param_groups[0]["params"][0]]["momentum_buffer"]
    adam = train(thalweg.Adam, 0.01, seed=0, steps=TRAIN_STEPS // 2)
    state = adam.optimizer.state[adam.optimizer.param_groups[0]["params"][0]]
    quotient = state["exp_avg"] / (state["exp_avg_sq"].sqrt() + 1e-8)
    series: Mapping[str, Tensor] = {
        "momentum's direction": buffer,
        "Adam's direction": quotient,
        "Muon's direction": newton_schulz(buffer),
    }
    lines = {}
    for name, matrix in series.items():
        values = torch.linalg.svdvals(matrix.float())
        lines[name] = [(float(i + 1), float(v / values[0])) for i, v in enumerate(values) if v / values[0] > 1e-4]
    return charts.lines(
        lines,
        "How a step spreads over the directions of a 32 × 64 matrix",
        "direction, strongest first",
        "strength, of the strongest",
        log_y=True,
        y_range=(1e-3, 1.0),
        width=560,
    )


def schedules() -> str:
    """Held-out loss against the peak, of AdamW with three schedules."""
    named = {"constant": constant(), "linear": linear(TRAIN_STEPS), "warmup, stable, decay": wsd(TRAIN_STEPS, warmup=5)}
    series = {}
    for name, schedule in named.items():
        line = []
        for lr in RATES:
            runs = [train(thalweg.AdamW, lr, seed, schedule=schedule).held_out for seed in SEEDS]
            if all(map(math.isfinite, runs)):
                line.append((lr, sum(runs) / len(runs)))
        series[name] = line
    return charts.lines(
        series,
        "AdamW on 8×8 digits, by schedule",
        "peak of the learning rate",
        "held-out loss, nats",
        log_x=True,
        log_y=True,
        y_range=(0.05, 5.0),
        width=560,
    )


def _trained(name: str, lr: float, seed: int) -> Trained:
    cls, options = CAST[name]
    return train(cls, lr, seed, **options)


_MEANS: dict[tuple[str, float], float] = {}


def _mean(name: str, lr: float) -> float:
    """Held-out loss over the seeds."""
    if (name, lr) not in _MEANS:
        _MEANS[name, lr] = sum(_trained(name, lr, seed).held_out for seed in SEEDS) / len(SEEDS)
    return _MEANS[name, lr]


def _key(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf


def _smooth(losses: list[float], share: float = 0.8) -> list[tuple[float, float]]:
    """A running mean, freed of its start at zero."""
    mean, points = 0.0, []
    for i, loss in enumerate(losses):
        mean = share * mean + (1 - share) * loss
        points.append((float(i), mean / (1 - share ** (i + 1))))
    return points


if __name__ == "__main__":
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file, draw in pictures().items():
        (FOLDER / f"{file}.svg").write_text(draw(), encoding="utf-8")
        print(f"wrote {FOLDER / file}.svg", flush=True)
