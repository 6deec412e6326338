"""Whether labels fit the inputs of their own example, or those of its neighbour: told by ridge regression."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: examples that are looked at, and how many it takes to tell anything
MOST, LEAST = 1024, 48
RIDGE = 0.1


def z_scores(inputs: list[Tensor], labels: list[Tensor], shifts: tuple[int, ...] = (0, 1, -1)) -> dict[int, float]:
    """For each shift within a batch, how far the labels can be told from the inputs, in standard deviations of chance.

    A ridge regression from inputs to one-hot labels predicts each example from all others (leave one out, in closed
    form); its hits are compared with those of the most frequent class. Empty where there is too little to tell.

    Args:
        inputs: for each batch, (examples, …).
        labels: for each batch, (examples,), class numbers.
        shifts: label of the example that stands so many places further on.
    """
    if not inputs:
        return {}
    x = torch.cat([part.detach().flatten(1).double().cpu() for part in inputs])[:MOST]
    if len(x) < LEAST or x.shape[1] > MOST * 16:
        return {}
    leverage = _hat(x)
    return {by: _score(leverage, torch.cat([part.roll(-by, 0) for part in labels])[:MOST].cpu()) for by in shifts}


def _hat(x: Tensor) -> Tensor:
    """The matrix that predicts fitted labels from labels: H of ridge regression on standardized inputs."""
    x = (x - x.mean(0)) / x.std(0).clamp_min(1e-9)
    kernel = x @ x.T / x.shape[1]
    eye = torch.eye(len(x), dtype=x.dtype)
    centred = kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
    hat: Tensor = torch.linalg.solve(centred + RIDGE * eye, centred) + 1.0 / len(x)
    return hat


def _score(hat: Tensor, labels: Tensor) -> float:
    onehot = torch.nn.functional.one_hot(labels.long()).double()
    own = hat.diagonal()[:, None]
    left_out = (hat @ onehot - own * onehot) / (1 - own).clamp_min(1e-9)
    share = float(onehot.mean(0).max())
    hits = float((left_out.argmax(1) == labels).double().mean())
    return (hits - share) / math.sqrt(max(share * (1 - share), 1e-9) / len(labels))
