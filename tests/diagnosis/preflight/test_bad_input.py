"""Arguments that cannot be right: one clear error, which names the argument, and nothing has changed."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.diagnosis.preflight.nets import X, Y, batches, loss, net
from thalweg import check


def checked(**changed):
    model = changed.pop("model", None) or net()
    given = {"loss": loss, "batches": batches(), **changed}
    parameters = model.parameters() if isinstance(model, nn.Module) else net().parameters()
    optimizer = given.pop("optimizer", None) or torch.optim.AdamW(parameters, lr=3e-3)
    return check(model, optimizer, **given)


def on_meta():
    with torch.device("meta"):
        return net()


CASES = {
    "a function for a model": ({"model": print}, "model=.*expected a torch.nn.Module"),
    "no optimizer": ({"optimizer": 3e-3}, r"optimizer=0\.003: expected a torch\.optim\.Optimizer"),
    "the optimizer of another model": (
        {"optimizer": torch.optim.AdamW(net().parameters())},
        "optimizer='AdamW over 6 tensors, none of them of the model'.*build it from this model",
    ),
    "a model on meta": ({"model": on_meta()}, "model='0.weight on the device meta'.*to_empty"),
    "a lazy model": ({"model": nn.Sequential(nn.LazyLinear(4)), "optimizer": 1}, "without a shape.*Run a batch first"),
    "a loss that is none": ({"loss": 3}, "loss=3: expected a function"),
    "a loss that is no scalar": (
        {"loss": lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none")},
        r"loss\(model, batch\)='a tensor of shape \(32,\).*Take the mean",
    ),
    "a loss that gives a number": ({"loss": lambda m, b: 1.0}, r"loss\(model, batch\)=1\.0: expected a 0-dim tensor"),
    "a loss that gives nothing": ({"loss": lambda m, b: None}, r"loss\(model, batch\)=None"),
    "a loss that raises": ({"loss": lambda m, b: m(b[0][:, :3])}, "loss=.*raised RuntimeError"),
    "no batch": ({"batches": []}, r"batches=\[\]: expected at least one batch"),
    "a tensor for batches": ({"batches": X}, r"batches=.*Of a single batch, give \[batch\]"),
    "a number for batches": ({"batches": 7}, "batches=7: expected an iterable"),
    "texts": ({"batches": ["a text", "another"]}, r"batches\[0\]='a text'.*token numbers"),
    "batches on another device": (
        {"batches": [(X[:4].to("meta"), Y[:4].to("meta"))]},
        r"batches\[0\]='tensors on meta': expected tensors on the model's device, cpu",
    ),
    "no steps": ({"steps": 0}, "steps=0: expected the number of updates"),
    "half a step": ({"steps": 1.5}, r"steps=1\.5"),
    "a scheduler that is none": ({"scheduler": 3}, "scheduler=3"),
    "a clip of zero": ({"clip": 0.0}, r"clip=0\.0"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused(name):
    changed, says = CASES[name]
    with pytest.raises(ValueError, match=says) as refused:
        checked(**changed)
    assert "\n" not in str(refused.value)


def test_a_loss_that_depends_on_no_parameter_is_a_finding():
    report = checked(loss=lambda m, b: F.cross_entropy(m(b[0]).detach(), b[1]))
    assert [one.cause for one in report.findings] == ["no_gradient"]
    assert "depends on no parameter" in report.findings[0].evidence
