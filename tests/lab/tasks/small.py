"""A user's task whose runs take milliseconds, as a file; and changes to it that go wrong while it races."""

from pathlib import Path

TEXT = """\
import multiprocessing, os, time
import torch
from torch import nn
from torch.nn import functional as F
from thalweg.lab.tasks import Task

IN_WORKER = multiprocessing.parent_process() is not None

class Small(Task):
    \"\"\"A small perceptron on a noisy sine.\"\"\"

    name = "small"
    steps = 40
    batch_size = 16
    unit = "squared error"

    def model(self, seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 8), nn.Dropout(0.1), nn.Tanh(), nn.Linear(8, 1))

    def batches(self, seed):
        generator = torch.Generator().manual_seed(seed)
        while True:
            x = torch.randn(16, 2, generator=generator)
            yield x, x[:, :1].sin() + 0.1 * torch.randn(16, 1, generator=generator)

    def loss(self, model, batch):
        x, y = batch
        # here
        return F.mse_loss(model(x), y)

    def evaluate(self, model):
        x = torch.linspace(-2, 2, 64).view(32, 2)
        model.eval()
        with torch.no_grad():
            loss = F.mse_loss(model(x), x[:, :1].sin()).item()
        model.train()
        return loss
"""


def write_small(folder: Path, in_loss: str = "", name: str = "small.py", **changes: str) -> str:
    """Write the task with a statement in its loss; return the path."""
    text = TEXT.replace("# here", in_loss or "pass")
    for old, new in changes.items():
        assert f"    {old} = " in text
        text = text.replace(f"    {old} = ", f"    {old} = {new}  # ", 1)
    path = folder / name
    path.write_text(text)
    return str(path)


def line_of(path: str, part: str) -> int:
    """The number of the first line of a file that holds `part`."""
    lines = Path(path).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if part in line)
