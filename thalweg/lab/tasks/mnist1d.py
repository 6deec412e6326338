"""MNIST-1D: ten little curves, stretched, moved and noisy; made from a seed, no download."""

from __future__ import annotations

import functools

import torch
from torch import nn

from thalweg.lab.tasks._supervised import Split, Supervised, seeded

#: the ten templates, twelve points each (Greydanus & Kobak 2024, "Scaling down deep learning with MNIST-1D", fig. 1)
TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)
LENGTH = 40
FULL = 72  # twelve points and up to sixty of padding


@functools.cache
def curves(count: int = 5000, seed: int = 42) -> Split:
    """Four fifths to train on, one held out; each curve (40,), its class one of ten.

    Each template is padded by 36 to 60 points and stretched to 72, scaled by up to ±20 %, moved by up to 48 points
    round the circle; where it is silent there is smooth noise, everywhere a little white noise; then it is sheared and
    sampled at 40 points.
    """
    import numpy as np
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(seed)
    templates = np.array(TEMPLATES)
    templates = (templates - templates.mean(1, keepdims=True)) / templates.std(1, keepdims=True)
    templates -= templates[:, :1]

    def stretched(x: np.ndarray, length: int) -> np.ndarray:
        return np.asarray(np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(x)), x))

    def example(digit: int) -> np.ndarray:
        x = np.concatenate([templates[digit] + 1e-8, np.zeros(random.integers(36, 61))])
        x = stretched(x, FULL) * (1 + 0.4 * (random.random() - 0.5))
        x = np.roll(x, random.integers(0, 49))
        smooth = gaussian_filter(random.standard_normal(FULL), 2)
        x = np.where(x != 0, x, 0.25 * smooth / smooth.std()) + 0.02 * random.standard_normal(FULL)
        x = x + 0.75 * (random.random() - 0.5) * np.linspace(-0.5, 0.5, FULL)
        return stretched(x, LENGTH)

    labels = random.permutation(np.arange(count) % 10)
    x = torch.tensor(np.stack([example(d) for d in labels]), dtype=torch.float32)
    y = torch.tensor(labels, dtype=torch.long)
    cut = count * 4 // 5
    return Split(x[:cut], y[:cut], x[cut:], y[cut:])


class Mnist1d(Supervised):
    """A perceptron 40-100-100-10 on MNIST-1D."""

    name = "mnist1d"
    steps = 600
    batch_size = 64
    source = "generated after Greydanus & Kobak 2024, seed 42"
    good_for = "a second in which optimizers hardly differ; momentum does well"

    @property
    def examples(self) -> Split:
        """4,000 to train on, 1,000 held out."""
        return curves()

    def model(self, seed: int) -> nn.Module:
        """Three linear layers."""
        return seeded(
            seed,
            lambda: nn.Sequential(
                nn.Linear(LENGTH, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10)
            ),
        )
