"""The whole fault suite and 50 healthy runs: ``make faults`` prints the table, and writes what the page shows of it.

Healthy are nine built-in tasks with the five optimizers that docs/results.md has tuned on each, and a small transformer
with five; Fashion-MNIST, the tenth task, is no part of any package.
"""

import concurrent.futures
import contextlib
import json
import multiprocessing
import sys
import time
import warnings
from pathlib import Path

import torch

import thalweg
from tests.diagnosis.rivals import verdicts
from thalweg import check
from thalweg.lab.tuned import settings, tuned
from thalweg.testing.faults import FAULTS, Setup, tasks

PAGE = Path(__file__).parents[2] / "docs" / "data" / "faults.json"
NOT_HERE = "fashion-cnn"
OPTIMIZERS = ("sgd", "momentum", "rmsprop", "adamw", "muon")
TRANSFORMERS = {
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=3e-3),
    "momentum": lambda m: torch.optim.SGD(m.parameters(), lr=0.3, momentum=0.9),
    "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), lr=1e-3),
    "muon": lambda m: thalweg.Muon(m, lr=0.02),
    "lion": lambda m: thalweg.Lion(m.parameters(), lr=3e-4),
}
#: what must be shown: faults found before training, while it runs, of these soon; and healthy runs with any finding
FOUND, WATCHED, SOON, ACCUSED = 18, 52, 39, 1
#: updates that are soon, that a fault is watched for after it began, and that a healthy run is watched for
NEAR, AFTER, UPDATES = 10, 40, 100
#: what is printed of a row, and how wide
COLUMNS = {"name": 60, "check": 22, "watch": 24, "layer": 16, "norms": 30, "traincheck": 34}
PROCESSES = 2


def fault_row(name):
    """What check, watch, norms and rules say of a fault."""
    fault = FAULTS[name]
    arguments, named = fault.build().arguments()
    report = check(*arguments, **named)
    w, when = watched(fault.build(), fault.step + AFTER)
    right, seen = ([f for f in found if is_right(f, fault)] for found in (report.findings, w.findings))
    norms, rules = verdicts(fault.build())
    return {
        "name": fault.name, "key": name, "incident": fault.incident, "before": fault.before,
        "check": right[0].cause if right else "", "layer": (right or seen)[0].layer if right or seen else "",
        "watch": seen[0].cause if seen else "", "after": when[seen[0].cause] - fault.step if seen else None,
        "wrong": [f.cause for f in [*report.findings, *w.findings] if f.cause not in fault.causes],
        "norms": norms, "traincheck": rules,
    }  # fmt: skip


def is_right(found, fault):
    """Whether a finding names the fault's cause, in its layer."""
    return found.cause in fault.causes and fault.layer in found.layer


def watched(setup, updates):
    """The closed watch of a run, and the number of updates after which each cause was told."""
    when = {}
    with (
        contextlib.suppress(IndexError),
        thalweg.watch(setup.model, setup.optimizer, setup.scheduler, steps=setup.steps) as w,
    ):
        setup.loop.watch = w
        for count, _ in enumerate(setup.updates(min(updates, setup.steps)), 1):
            when |= {found.cause: count for found in w.findings if found.cause not in when}
    return w, {found.cause: when.get(found.cause, w.history.updates + 1) for found in w.findings}


def healthy_runs():
    """Task and optimizer of each."""
    tuned_ones = [(task, optimizer) for task in settings() if task != NOT_HERE for optimizer in OPTIMIZERS]
    return tuned_ones + [("transformer", name) for name in TRANSFORMERS]


def set_up(task, optimizer):
    """A healthy run that is about to start."""
    if task == "transformer":
        model = tasks.seeded(tasks.Transformer)
        return Setup(model, TRANSFORMERS[optimizer](model), tasks.predict, tasks.text())
    run = tuned(task, optimizer)
    return Setup(run.model, run.optimizer, run.loss, lambda: run.batches, run.scheduler, run.steps)


def healthy_row(which):
    """Name of a healthy run, what check says of it, and what watch does."""
    arguments, named = set_up(*which).arguments()
    before = check(*arguments, **named).findings
    w, _ = watched(set_up(*which), UPDATES)
    return ", ".join(which), *([f"{f.cause}: {f.evidence}" for f in found] for found in (before, w.findings))


def in_processes(work, over):
    """What ``work`` gives of each, in order, from two processes."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(PROCESSES, context, initializer=quietly) as pool:
        return list(pool.map(work, over))


def quietly():
    """One thread a process; findings are warnings, which are looked at otherwise."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def main():
    began = time.perf_counter()
    runs = in_processes(healthy_row, healthy_runs())
    rows = in_processes(fault_row, FAULTS)
    for row in rows:
        print(" | ".join(row[key][:width].ljust(width) for key, width in COLUMNS.items()))
    accused = [{name: found for name, *both in runs if (found := both[i])} for i in range(2)]
    before = [row for row in rows if row["before"]]
    found = [row for row in before if row["check"]]
    seen = [row for row in rows if row["watch"]]
    soon = [row for row in seen if row["after"] <= NEAR]
    wrong = {row["key"]: row["wrong"] for row in rows if row["wrong"]}
    print(f"check alone: {len(found)} of {len(before)} faults that show before training, of {len(rows)} in all")
    print(f"watch alone: {len(seen)} of {len(rows)}, {len(soon)} of them within {NEAR} updates")
    print(f"beside them norms {sum(bool(r['norms']) for r in rows)}, rules {sum(bool(r['traincheck']) for r in rows)}")
    print(f"healthy: of {len(runs)} check accuses {accused[0] or 'none'}, watch {accused[1] or 'none'}")
    print(f"wrong causes beside: {wrong or 'none'}; {time.perf_counter() - began:.0f} s")
    content = {"faults": rows, "healthy": len(runs), "accused": len(accused[0]), "accused by watch": len(accused[1])}
    if "--write" in sys.argv:
        PAGE.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    enough = len(found) >= FOUND and len(seen) >= WATCHED and len(soon) >= SOON
    sys.exit(not enough or max(map(len, accused)) > ACCUSED or bool(wrong))


if __name__ == "__main__":
    main()
