"""The pictures of the story, which are runs of the library: ``make docs-pictures`` draws them in ``docs/images``.

``python -m docs.generator.story NAME…`` draws some of them. Those with words in another language are drawn beside that
language's pages, in ``docs/zh/images``, from the same runs.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

import thalweg
from docs.generator import charts
from docs.generator.by_hand import five_iterations
from docs.generator.runs import RATES
from docs.generator.site import editions
from docs.generator.surfaces import CAMEL, STRAIGHT, TILTED, Surface
from docs.generator.walking import TRAIN_STEPS, Trained, train, walk
from thalweg.explain import ENGLISH, Language
from thalweg.linalg.newton_schulz import newton_schulz
from thalweg.schedule import constant, linear, wsd

#: the optimizers of the story: a class, and what else than its defaults
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
#: runs that pictures in several languages share
_walk, _train = functools.cache(walk), functools.cache(train)


def pictures(say: Language = ENGLISH) -> dict[str, Callable[[], str]]:
    """Each by the name of its file."""
    return {
        "valley": lambda: walks(TILTED, "SGD", "momentum", say=say),
        "valley-straight": lambda: walks(STRAIGHT, "momentum", "RMSprop", "Adam", say=say),
        "valley-tilted": lambda: walks(TILTED, "SGD", "momentum", "RMSprop", "Adam", say=say),
        "basins": lambda: basins(0.02, 0.1, 0.18, say=say),
        "spectrum": lambda: spectrum(say),
        "newton-schulz": lambda: iterations(say),
        "rates": lambda: rates("SGD", "momentum", "RMSprop", "AdamW", "Lion", "Muon", say=say),
        "training": lambda: training("SGD", "momentum", "AdamW", "Muon", say=say),
        "schedules": lambda: schedules(say),
    }


def walks(surface: Surface, *names: str, say: Language = ENGLISH) -> str:
    """Paths, each with the rate, of eight a decade, that ends lowest."""
    paths = []
    for name in names:
        cls, options = CAST[name]
        tried = {lr: _walk(cls, surface, lr, WALK_STEPS, **options) for lr in FINE_RATES}
        ends = {
            lr: float(surface.height(*torch.tensor(path[-1]))) - surface.least for lr, path in tried.items() if path
        }
        lr = min(ends, key=ends.__getitem__)
        label = _ending(say, say(name), f"{lr:.2g}", ends[lr])
        paths.append(charts.Path(label, tried[lr] or []))
    return charts.over(surface, paths, width=420, title=say(surface.title))


def basins(*rates: float, say: Language = ENGLISH) -> str:
    """Plain SGD from one start with several rates."""
    paths = []
    for lr in rates:
        path = _walk(thalweg.SGD, CAMEL, lr, WALK_STEPS) or []
        end = float(CAMEL.height(*torch.tensor(path[-1]))) - CAMEL.least
        paths.append(charts.Path(_ending(say, "SGD", f"{lr:g}", end), path))
    return charts.over(CAMEL, paths, width=420, title=say(CAMEL.title))


def _ending(say: Language, name: str, lr: str, height: float) -> str:
    """The label of a path."""
    end = f"{max(height, 0.0):.1g}"
    return say("{name}, lr {lr}: ends {end} above the lowest point", name=name, lr=lr, end=end)


def rates(*names: str, say: Language = ENGLISH) -> str:
    """Held-out loss against the learning rate."""
    series = {}
    for name in names:
        losses = {lr: _mean(name, lr) for lr in RATES}
        series[say(name)] = [(lr, loss) for lr, loss in losses.items() if math.isfinite(loss)]
    return charts.lines(
        series,
        say("8×8 digits: how wide is the valley of learning rates?"),
        say("learning rate"),
        say("held-out loss, nats"),
        log_x=True,
        log_y=True,
        y_range=(0.05, 5.0),
        width=560,
    )


def training(*names: str, say: Language = ENGLISH) -> str:
    """Training loss over the steps, each with the rate that ends lowest on held-out digits."""
    series = {}
    for name in names:
        lr = min(RATES, key=lambda rate, name=name: _key(_mean(name, rate)))  # type: ignore[misc]
        runs = [_trained(name, lr, seed) for seed in SEEDS]
        held_out = f"{sum(r.held_out for r in runs) / len(runs):.3f}"
        label = say("{name}, lr {lr}: held-out loss {loss}", name=say(name), lr=f"{lr:g}", loss=held_out)
        series[label] = _smooth([sum(step) / len(step) for step in zip(*(r.losses for r in runs), strict=True)])
    return charts.lines(
        series,
        say("8×8 digits"),
        say("step"),
        say("training loss, nats"),
        log_y=True,
        y_range=(0.02, 3.0),
        width=560,
        height=280,
    )


def spectrum(say: Language = ENGLISH) -> str:
    """Singular values of a momentum matrix in mid-training, before and after Muon makes it orthogonal; scaled alike."""
    found = _train(thalweg.Muon, 0.03, seed=0, steps=TRAIN_STEPS // 2)
    buffer: Tensor = found.optimizer.state[found.optimizer.param_groups[0]["params"][0]]["momentum_buffer"]
    adam = _train(thalweg.Adam, 0.01, seed=0, steps=TRAIN_STEPS // 2)
    state = adam.optimizer.state[adam.optimizer.param_groups[0]["params"][0]]
    quotient = state["exp_avg"] / (state["exp_avg_sq"].sqrt() + 1e-8)
    series: Mapping[str, Tensor] = {
        say("momentum's direction"): buffer,
        say("Adam's direction"): quotient,
        say("Muon's direction"): newton_schulz(buffer),
    }
    lines = {}
    for name, matrix in series.items():
        values = torch.linalg.svdvals(matrix.float())
        lines[name] = [(float(i + 1), float(v / values[0])) for i, v in enumerate(values) if v / values[0] > 1e-4]
    return charts.lines(
        lines,
        say("How a step spreads over the directions of a 32 × 64 matrix"),
        say("direction, strongest first"),
        say("strength, of the strongest"),
        log_y=True,
        y_range=(1e-3, 1.0),
        width=560,
    )


def iterations(say: Language = ENGLISH) -> str:
    """What becomes of a singular value in each of the five iterations of Newton-Schulz."""
    values = [10 ** (-3.5 + 3.5 * k / 160) for k in range(161)]
    series = {
        say("after {count} iterations", count=count): [(x, five_iterations(x, count)) for x in values]
        for count in (1, 2, 3, 4, 5)
    }
    return charts.lines(
        series,
        say("Newton–Schulz: every singular value is driven towards 1"),
        say("singular value before, as a share of the norm"),
        say("singular value after"),
        log_x=True,
        y_range=(0.0, 1.4),
        width=560,
    )


def schedules(say: Language = ENGLISH) -> str:
    """Held-out loss against the peak, of AdamW with three schedules."""
    named = {
        say("constant"): constant(),
        say("linear"): linear(TRAIN_STEPS),
        say("warmup, stable, decay"): wsd(TRAIN_STEPS, warmup=5),
    }
    series = {}
    for name, schedule in named.items():
        line = []
        for lr in RATES:
            runs = [_train(thalweg.AdamW, lr, seed, schedule=schedule).held_out for seed in SEEDS]
            if all(map(math.isfinite, runs)):
                line.append((lr, sum(runs) / len(runs)))
        series[name] = line
    return charts.lines(
        series,
        say("AdamW on 8×8 digits, by schedule"),
        say("peak of the learning rate"),
        say("held-out loss, nats"),
        log_x=True,
        log_y=True,
        y_range=(0.05, 5.0),
        width=560,
    )


def _trained(name: str, lr: float, seed: int) -> Trained:
    cls, options = CAST[name]
    return _train(cls, lr, seed, **options)


def _mean(name: str, lr: float) -> float:
    """Held-out loss over the seeds."""
    return sum(_trained(name, lr, seed).held_out for seed in SEEDS) / len(SEEDS)


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
    for edition in editions():
        folder, drawn = edition.folder / "images" / "story", pictures(edition.say)
        folder.mkdir(parents=True, exist_ok=True)
        for file in sys.argv[1:] or drawn:
            (folder / f"{file}.svg").write_text(drawn[file](), encoding="utf-8")
            print(f"wrote {folder / file}.svg", flush=True)
