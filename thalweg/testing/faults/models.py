"""Faults of the model and of its gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thalweg.testing.faults import tasks
from thalweg.testing.faults.fault import fault
from thalweg.testing.faults.healthy import adamw, classifying, seeing, writing
from thalweg.testing.faults.setup import Setup


class _Detached(nn.Module):
    """A perceptron whose middle layer's output is detached."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(16, 64), nn.Linear(64, 64), nn.Linear(64, tasks.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        return self.last(x + F.relu(self.middle(x)).detach())  # type: ignore[no-any-return]


@fault("no_gradient", layer="middle", incident="TrainCheck's class of parameters that are never updated")
def detached() -> Setup:
    """A layer's output is detached."""
    return classifying(_Detached)


@fault("nonfinite_gradient", "gradient_became_nonfinite", layer="0")
def root_of_zero() -> Setup:
    """The root of a square that may be zero, whose derivative is infinite there."""

    class SquareRoot(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * (x > 0)).square().sqrt()

    return classifying(lambda: nn.Sequential(nn.Linear(16, 64), SquareRoot(), nn.Linear(64, tasks.CLASSES)))


@fault("dead_relus", layer="2")
def dead_units() -> Setup:
    """A bias that switches every ReLU of a layer off."""
    setup = classifying()
    nn.init.constant_(setup.model[2].bias, -10.0)  # type: ignore[index]
    return setup


@fault("gradients_vanish", layer="0")
def saturated() -> Setup:
    """A deep network of sigmoids with small weights."""

    def build() -> nn.Module:
        inner = [x for _ in range(10) for x in (nn.Linear(32, 32), nn.Sigmoid())]
        return nn.Sequential(nn.Linear(16, 32), *inner, nn.Linear(32, tasks.CLASSES))

    setup = classifying(build)
    for p in setup.model.parameters():
        p.data *= 0.3
    return setup


@fault("initial_loss_high", "gradients_explode", layer="head", incident="tied embeddings at nn.Embedding's own N(0, 1)")
def large_embeddings() -> Setup:
    """Embeddings of unit variance serve as the head."""
    return writing(lambda: tasks.Transformer(tied=True, std=1.0))


@fault("frozen_by_mistake", layer="2")
def frozen_layer() -> Setup:
    """A layer of an untrained model is frozen."""
    setup = classifying()
    setup.model[2].requires_grad_(False)  # type: ignore[index]
    return setup


@fault("frozen_moves", layer="1", incident="frozen batch norms that go on collecting statistics, in detection models")
def frozen_statistics() -> Setup:
    """Frozen batch norms go on collecting statistics."""
    setup = seeing()
    for place in (1, 5):
        setup.model[place].requires_grad_(False)  # type: ignore[index]
    return setup


@fault("frozen_moves", layer="0", incident="module.requires_grad = False, which sets an attribute that nobody reads")
def attribute_set() -> Setup:
    """``requires_grad = False`` is set on a module, which freezes nothing."""
    setup = classifying()
    setup.model[0].requires_grad = False  # type: ignore[index]
    return setup


@fault("tied_weights_broken", layer="head", incident="https://github.com/huggingface/accelerate (tied weights lost)")
def untied() -> Setup:
    """Head and embedding were one tensor, and are two."""
    setup = writing(lambda: tasks.Transformer(tied=True))
    head: nn.Linear = setup.model.get_submodule("head")  # type: ignore[assignment]
    head.weight = nn.Parameter(head.weight.detach().clone())
    setup.optimizer = adamw(setup.model)
    setup.scheduler = None
    return setup


@fault("update_swallowed", incident="pure bfloat16 training, in which small updates are rounded away")
def pure_bfloat16() -> Setup:
    """Parameters in bfloat16, with steps below half a unit in the last place."""
    setup = classifying(lambda: tasks.perceptron().bfloat16())
    setup.loss = lambda model, batch: F.cross_entropy(model(batch[0].bfloat16()).float(), batch[1])
    setup.optimizer, setup.scheduler = torch.optim.SGD(setup.model.parameters(), lr=1e-4), None
    return setup
