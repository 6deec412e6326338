"""Learning in every format of state and parameters, beside float32, on a task of the race.

``python -m tests.lab.test_formats_learn`` makes the table of docs/performance.md: more steps, three seeds.
"""

import functools
import statistics

import pytest
import torch

import thalweg
from thalweg.lab.tasks import get_task
from thalweg.schedule import linear
from thalweg.train import fit

#: what is kept of the parameters, and the optimizer's arguments
FORMATS = {
    "float32": (torch.float32, {}),
    "states in bfloat16": (torch.float32, {"state_dtype": "bfloat16"}),
    "states in int8": (torch.float32, {"state_dtype": "int8"}),
    "parameters in bfloat16": (torch.bfloat16, {"state_dtype": "float32"}),
    "parameters in bfloat16, rounded at random": (torch.bfloat16, {"state_dtype": "float32", "rounding": "stochastic"}),
    "parameters in bfloat16 and 8 bits": (torch.bfloat16, {"master": "split8"}),
    "parameters in bfloat16 and 16 bits": (torch.bfloat16, {"master": "split16"}),
    "parameters in bfloat16 and 8 bits, states in int8": (torch.bfloat16, {"master": "split8", "state_dtype": "int8"}),
}


@functools.cache
def held_out_loss(name: str, seed: int, steps: int, lr: float = 3e-3) -> float:
    """Loss after training, in nats per byte; the model is evaluated in float32 whatever it is kept in."""
    dtype, arguments = FORMATS[name]
    task = get_task("bytes-gpt")
    model = task.model(seed).to(dtype)
    optimizer = thalweg.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), **arguments)
    fit(model, task.batches(seed), task.loss, optimizer, linear(steps, warmup=steps // 20), steps=steps)
    return task.evaluate(model.float())


@pytest.mark.slow(reason="trains a language model")
@pytest.mark.parametrize("name", [n for n in FORMATS if n not in ("float32", "parameters in bfloat16")])
def test_learns_like_float32(name):
    plain, narrow = held_out_loss("float32", 0, 40), held_out_loss(name, 0, 40)
    assert plain < 3.3  # from 5.5
    assert narrow == pytest.approx(plain, abs=0.1)


def table(steps: int = 200, seeds: tuple[int, ...] = (0, 1, 2)) -> str:
    """Mean and range of the loss by format, as a table in Markdown."""
    lines = ["| format | loss | from | to |", "| --- | --- | --- | --- |"]
    for name in FORMATS:
        losses = [held_out_loss(name, seed, steps) for seed in seeds]
        lines.append(f"| {name} | {statistics.mean(losses):.3f} | {min(losses):.3f} | {max(losses):.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(table())
