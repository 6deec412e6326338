"""Who is updated: every trainable parameter once, none of another model, tied weights as one, the frozen ones meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from thalweg.diagnosis.finding import Finding, finding, layers
from thalweg.diagnosis.preflight.fine import Fine
from thalweg.diagnosis.preflight.known import Preflight
from thalweg.diagnosis.preflight.subject import Subject, modules_of
from thalweg.groups.places import EMBEDDINGS, MATRICES


def left_out(known: Preflight) -> Iterator[Finding | Fine]:
    """Trainable parameters in no group, and tensors in groups that are not the model's."""
    subject = known.subject
    apart = known.apart
    missing = [name for name, p in subject.trainable.items() if id(p) not in subject.owners and name not in apart]
    mine = {id(p) for p in subject.model.parameters()}
    foreign = sum(owner not in mine for owner in subject.owners)
    if missing:
        also = f", and the optimizer holds {foreign} tensors that are not the model's" if foreign else ""
        yield finding(
            "not_in_optimizer",
            f"{len(missing)} of {len(subject.trainable)} trainable parameters are in no group{also}.",
            missing,
            numbers={"missing": len(missing), "foreign": foreign},
        )
    elif foreign:
        optimizer = subject.optimizers[0]
        yield finding(
            "foreign_parameters",
            f"{foreign} of {len(subject.owners)} tensors in the optimizer's groups are not the model's.",
            optimizer=type(optimizer).__name__,
            lr=f"{float(optimizer.param_groups[0]['lr']):g}",
        )
    else:
        yield Fine("groups", f"each of {len(subject.trainable) - len(apart)} trainable parameters is in one")
    if apart:
        text = f"{len(apart)} trainable parameters get no gradient and are in no group: {layers(sorted(apart))}"
        yield Fine("no part in this run", text, note=True)


def unregistered(known: Preflight) -> Iterator[Finding | Fine]:
    """Layers in a plain list, and tensors that are no parameters, which the loss depends on."""
    subject, reached = known.subject, known.first.leaves
    mine = {id(p) for p in subject.parameters.values()} | subject.owners.keys()
    paths = [path for path, p in hidden(subject.model) if id(p) in reached - mine]
    if paths:
        yield finding(
            "not_registered",
            f"{len(paths)} tensors behind the loss ask for a gradient, and are no parameters of the model: they stand "
            "in an attribute that it does not look into.",
            paths,
            attribute=paths[0].partition("[")[0].rpartition(".")[2],
        )


def hidden(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors that ask for gradients, in attributes of modules and in lists and dicts there, with their paths."""
    for name, module in model.named_modules():
        for own, value in vars(module).items():
            if not own.startswith("_"):
                yield from _within(f"{name}.{own}".lstrip("."), value, 2)


def _within(path: str, value: Any, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor) and value.requires_grad and value.is_leaf:
        yield path, value
    elif isinstance(value, nn.Module):
        yield from ((f"{path}.{name}", p) for name, p in value.named_parameters() if p.requires_grad)
    elif depth and isinstance(value, (list, tuple)):
        for i, one in enumerate(value):
            yield from _within(f"{path}[{i}]", one, depth - 1)
    elif depth and isinstance(value, dict):
        for key, one in value.items():
            yield from _within(f"{path}[{key!r}]", one, depth - 1)


def twice(known: Preflight) -> Iterator[Finding | Fine]:
    """Parameters in more than one group."""
    names = [name for name, p in known.subject.trainable.items() if len(known.subject.owners.get(id(p), ())) > 1]
    if names:
        yield finding("in_two_groups", f"{len(names)} parameters are in more than one group.", names)


def untied(known: Preflight) -> Iterator[Finding | Fine]:
    """An embedding and an output layer that are meant to share a weight and do not."""
    model = known.subject.model
    if pair := _configured(model) or _alike(known.subject):
        embedding, head, why = pair
        yield finding(
            "tied_weights_broken",
            f"{why}, and the weights of {embedding} and {head} are two tensors.",
            [f"{head}.weight"],
            patch=f"model.{head}.weight = model.{embedding}.weight",
        )


def _configured(model: nn.Module) -> tuple[str, str, str] | None:
    """What a model of `transformers` says."""
    if not getattr(getattr(model, "config", None), "tie_word_embeddings", False):
        return None
    try:
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[operator]
    except Exception:  # it has none
        return None
    if embedding is None or head is None or embedding.weight is head.weight:
        return None
    names = {id(module): name for name, module in model.named_modules()}
    return names.get(id(embedding), "?"), names.get(id(head), "?"), "The configuration says tie_word_embeddings"


def _alike(subject: Subject) -> tuple[str, str, str] | None:
    """A weight that equals an embedding's to the last bit was tied with it."""
    linears = list(modules_of(subject.model, nn.Linear))
    for name, embedding in modules_of(subject.model, EMBEDDINGS):
        for other, linear in linears:
            a, b = embedding.weight, linear.weight
            if a is not b and a.shape == b.shape and a.data_ptr() != b.data_ptr() and torch.equal(a, b) and a.any():
                return name, other, "Their values are equal to the last bit"
    return None


def frozen(known: Preflight) -> Iterator[Finding | Fine]:
    """Layers that stand still while an untrained model is trained, and are in the optimizer all the same."""
    subject = known.subject
    owned = {
        f"{name}.{own}".lstrip(".")
        for name, module in modules_of(subject.model, MATRICES)
        for own in module._parameters
    }
    still = {name: p for name, p in subject.parameters.items() if not p.requires_grad}
    held = [name for name, p in still.items() if p.ndim > 1 and name in owned and id(p) in subject.owners]
    if (
        held
        and known.untrained
        and 2 * len(held) < sum(name in owned and p.ndim > 1 for name, p in subject.parameters.items())
    ):
        yield finding(
            "frozen_by_mistake",
            f"{len(held)} matrices are frozen and stand in the optimizer's groups, while the loss before training, "
            f"{known.losses[0]:.4g}, is that of an untrained model.",
            held,
        )
    elif still:
        yield Fine("frozen", f"{len(still)} parameters of {len(subject.parameters)}")


CHECKS = (left_out, unregistered, twice, untied, frozen)
