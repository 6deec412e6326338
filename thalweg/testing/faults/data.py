"""Faults of the data, the labels and the loss."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.testing.faults import tasks
from thalweg.testing.faults.fault import fault
from thalweg.testing.faults.healthy import classifying, regressing, seeing, writing
from thalweg.testing.faults.setup import Setup


@fault("loss_ignores_batch", incident="https://karpathy.github.io/2019/04/25/recipe/ (verify that the input matters)")
def same_input() -> Setup:
    """The loss is computed from a batch that was kept from before."""
    setup = classifying()
    kept = next(setup.batches())
    setup.loss = lambda model, _: tasks.classify(model, kept)
    return setup


@fault("data_repeated", incident="next(iter(loader)) within the loop, a question asked again and again")
def first_batch_again() -> Setup:
    """The loop makes a new iterator for every batch."""
    setup = classifying()
    begin = setup.batches
    setup.batches = lambda: (tuple(x.clone() for x in next(begin())) for _ in itertools.count())
    return setup


@fault("not_shuffled")
def class_by_class() -> Setup:
    """The data are sorted by class and not shuffled."""
    setup = classifying()
    x, y = tasks.points()
    order = y.argsort()

    def batches() -> Iterator[Any]:
        while True:
            for part in torch.split(order, 32):
                if y[part[0]] == y[part[-1]]:
                    yield x[part], y[part]

    setup.batches = batches
    return setup


@fault("inputs_not_scaled", "lr_too_high", "initial_loss_high")
def raw_pixels() -> Setup:
    """Pixels from 0 to 255 are given as they are."""
    setup = classifying(lambda: nn.Sequential(nn.Flatten(), nn.Linear(144, 64), nn.ReLU(), nn.Linear(64, 4)))
    x, y = tasks.pictures()
    setup.batches = tasks.drawn(((x - x.min()) / (x.max() - x.min()) * 255).round(), y)
    return setup


@fault("label_visible", layer="", incident="https://github.com/karpathy/nanoGPT (a causal mask that is left out)")
def no_mask() -> Setup:
    """A language model without a causal mask."""
    return writing(lambda: tasks.Transformer(causal=False))


@fault("labels_shifted", incident="labels shifted in the data and again in the model of transformers")
def shifted_twice() -> Setup:
    """The targets are shifted by two tokens."""
    setup = writing()
    setup.loss = lambda model, ids: F.cross_entropy(model(ids[:, :-2]).flatten(0, 1), ids[:, 2:].flatten())
    return setup


@fault("labels_shifted", "label_visible")
def not_shifted() -> Setup:
    """The targets are the inputs."""
    setup = writing()
    setup.loss = lambda model, ids: F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, :-1].flatten())
    return setup


@fault("labels_mispaired")
def out_of_step() -> Setup:
    """Inputs and labels are out of step by one example."""
    setup = classifying()
    begin = setup.batches
    setup.batches = lambda: ((x, y.roll(1, 0)) for x, y in begin())
    return setup


@fault("activation_before_loss", incident="softmax before CrossEntropyLoss, a question asked again and again")
def softmax_twice() -> Setup:
    """The model ends in a softmax, and the loss has one of its own."""
    return classifying(lambda: nn.Sequential(*tasks.perceptron(), nn.Softmax(dim=1)))


@fault("loss_broadcasts", layer="4", incident="https://github.com/pytorch/pytorch/issues/16045")
def column_against_row() -> Setup:
    """Outputs of shape (32, 1) are compared with targets of shape (32,)."""
    setup = regressing()

    def loss(model: nn.Module, batch: Any) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return F.mse_loss(model(batch[0]), batch[1][:, 0])

    setup.loss = loss
    return setup


@fault("wrong_head", layer="4")
def head_of_another_task() -> Setup:
    """An output layer for a thousand classes is kept for a task with four classes."""
    return classifying(lambda: tasks.perceptron(1000))


@fault("labels_out_of_range", layer="4")
def one_class_too_few() -> Setup:
    """The head has fewer classes than there are labels."""
    return classifying(lambda: tasks.perceptron(3))


class _Mixing(nn.Module):
    """Attention in which a view takes the batch for the places."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(tasks.FEATURES, 32), nn.Linear(32, tasks.CLASSES)
        self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)[None]  # (1, batch, 32): the batch stands where the places should
        y = F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))
        return self.head((x + y)[0])  # type: ignore[no-any-return]


@fault("examples_leak")
def attention_over_the_batch() -> Setup:
    """Attention over the batch dimension."""
    return classifying(_Mixing)


@fault("mode_eval", layer="1", incident="a model of transformers, which from_pretrained leaves in eval mode")
def eval_left_on() -> Setup:
    """The model is left in eval mode after an evaluation."""
    setup = seeing()
    setup.model.eval()
    return setup


@fault("dropout_high", layer="1")
def kept_for_dropped() -> Setup:
    """The share to keep is given as the share to drop."""
    return classifying(
        lambda: nn.Sequential(nn.Linear(16, 64), nn.Dropout(0.9), nn.ReLU(), nn.Linear(64, tasks.CLASSES))
    )


@fault("loss_spikes", "gradient_spikes", before=False, step=20)
def bad_batch() -> Setup:
    """A batch has inputs a thousand times too large."""
    setup = classifying()
    begin = setup.batches
    setup.batches = lambda: ((1000 * x if i == 20 else x, y) for i, (x, y) in enumerate(begin()))
    return setup


@fault("nonfinite_batch", "loss_became_nonfinite", before=False, step=20)
def nan_batch() -> Setup:
    """A batch holds NaN."""
    setup = classifying()
    begin = setup.batches
    setup.batches = lambda: (
        (torch.where(x == x[0, 0], torch.nan, x) if i == 20 else x, y) for i, (x, y) in enumerate(begin())
    )
    return setup
