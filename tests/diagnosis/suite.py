"""The whole fault suite and 50 healthy runs: ``make faults`` prints the table, and writes what the page shows of it.

Healthy are nine built-in tasks with the five optimizers that docs/results.md has tuned on each, and a small transformer
with five; Fashion-MNIST, the tenth task, is no part of any package.
"""

import json
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
TRANSFORMERS = {
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=3e-3),
    "momentum": lambda m: torch.optim.SGD(m.parameters(), lr=0.3, momentum=0.9),
    "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), lr=1e-3),
    "muon": lambda m: thalweg.Muon(m, lr=0.02),
    "lion": lambda m: thalweg.Lion(m.parameters(), lr=3e-4),
}
#: what must be shown: faults that are found before training, and healthy runs with any finding
FOUND, ACCUSED = 18, 1
#: what is printed of a row, and how wide
COLUMNS = {"name": 60, "check": 22, "layer": 16, "norms": 30, "traincheck": 34}


def faults():
    """A row for each fault."""
    for name, fault in FAULTS.items():
        arguments, named = fault.build().arguments()
        report = check(*arguments, **named)
        right = [f for f in report.findings if f.cause in fault.causes and fault.layer in f.layer]
        norms, rules = verdicts(fault.build())
        yield {
            "name": fault.name, "key": name, "incident": fault.incident, "before": fault.before,
            "check": right[0].cause if right else "", "layer": right[0].layer if right else "",
            "wrong": [f.cause for f in report.findings if f.cause not in fault.causes],
            "norms": norms, "traincheck": rules,
        }  # fmt: skip


def healthy():
    """Name and findings of each healthy run."""
    for task in settings():
        for optimizer in settings()[task] if task != NOT_HERE else ():
            run = tuned(task, optimizer)
            report = check(
                run.model, run.optimizer, loss=run.loss, batches=run.batches, scheduler=run.scheduler, steps=run.steps
            )
            yield f"{task}, {optimizer}", [f"{f.cause}: {f.evidence}" for f in report.findings]
    for name, build in TRANSFORMERS.items():
        model = tasks.seeded(tasks.Transformer)
        arguments, named = Setup(model, build(model), tasks.predict, tasks.text()).arguments()
        yield f"transformer, {name}", [f"{f.cause}: {f.evidence}" for f in check(*arguments, **named).findings]


def main():
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    began = time.process_time()
    rows, runs = list(faults()), dict(healthy())
    for row in rows:
        print(" | ".join(row[key][:width].ljust(width) for key, width in COLUMNS.items()))
    accused = {name: found for name, found in runs.items() if found}
    before = [row for row in rows if row["before"]]
    found = [row for row in before if row["check"]]
    wrong = [row["key"] for row in rows if row["wrong"]]
    print(f"check alone: {len(found)} of {len(before)} faults that show before training, of {len(rows)} in all")
    print(f"beside it norms {sum(bool(r['norms']) for r in rows)}, rules {sum(bool(r['traincheck']) for r in rows)}")
    print(f"healthy: {len(accused)} of {len(runs)} accused {accused or ''}; faults with a wrong cause beside: {wrong}")
    print(f"{time.process_time() - began:.0f} s of processor time")
    content = {"faults": rows, "healthy": len(runs), "accused": len(accused)}
    if "--write" in sys.argv:
        PAGE.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.exit(len(found) < FOUND or len(accused) > ACCUSED or bool(wrong))


if __name__ == "__main__":
    main()
