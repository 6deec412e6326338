"""What a second learning rate is worth to AdamW beside Muon's lead, and what is worth cutting Muon's fused weights.

Four contestants on bytes-gpt, paired by seed: AdamW with one learning rate (the best of a grid on another seed), AdamW
with a second one for all that is no hidden matrix (as the published race tuned it), Muon with whole weights, and Muon
with q, k and v apart (both as tuned there). The intervals are Student's t on the differences, each by itself. From the
root of the repository:

    .venv/bin/python .ci/race_rates.py --seeds 5
"""

import argparse
import functools
import json
import multiprocessing
import statistics

import torch
from race_blocks import interval, trained

import thalweg
from thalweg import groups
from thalweg.groups.by_role import cut
from thalweg.lab.tasks import get_task, seeding

#: learning rate, its multiple for what is no hidden matrix, weight decay: AdamW's as the published race tuned them,
#: Muon's as the race before it did, which took query, key and value for one matrix
ADAMW, MUON = (0.017, 10.0, 0.0), (0.032, 1.0, 0.3)
#: quarter decades; the search goes on beyond an edge at which it finds the best
GRID = (0.0056, 0.01, 0.018)
STEP = 10**0.25
BETAS = (0.9, 0.95)
Run = tuple[str, float, int]


def optimizer(task, model, who: str, lr: float) -> torch.optim.Optimizer:
    """Of a contestant; ``lr`` is of the one that has one alone."""
    sample = task.sample()
    if who == "one rate":
        return thalweg.AdamW(groups.multiplied(model, lr, 1.0, 0.0, sample=sample), betas=BETAS)
    if who == "two rates":
        return thalweg.AdamW(groups.multiplied(model, *ADAMW, sample=sample), betas=BETAS)
    found = groups.multiplied(model, *MUON, sample=sample)
    found = [{**group, "use_muon": group["role"] == "hidden", "flatten": True} for group in found]
    return thalweg.Muon(cut(found, model, who, sample), adjust_lr_fn="match_rms_adamw")


def train(run: Run, steps: int) -> float:
    """The held-out loss of one run."""
    who, lr, seed = run
    torch.set_num_threads(1)
    task = get_task("bytes-gpt")
    seeding.seed(seed)
    model = task.model(seed)
    return trained(task, model, optimizer(task, model, who, lr), seed, steps)


def search(of, pool, seeds: int) -> dict[float, float]:
    """The mean loss at each learning rate of AdamW with one; the best of them has neighbours on both sides."""
    means: dict[float, float] = {}
    rates = list(GRID)
    while rates:
        losses = pool.map(of, [("one rate", lr, 1000 + s) for lr in rates for s in range(seeds)], chunksize=1)
        means |= {lr: statistics.mean(losses[i * seeds : (i + 1) * seeds]) for i, lr in enumerate(rates)}
        best = min(means, key=means.__getitem__)
        rates = [best / STEP] * (best == min(means)) + [best * STEP] * (best == max(means))
    return dict(sorted(means.items()))


def told(name: str, found: list[float]) -> None:
    mean, low, high = interval(found)
    print(f"{name}: {mean:.4f} [{low:.4f}, {high:.4f}]", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="that judge")
    parser.add_argument("--search-seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        of = functools.partial(train, steps=given.steps)
        means = search(of, pool, given.search_seeds)
        best = min(means, key=means.__getitem__)
        print(json.dumps({"search": means, "best": best}), flush=True)
        names = ("one rate", "two rates", "none", "auto")
        runs = [(who, best, 2000 + s) for s in range(given.seeds) for who in names]
        losses = dict(zip(runs, pool.map(of, runs, chunksize=1), strict=True))
    by = {who: [loss for (name, _, _), loss in losses.items() if name == who] for who in names}
    print(json.dumps({who: [round(loss, 4) for loss in found] for who, found in by.items()}))
    difference = lambda one, other: [a - b for a, b in zip(by[one], by[other], strict=True)]  # noqa: E731
    told("AdamW, two rates minus one", difference("two rates", "one rate"))
    for way in ("none", "auto"):
        told(f"Muon, {way}, minus AdamW with one rate", difference(way, "one rate"))
        told(f"Muon, {way}, minus AdamW with two rates", difference(way, "two rates"))
    told("Muon, auto minus none", difference("auto", "none"))


if __name__ == "__main__":
    main()
