"""The example on the page of an optimizer: a model with hidden matrices that learns, called as this optimizer asks."""

from __future__ import annotations

import inspect
from typing import Any

import thalweg
from docs.generator.runs import Run, best_rate
from docs.generator.walking import averages
from thalweg.optim.curvature import Hutchinson, SophiaG
from thalweg.registry import find, wrappers
from thalweg.wrap.shown import Shown

TASK = """\
import torch
import thalweg

torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Linear(8, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2)
)
x = torch.randn(256, 8)
y = (x[:, 0] * x[:, 1] > 0).long()  # whether two inputs have the same sign
"""
LOSS = "torch.nn.functional.cross_entropy(model(x), y)"
CLOSURE = f"""

def closure():
    optimizer.zero_grad()
    loss = {LOSS}
    loss.backward()
    return loss


losses = [optimizer.step(closure).item() for _ in range(100)]
"""
CURVATURE = "        optimizer.update_hessian(loss)  # an estimate of the curvature, now and then\n"
DRAWN = """\
        out = model(x)
        drawn = torch.distributions.Categorical(logits=out).sample()  # labels that the model itself draws
        torch.nn.functional.cross_entropy(out, drawn).backward()
        optimizer.update_hessian(len(x))
        optimizer.zero_grad()
"""
#: where the best rate on the digits is none for this task, or more is to be said
FURTHER: dict[str, dict[str, Any]] = {
    "AdaHessian": {"lr": 0.03},
    "ADOPT": {"lr": 0.01},
    "DAdaptSGD": {"lr": 1.0, "d0": 0.01, "growth_rate": 1.02},
    "DoG": {"lr": 1.0},
    "LDoG": {"lr": 1.0},
    "AdaMuon": {"lr": 0.01},
    "Dion2": {"lr": 0.05},
    "Mano": {"lr": 0.03},
    "Scion": {"lr": 0.01, "radius": 8.0, "head_ratio": 16.0},
    "Muon": {"lr": 0.01, "adjust_lr_fn": "match_rms_adamw"},
    "NorMuon": {"lr": 0.01, "adjust_lr_fn": "match_rms_adamw"},
    "SOAP": {"lr": 0.01},
    "SOAPMuon": {"lr": 0.01},
    "Shampoo": {"lr": 0.01},
    "PSGDKron": {"lr": 0.01},
}


def lines(name: str, run: Run | None = None) -> str:
    """A script that trains, and keeps its losses in ``losses``.

    Args:
        name: of an optimizer or a wrapper.
        run: what was measured of it: its best learning rate is taken.
    """
    return f"{TASK}{_made(name, run)}\n{_loop(find(name))}{_after(find(name))}"


def _made(name: str, run: Run | None) -> str:
    if name in wrappers():
        rate = "1.0" if issubclass(find(name), thalweg.Mechanic) else "0.01"
        return f"optimizer = thalweg.{name}(thalweg.AdamW(model.parameters(), lr={rate}))"
    best = best_rate(run) if run else None
    given = {**({"lr": best[1]} if best else {}), **FURTHER.get(name, {})}
    arguments = "".join(f", {key}={value!r}" for key, value in given.items())
    said = "# the rate suits this small network; tune it on yours\n" if "lr" in given else ""
    return f'{said}optimizer = thalweg.create("{name.lower()}", model{arguments})'


def _loop(cls: Any) -> str:
    if issubclass(cls, (thalweg.LBFGS, thalweg.SAM)):
        return CLOSURE
    told = "loss=loss" if "loss" in inspect.signature(cls.step).parameters else ""
    before = drawn = ""
    if issubclass(cls, SophiaG):
        drawn = "    if step % 10 == 0:\n" + DRAWN
    elif issubclass(cls, Hutchinson):
        before = "    if step % 10 == 0:\n" + CURVATURE
    return (
        f"losses = []\nfor step in range(100):\n{drawn}    loss = {LOSS}\n    optimizer.zero_grad()\n{before}"
        f"    loss.backward()\n    optimizer.step({told})\n    losses.append(loss.item())\n"
    )


def _after(cls: Any) -> str:
    if averages(cls):
        return "optimizer.eval()  # the mean of the weights, which is to be used, is in the model now\n" + _last("")
    if issubclass(cls, Shown):
        return "with optimizer.swap():  # the weights to use are in the model here\n" + _last("    ")
    return 'print(f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last")\n'


def _last(indent: str) -> str:
    return f'{indent}print(f"loss {{losses[0]:.3f}} at first, {{{LOSS}.item():.3f}} at last")\n'
