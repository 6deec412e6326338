"""Which matrices Muon should take a fused weight to hold: paired runs with blocks none, auto and heads.

For each task and each way of cutting, the learning rate is the best of a grid on seeds that do not judge; the runs
that do judge are paired by seed (the same weights, the same batches). The intervals are Student's t on the differences.
A task with grouped heads (two keys and values for four queries, gate and up in one weight) stands beside the built-in
two. Run it on a quiet machine, from the root of the repository:

    .venv/bin/python .ci/race_blocks.py --seeds 5
"""

import argparse
import json
import math
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

import thalweg
from thalweg import groups
from thalweg.groups.by_role import cut
from thalweg.lab.tasks import get_task, seeding
from thalweg.lab.tasks._model import fresh
from thalweg.lab.tasks.bytes_gpt import BytesGpt
from thalweg.lab.tasks.corpus import CONTEXT, VOCABULARY
from thalweg.train.gpt import Block, Gpt

WAYS = ("none", "auto", "heads")
#: of each task: learning rate, its multiple for the rest, weight decay, as the published race tuned Muon
TUNED = {"bytes-gpt": (0.032, 1.0, 0.09), "bytes-lstm": (0.018, 3.0, 0.009), "bytes-gqa": (0.032, 1.0, 0.09)}
GRID = (0.56, 1.0, 1.8)
#: two-sided 95 % quantile of Student's t, by degrees of freedom
QUANTILE = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


class GroupedBlock(Block):
    """Four heads of queries share two of keys and values; the perceptron has a gate."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__(d, heads, bias=False)
        self.kv = heads // 2
        self.qkv = nn.Linear(d, d + 2 * self.kv * d // heads, bias=False)
        self.up, self.down = nn.Linear(d, 6 * d, bias=False), nn.Linear(3 * d, d, bias=False)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        h = h + self.out(self.attend(self.qkv(self.norm_attention(h))))
        gate, up = self.up(self.norm_perceptron(h)).chunk(2, -1)
        return h + self.down(F.silu(gate) * up)

    def attend(self, qkv: torch.Tensor) -> torch.Tensor:
        d, width = self.out.in_features, self.out.in_features // self.heads
        parts = qkv.split([d, self.kv * width, self.kv * width], -1)
        q, k, v = (part.unflatten(-1, (-1, width)).transpose(1, 2) for part in parts)
        k, v = (part.repeat_interleave(self.heads // self.kv, 1) for part in (k, v))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(-2)


class GroupedGpt(Gpt):
    def __init__(self, layers: int = 2, d: int = 64, heads: int = 4) -> None:
        super().__init__(layers, d, heads, VOCABULARY, CONTEXT)
        self.blocks = nn.Sequential(*(GroupedBlock(d, heads) for _ in range(layers)))
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)


class BytesGqa(BytesGpt):
    name = "bytes-gqa"

    def model(self, seed: int, size: float = 1) -> nn.Module:
        return fresh(seed, GroupedGpt)


def over(task, model: nn.Module, way: str, factor: float) -> list[dict]:
    """The groups of a race; Muon's say which matrices each weight holds."""
    lr, multiplier, decay = TUNED[task.name]
    sample = task.sample()
    found = groups.multiplied(model, lr * factor, multiplier, decay, sample=sample)
    found = [{**group, "use_muon": group["role"] == "hidden", "flatten": True} for group in found]
    return cut(found, model, way, sample)


def train(task, way: str, factor: float, seed: int, steps: int) -> float:
    """The held-out loss of one run."""
    seeding.seed(seed)
    model = task.model(seed)
    optimizer = thalweg.Muon(over(task, model, way, factor), adjust_lr_fn="match_rms_adamw")
    return trained(task, model, optimizer, seed, steps)


def trained(task, model: nn.Module, optimizer: torch.optim.Optimizer, seed: int, steps: int) -> float:
    """The held-out loss after a run with warmup over 5 % of the steps and linear decay, as races have it."""
    peaks = [group["lr"] for group in optimizer.param_groups]
    batches, warmup = iter(task.batches(seed)), math.ceil(0.05 * steps)
    for step in range(steps):
        share = min((step + 1) / warmup, (steps - step) / (steps - warmup))
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * share
        optimizer.zero_grad()
        task.loss(model, next(batches)).backward()
        optimizer.step()
    return task.evaluate(model)


def interval(differences: list[float]) -> tuple[float, float, float]:
    """Mean, and the ends of its 95 % interval."""
    mean, n = statistics.mean(differences), len(differences)
    half = QUANTILE[n - 1] * statistics.stdev(differences) / math.sqrt(n)
    return mean, mean - half, mean + half


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=list(TUNED))
    parser.add_argument("--seeds", type=int, default=5, help="that judge")
    parser.add_argument("--search-seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument(
        "--grid", type=float, nargs="+", default=list(GRID), help="multiples of the tuned learning rate"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.tasks:
        task = BytesGqa() if name == BytesGqa.name else get_task(name)
        losses, best, same = {}, {}, {}
        for way in WAYS:
            cuts = str([group["blocks"] for group in over(task, task.model(0), way, 1.0) if "blocks" in group])
            if cuts in same:
                losses[way], best[way] = losses[same[cuts]], best[same[cuts]]
                print(f"{name}: {way} is {same[cuts]}")
                continue
            same[cuts] = way
            started = time.time()
            searched = {
                factor: statistics.mean(
                    train(task, way, factor, 1000 + s, given.steps) for s in range(given.search_seeds)
                )
                for factor in (given.grid if len(given.grid) > 1 else [])
            }
            best[way] = min(searched, key=searched.get) if searched else given.grid[0]
            losses[way] = [train(task, way, best[way], 2000 + s, given.steps) for s in range(given.seeds)]
            took = time.time() - started
            print(json.dumps({"task": name, "blocks": way, "search": searched, "losses": losses[way], "s": took}))
            sys.stdout.flush()
        for way in WAYS[1:]:
            pairs = zip(losses[way], losses["none"], strict=True)
            mean, low, high = interval([one - other for one, other in pairs])
            print(f"{name}: {way} minus none {mean:.4f} [{low:.4f}, {high:.4f}], lr {TUNED[name][0] * best[way]:.3g}")


if __name__ == "__main__":
    main()
