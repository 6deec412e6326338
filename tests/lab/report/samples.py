"""Races that never were, to draw: seeded, realistic, with every field of a result."""

from __future__ import annotations

import random
import statistics
from typing import Any

from thalweg.lab import diverged as divergence
from thalweg.lab import honesty, wording
from thalweg.lab.evidence import Evidence, Rules
from thalweg.lab.protocol import BUDGETS, statements
from thalweg.lab.result import ContestantResult, RaceResult, Run, Why
from thalweg.lab.summary import SCHEMA, finite
from thalweg.lab.verdict import compare

LEVELS = {"adamw": 2.2, "muon": 2.0, "momentum": 2.35, "sgd": 2.9, "rmsprop": 2.25, "adam": 2.21}
STATE = 8 * 135808
TASK = {
    "name": "bytes-gpt",
    "title": "A GPT",
    "parameters": 135808,
    "steps": 200,
    "batch_size": 16,
    "unit": "nats per byte",
    "good_for": "seeing",
    "data": {"sha256": "0" * 64},
    "fingerprint": "f",
    "initial_loss": 5.6,
}


def race(
    labels: tuple[str, ...] = ("adamw", "momentum", "muon"),
    seeds: int = 5,
    diverged: str = "",
    lost: int = 1,
    timed: bool = True,
    quiet: bool = True,
    name: str = "bytes-gpt",
    rises: float = 0.0,
) -> RaceResult:
    """A finished race of these contestants.

    Args:
        labels: the baseline's first.
        seeds: of the verdict.
        diverged: of whom the first ``lost`` verdict runs, or all runs if ``lost`` is the number of seeds, diverged.
        timed: whether there was a timing pass.
        quiet: whether it had a core to itself.
        name: of the task.
        rises: by how much the losses at the end lie above those on the way (an over-fitted task).
    """
    draw = random.Random(repr((labels, seeds, diverged, name)))
    runs = {label: _runs(label, seeds, lost * (label == diverged), draw, rises) for label in labels}
    divergence.count(run for mine in runs.values() for run in mine)
    evidence = {label: _evidence(label, runs[label], timed, quiet, draw) for label in labels}
    rules = Rules(margin=0.02, comparisons=max(1, len(labels) - 1))
    comparisons = [compare(evidence[labels[0]], evidence[label], TASK, rules) for label in labels[1:]]
    result = RaceResult(
        schema=SCHEMA,
        task={**TASK, "name": name},
        protocol={
            "baseline": labels[0],
            "seeds": {"tune": [0], "verdict": [100 + s for s in range(seeds)]},
            "watched": {"share": 0.012, "left_out": {"momentum": "ValueError: optimizer=…"}},
            "margin": 0.02,
            "margin_by_hand": True,
            "alpha": 0.05,
            "look": 1,
            "trials": 7,
            "horizons": [50, 100],
            "quiet": quiet,
            "quiet_cpu_share": 1.0 if quiet else 0.16,
            "backends": dict.fromkeys(labels, "cpu"),
            "command": "thalweg race bytes-gpt --json 'my file.json'",
            "statements": statements(BUDGETS["quick"], labels[0], len(labels) - 1, seeds, "0.02", "float32"),
        },
        contestants=[_contestant(label, i, evidence[label], timed) for i, label in enumerate(labels)],
        runs=[run for mine in runs.values() for run in mine],
        comparisons=comparisons,
        flags=[],
        environment={"torch": "2.13.0"},
        warnings=[],
        headline="",
        sentences=[],
    )
    result["flags"] = honesty.flags(result)
    wording.tell(result)
    return finite(result)


def _runs(label: str, seeds: int, lost: int, draw: random.Random, rises: float) -> list[Run]:
    level = LEVELS.get(label, 2.3) + rises
    settings = [(10 ** (k / 2 - 2), m, k) for k in range(-2, 3) for m in ((0.3, 1.0, 3.0) if k == 0 else (1.0,))]
    tune = [_run(label, lr, m, 0, "tune", 200, level + 0.2 * k * k / m, k == 2, draw) for lr, m, k in settings]
    rest = [
        _run(label, 1e-2, 1.0, 100 + s, role, steps, level + more, _bad(role, s, lost, seeds), draw)
        for s in range(seeds)
        for role, steps, more in (("verdict", 200, 0.0), ("horizon", 50, 0.5), ("horizon", 100, 0.25))
    ]
    for run in rest:
        if rises and run["status"] == "finished":
            run["curve"] = [(step, loss - rises * (0 < step < run["steps"])) for step, loss in run["curve"]]
            run["train_loss"] = 0.01
    return tune + rest


def _bad(role: str, seed: int, lost: int, seeds: int) -> bool:
    return lost == seeds or (role == "verdict" and seed < lost)


def _run(
    label: str,
    lr: float,
    multiplier: float,
    seed: int,
    role: Any,
    steps: int,
    level: float,
    bad: bool,
    draw: random.Random,
) -> Run:
    final = TASK["initial_loss"] if bad else level + draw.gauss(0, 0.015)
    curve = [(round(steps * i / 10), 5.6 - (5.6 - final) * (i / 10) ** 0.3) for i in range(11)]
    return Run(
        key=f"{draw.getrandbits(64):016x}",
        task="bytes-gpt",
        optimizer=label,
        lr=lr,
        multiplier=multiplier,
        weight_decay=0.0,
        settings={},
        seed=seed,
        role=role,
        steps=steps,
        final_loss=final,
        train_loss=final,
        seconds=3.0,
        optimizer_seconds=0.4,
        state_bytes=STATE,
        status="diverged" if bad else "finished",
        curve=curve[:1] if bad else curve,
        conduct={"steps": 400, "changes": 400, "passes": 400, "own_forward": 0, "own_backward": 0, "found": []},
        parts={},
        metrics={},
        train_curve=[] if bad else [(step, loss - 0.05) for step, loss in curve[1:]],
    )


def _evidence(label: str, runs: list[Run], timed: bool, quiet: bool, draw: random.Random) -> Evidence:
    def losses(role: str, steps: int) -> dict[int, float]:
        return {run["seed"] - 100: run["final_loss"] for run in runs if (run["role"], run["steps"]) == (role, steps)}

    return Evidence(
        label=label,
        losses=losses("verdict", 200),
        horizons={steps: losses("horizon", steps) for steps in (50, 100)},
        block_seconds=[0.013 + draw.gauss(0, 1e-4) for _ in range(5)] if timed else [],
        quiet=quiet,
        diverged=sum(run["status"] == "diverged" and run["role"] == "verdict" for run in runs),
        diverged_shorter=sum(run["status"] == "diverged" and run["role"] == "horizon" for run in runs),
        state_bytes=STATE,
    )


def _contestant(label: str, i: int, evidence: Evidence, timed: bool) -> ContestantResult:
    losses = list(evidence.losses.values())
    return ContestantResult(
        label=label,
        optimizer="AdamW",
        settings={},
        own_step=False,
        tuned=True,
        decay="decoupled",
        lr_centre=3e-3,
        chosen={"lr": 1e-2, "multiplier": 1.0, "weight_decay": 0.0},
        trials=7,
        trial_steps=1400,
        trial_seconds=10.0,
        finalists=[
            {"lr": 1e-2, "multiplier": 1.0, "weight_decay": 0.0, "settings": {}, "mean_loss": 2.0, "seeds": 4},
            {"lr": 3e-2, "multiplier": 3.0, "weight_decay": 0.1, "settings": {}, "mean_loss": 2.1, "seeds": 1},
        ][: 1 + i],
        at_limit=False,
        edges=[],
        tuning_sd=[0.0, 0.01],
        tuning_curve=[3.0 - 0.1 * k for k in range(7)],
        lr_sensitivity=0.046 if i else None,
        mean_loss=statistics.fmean(losses),
        sd_loss=statistics.stdev(losses) if len(losses) > 1 else float("nan"),
        mean_train_loss=statistics.fmean(losses),
        metrics={"accuracy": 0.9 + 0.01 * i},
        diverged=evidence.diverged,
        state_bytes=STATE,
        bytes_per_parameter=8.0 - i,
        step_ms={"forward": 4.0, "backward": 8.0, "optimizer": 1.0 + i, "total": 13.0 + i} if timed else None,
        why=_why(i),
        script=f"# {label}",
    )


def _why(i: int) -> Why | None:
    if i == 2:
        return None
    return Why(
        steps=50,
        update=0.9 if i else 0.04,
        tuned=[0.003, 0.04, 0.29],
        tuned_of="AdamW",
        clipped=0.25 if i else None,
        spikes=2 * i,
        dead=["blocks.0.up"] if i else [],
        findings=[{"cause": "lr_too_high", "layer": "", "evidence": "Steps are large."}] if i else [],
        said="In the first tenth of the run a step changes hidden matrices by 0.9 of their norm.",
    )
