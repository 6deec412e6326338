"""The table of what tuned runs are like, ``thalweg/diagnosis/tuned.json``: measured, and written.

``python .ci/tuned_bands.py FOLDER [TASK …]`` rehearses and trains each tuned run of the tasks (all that need no
download, if none is named), watched, and keeps its numbers in the folder. With ``--write`` it makes the table of all
that lies there. Every run counts alike: the quantiles are those of as many numbers from each.
"""

import argparse
import json
import statistics
from pathlib import Path

import numpy as np
import torch

from thalweg import __version__
from thalweg.diagnosis.bands import PHASES, QUANTITIES, ROLES
from thalweg.diagnosis.preflight.known import explore
from thalweg.diagnosis.preflight.subject import subject
from thalweg.groups.roles import roles
from thalweg.lab.observed import observing
from thalweg.lab.tasks import training
from thalweg.lab.tuned import settings, tuned

TABLE = Path(__file__).resolve().parents[1] / "thalweg" / "diagnosis" / "tuned.json"
#: without its data, or with weights that begin at zero, to which no ratio says anything
LEFT_OUT = {"fashion-cnn", "ravine", "ravine-aligned"}
NAMES = {
    "sgd": "SGD", "momentum": "momentum SGD", "rmsprop": "RMSprop", "adamw": "AdamW", "muon": "Muon",
    "normuon": "NorMuon", "soap": "SOAP",
}  # fmt: skip
#: numbers that each run gives to a cell: its quantiles
EACH = 41
QUANTILES = (0.05, 0.5, 0.95)


def kinds_of(run):
    """What each parameter is, by name."""
    found = roles(run.model, training.sample_of(run.task), head=run.task.head)
    return {role.name: role.kind for role in found}


def rehearsed(task, optimizer):
    """What a check sees: update ratios by phase and role, how far the run would go, what a batch's loss loses."""
    run = tuned(task, optimizer)
    about = subject(run.model, run.optimizer, run.loss, run.scheduler, run.steps, run.task.clip)
    known = explore(about, run.batches)
    kinds = kinds_of(run)
    of = {"first": known.rehearsal.early, "peak": known.rehearsal.updates}
    cells = {
        f"{phase} {role} update": [ratio for name, ratio in ratios.items() if kinds.get(name) == role]
        for phase, ratios in of.items()
        for role in ROLES
    }
    way = statistics.median(cells["peak hidden update"]) * sum(known.curves[0].factors(run.steps))
    return cells, way, known.rehearsal.fall


def trained(task, optimizer):
    """Of a whole run the numbers by phase, role and quantity, the share of clipped updates, and the causes found."""
    run = tuned(task, optimizer)
    with observing(run.model, run.optimizer, run.scheduler, run.steps, kinds_of(run)) as seen:
        loss = seen.loss(run.loss)
        for _ in range(run.steps):
            loss(run.model, next(run.batches)).backward()
            run.optimizer.step()
            run.optimizer.zero_grad()
            run.scheduler.step()
    cells = {
        f"{phase} {role} {quantity}": seen.values(phase, role, quantity)
        for phase in PHASES[2:]
        for role in ROLES
        for quantity in QUANTITIES
    }
    return cells, seen.clipped, [found.cause for found in seen.watch.findings]


def measured(task, optimizer):
    """All of one run, as it is kept in the folder."""
    before, travel, fall = rehearsed(task, optimizer)
    within, clipped, causes = trained(task, optimizer)
    cells = {name: spread(values) for name, values in {**before, **within}.items() if values}
    about = {"optimizer": optimizer, "task": task, "clipped": clipped, "causes": causes}
    return {**about, "travel": travel, "fall": fall, "cells": cells}


def spread(values):
    """As many quantiles from each run, so that long and deep ones do not count for more."""
    return np.quantile(values, np.linspace(0, 1, EACH)).tolist()


def table(found):
    """The table of all runs."""
    return {
        "schema": 1,
        "made": {
            "by": "python .ci/tuned_bands.py", "thalweg": __version__, "torch": torch.__version__,
            "tasks": sorted({one["task"] for one in found}), "runs": len(found), "seed": 0,
            "settings": "those of thalweg/lab/tuned.toml, each optimizer's best of its task's race",
            "quantiles": QUANTILES,
        },
        "optimizers": {name: entry(NAMES[name], [one for one in found if one["optimizer"] == name]) for name in NAMES},
    }  # fmt: skip


def entry(name, found):
    """What the table has of one optimizer."""
    bands = {}
    for cell in (f"{phase} {role} {quantity}" for phase in PHASES for role in ROLES for quantity in QUANTITIES):
        values = [value for one in found for value in one["cells"].get(cell, ())]
        if values:
            phase, role, quantity = cell.split()
            numbers = [float(f"{x:.2g}") for x in np.quantile(values, QUANTILES)]
            bands.setdefault(phase, {}).setdefault(role, {})[quantity] = numbers
    lowered = [one for one in found if one["fall"] > 0]  # a tuned run may begin with a rise
    travel, fall = min(one["travel"] for one in found), min(one["fall"] for one in lowered)
    least = {"travel": float(f"{travel:.2g}"), "fall": float(f"{fall:.2g}")}
    return {"name": name, "runs": len(found), **least, "bands": bands}


def written(content):
    """As text: a line for each role of each phase."""
    lines = []
    for name, one in content.pop("optimizers").items():
        head = json.dumps({key: value for key, value in one.items() if key != "bands"}, ensure_ascii=False)
        phases = [
            f'   "{phase}": {{\n'
            + ",\n".join(f'    "{role}": {json.dumps(numbers)}' for role, numbers in of_roles.items())
            + "}"
            for phase, of_roles in one["bands"].items()
        ]
        lines.append(f'  "{name}": {head[:-1]}, "bands": {{\n' + ",\n".join(phases) + "}}")
    made = json.dumps(content, ensure_ascii=False)
    return f'{made[:-1]},\n "optimizers": {{\n' + ",\n".join(lines) + "}}\n"


def main():
    asked = argparse.ArgumentParser()
    asked.add_argument("folder", type=Path)
    asked.add_argument("tasks", nargs="*")
    asked.add_argument("--write", action="store_true")
    told = asked.parse_args()
    told.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for task in told.tasks or ([] if told.write else [task for task in settings() if task not in LEFT_OUT]):
        for optimizer in settings()[task]:
            file = told.folder / f"{task} {optimizer}.json"
            if not file.exists():
                file.write_text(json.dumps(measured(task, optimizer)), encoding="utf-8")
                print(file.stem, flush=True)
    if told.write:
        found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(told.folder.glob("*.json"))]
        TABLE.write_text(written(table(found)), encoding="utf-8")


if __name__ == "__main__":
    main()
