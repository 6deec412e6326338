"""Searches whose truth is known: the losses of real ones, measured setting by setting, with their noise between seeds.

``surfaces.json`` holds medians of final losses over seeds and their scatter below and above, as standard deviations, on
a lattice of learning rates (half steps of the grid around the centre) and multipliers. The two differ: at the brink of
divergence some seeds end far above the others and none far below. Noise is normal on either side, with correlations
between settings on one seed that fall from 0.9 between neighbours to 0.25 far apart, as they did in those runs.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from thalweg.lab import stats
from thalweg.lab.contestants import CONTESTANTS
from thalweg.lab.search import FACTOR, search

MEASURED = json.loads(Path(__file__).with_name("surfaces.json").read_text(encoding="utf-8"))
#: what a step beyond the measured lattice costs, in units of the loss; settings that diverged there stay diverged
BEYOND = 0.1


class Surface:
    """The final losses of one contestant on one task, as a function of setting and seed."""

    def __init__(self, name, noise=1.0):
        measured = MEASURED[name]
        self.contestant = CONTESTANTS[measured["contestant"]]
        self.half_steps = np.array(measured["half_steps"])
        self.rungs = [round(2 * math.log10(m)) for m in measured["multipliers"]]
        self.median = np.array(measured["median"], dtype=float)  # NaN where it diverges
        self.below, self.above = (noise * np.array(measured[side], dtype=float) for side in ("below", "above"))

    @property
    def best(self):
        return float(np.nanmin(self.median))

    @property
    def sd_at_best(self):
        return float(self.below.flat[np.nanargmin(self.median)])

    @cached_property
    def _mixing(self):
        place = [(2 * k, r) for k in self.half_steps for r in self.rungs]
        apart = np.array([[abs(a - c) + abs(b - d) for c, d in place] for a, b in place])
        return np.linalg.cholesky(0.25 + 0.65 * np.exp(-apart / 2) + 0.1 * (apart == 0))

    def seeds(self, random, count):
        """What so many seeds do to every setting of the lattice, shape ``(count, learning rates, multipliers)``."""
        noise = (random.standard_normal((count, self.median.size)) @ self._mixing.T).reshape(count, *self.median.shape)
        return np.where(noise < 0, self.below, self.above) * noise

    def loss(self, setting, seed):
        """Between two points of the lattice on the line between them; beyond it the nearest point's and a toll."""
        x = 2 * (math.log(setting.lr / self.contestant.centre, FACTOR) - self.half_steps[0])
        x, wide = _clamped(round(x, 6), len(self.half_steps) - 1)
        y, high = _clamped(round(2 * math.log10(setting.multiplier)) - self.rungs[0], len(self.rungs) - 1)
        field = self.median[:, y] + seed[:, y]
        low = math.floor(x)
        inside = field[low] if x == low else (low + 1 - x) * field[low] + (x - low) * field[low + 1]
        return math.inf if math.isnan(inside) else float(inside) + BEYOND * (wide + high)


def _clamped(x, most):
    inside = min(max(x, 0), most)
    return inside, abs(x - inside)


def tuned(surface, budget, searching, judging):
    """Search and judge as a race does.

    Args:
        surface: the truth.
        budget: of the race.
        searching: noise of each tuning seed, as ``Surface.seeds`` gives it.
        judging: noise of each verdict seed.

    Returns:
        The losses that count, one a verdict seed; the luck of repeated searches; what the search found.
    """
    asking = search(replace(surface.contestant, seed_offset=0), budget)
    trials = next(asking)
    while True:
        try:
            answers = {t: surface.loss(t.setting, searching[budget.tune_seeds.index(t.seed)]) for t in trials}
            trials = asking.send(answers)
        except StopIteration as stop:
            found = stop.value
            break
    finals = {s: {i: surface.loss(s, seed) for i, seed in enumerate(judging)} for s in found.finalists}
    chosen = stats.cross_fit(found.losses, finals)
    losses = np.array([finals[chosen[i]][i] for i in range(len(judging))])
    return losses, stats.tuning_luck(found.losses, finals), found
