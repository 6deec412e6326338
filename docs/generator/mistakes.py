"""Mistakes that users make, and what Thalweg and torch say to each; the page on errors shows the table."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import thalweg
from docs.generator.optimizer_pages import table as markdown_table
from thalweg import groups, schedule
from thalweg.linalg import newton_schulz, orthogonal_factors
from thalweg.train import fit
from thalweg.transforms import clip_global_norm


@dataclass(frozen=True)
class Mistake:
    """A line of code that is wrong.

    Attributes:
        code: as a user writes it.
        ours: what runs it with Thalweg.
        torchs: the same with torch; None where torch has no such thing.
        says: what our message must contain: the argument or the thing, its value, and what is allowed.
    """

    code: str
    ours: Callable[[], Any]
    torchs: Callable[[], Any] | None
    says: tuple[str, ...]


def _model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def _stepped(cls: Any) -> Any:
    model = _model()
    optimizer = cls(model.parameters(), lr=0.1)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    return optimizer


def _loaded(cls: Any, state: Any) -> Any:
    return cls(_model().parameters(), lr=0.1).load_state_dict(state)


def _fit(**more: Any) -> Any:
    model = _model()
    arguments = {"steps": 1, **more}
    batches = arguments.pop("batches", [torch.ones(1, 4)])
    return fit(model, batches, lambda m, x: m(x).sum(), thalweg.SGD(model.parameters(), lr=0.1), **arguments)


def _averaged(cls: Any) -> Any:
    optimizer = _stepped(cls)
    optimizer.eval()
    return optimizer.step()


def _check(model: Any = None, optimizer: Any = None, **more: Any) -> Any:
    model = _model() if model is None else model
    optimizer = thalweg.SGD(model.parameters(), lr=0.1) if optimizer is None else optimizer
    arguments = {"loss": lambda m, x: m(x).sum(), "batches": [torch.ones(1, 4)], **more}
    return thalweg.check(model, optimizer, **arguments)


def _watch(optimizer: Any = None, **more: Any) -> Any:
    model = _model()
    return thalweg.watch(model, optimizer or thalweg.SGD(model.parameters(), lr=0.1), **more)


def _p() -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2, 2))]


T, O = torch.optim, thalweg  # noqa: E741
MISTAKES = [
    # types
    Mistake("AdamW(model)", lambda: O.AdamW(_model()), lambda: T.AdamW(_model()), ("params", "model.parameters()")),
    Mistake(
        "AdamW(model.weight)",
        lambda: O.AdamW(_p()[0]),
        lambda: T.AdamW(_p()[0]),
        ("params=", "Put a single tensor into a list"),
    ),
    Mistake(
        'AdamW(params, lr="1e-3")',
        lambda: O.AdamW(_p(), lr="1e-3"),
        lambda: T.AdamW(_p(), lr="1e-3"),
        ("lr='1e-3'", "[0, ∞)"),
    ),
    Mistake(
        "AdamW(params, lr=None)", lambda: O.AdamW(_p(), lr=None), lambda: T.AdamW(_p(), lr=None), ("lr=None", "[0, ∞)")
    ),
    Mistake(
        "AdamW(params, betas=0.9)",
        lambda: O.AdamW(_p(), betas=0.9),
        lambda: T.AdamW(_p(), betas=0.9),
        ("betas=0.9", "[0, 1)"),
    ),
    Mistake(
        "AdamW(params, betas=(0.9,))",
        lambda: O.AdamW(_p(), betas=(0.9,)),
        lambda: T.AdamW(_p(), betas=(0.9,)),
        ("betas=(0.9,)", "2 numbers"),
    ),
    Mistake(
        "AdamW([torch.ones(2)])",
        lambda: O.AdamW([torch.ones(2).requires_grad_() * 2]),
        lambda: T.AdamW([torch.ones(2).requires_grad_() * 2]),
        ("params[0]=", "a leaf", "the parameter itself"),
    ),
    Mistake("AdamW([])", lambda: O.AdamW([]), lambda: T.AdamW([]), ("params=[]", "at least one parameter")),
    Mistake(
        "AdamW([1.0, 2.0])",
        lambda: O.AdamW([1.0, 2.0]),
        lambda: T.AdamW([1.0, 2.0]),
        ("params[0]=1.0", "a tensor", "model.parameters()"),
    ),
    # ranges
    Mistake(
        "AdamW(params, lr=-0.1)", lambda: O.AdamW(_p(), lr=-0.1), lambda: T.AdamW(_p(), lr=-0.1), ("lr=-0.1", "[0, ∞)")
    ),
    Mistake(
        'AdamW(params, lr=float("nan"))',
        lambda: O.AdamW(_p(), lr=float("nan")),
        lambda: T.AdamW(_p(), lr=float("nan")),
        ("lr=nan", "[0, ∞)"),
    ),
    Mistake(
        "AdamW(params, betas=(0.9, 1.0))",
        lambda: O.AdamW(_p(), betas=(0.9, 1.0)),
        lambda: T.AdamW(_p(), betas=(0.9, 1.0)),
        ("betas=(0.9, 1.0)", "[0, 1)"),
    ),
    Mistake(
        "SGD(params, nesterov=True)",
        lambda: O.SGD(_p(), nesterov=True),
        lambda: T.SGD(_p(), lr=0.1, nesterov=True),
        ("nesterov=", "momentum > 0"),
    ),
    Mistake(
        "Muon(params, ns_steps=2.5)",
        lambda: O.Muon(_p(), ns_steps=2.5),
        lambda: T.Muon(_p(), ns_steps=2.5),
        ("ns_steps=2.5", "an integer"),
    ),
    Mistake("linear(-5)", lambda: schedule.linear(-5), None, ("steps=-5",)),
    Mistake("fit(…, steps=0, accumulate=0)", lambda: _fit(accumulate=0), None, ("accumulate=0", "at least 1")),
    # names
    Mistake(
        "AdamW(params, weight_decey=1)",
        lambda: O.AdamW(_p(), weight_decey=1),
        lambda: T.AdamW(_p(), weight_decey=1),
        ("weight_decey", "weight_decay"),
    ),
    Mistake(
        'AdamW([{"params": p, "Lr": 0.1}])',
        lambda: O.AdamW([{"params": _p(), "Lr": 0.1}]),
        lambda: T.AdamW([{"params": _p(), "Lr": 0.1}]),
        ("Lr", "lr"),
    ),
    Mistake('thalweg.create("adamv", model)', lambda: O.create("adamv", _model()), None, ("adamv", "adamw")),
    Mistake("thalweg.Adamw(params)", lambda: O.Adamw(_p()), lambda: T.Adamw(_p()), ("Adamw", "did you mean AdamW")),  # type: ignore[attr-defined]
    Mistake('AdamW(params, backend="gpu")', lambda: O.AdamW(_p(), backend="gpu"), None, ("backend='gpu'", "triton")),
    Mistake(
        'AdamW(params, state_dtype="fp16")',
        lambda: O.AdamW(_p(), state_dtype="fp16"),
        None,
        ("state_dtype='fp16'", "bfloat16"),
    ),
    Mistake(
        'of(model, Rule("head.*", lr=0.1))',
        lambda: groups.of(_model(), groups.Rule("head.*", lr=0.1)),
        None,
        ("head.*", "match"),
    ),
    # what is in few other libraries: blocks, transforms, groups, functions of matrices
    Mistake('Muon(model, blocks="head")', lambda: O.Muon(_model(), blocks="head"), None, ("blocks='head'", "'heads'")),
    Mistake('Muon([W], blocks="auto")', lambda: O.Muon(_p(), blocks="auto"), None, ("blocks='auto'", "Pass the model")),
    Mistake("Muon([W], blocks=(3, 3))", lambda: O.Muon(_p(), blocks=(3, 3)), None, ("blocks=(3, 3)", "the 2 outputs")),
    Mistake("Muon(model, head=3)", lambda: O.Muon(_model(), head=3), None, ("head=3", "dotted names")),
    Mistake(
        "AdamW(params, transforms= clip_global_norm(1.0))",
        lambda: O.AdamW(_p(), transforms=clip_global_norm(1.0)),
        None,
        ("transforms=clip_global_norm(1.0)", "a list"),
    ),
    Mistake(
        "AdamW(params, clip_global_norm=1.0, transforms= [clip_global_norm(1.0)])",
        lambda: O.AdamW(_p(), clip_global_norm=1.0, transforms=[clip_global_norm(1.0)]),
        None,
        ("clip_global_norm=1.0", "Leave out"),
    ),
    Mistake(
        'of(model, Rule("0.*", lr=times(2)))',
        lambda: groups.of(_model(), groups.Rule("0.*", lr=groups.times(2))),
        None,
        ("lr=None", "0.weight", "Pass lr="),
    ),
    Mistake(
        "layer_decay(model, 1.5, lr=0.1)",
        lambda: groups.layer_decay(_model(), 1.5, lr=0.1),
        None,
        ("decay=1.5", "(0, 1]"),
    ),
    Mistake(
        "muon(model, muon=0.02, adamw={})",
        lambda: groups.muon(_model(), muon=0.02, adamw={}),
        None,
        ("muon=0.02", "a dict"),
    ),
    Mistake(
        'newton_schulz(G, dtype="float32")',
        lambda: newton_schulz(torch.eye(2), dtype="float32"),
        None,
        ("dtype='float32'", "torch.float32"),
    ),
    Mistake(
        "orthogonal_factors(G)", lambda: orthogonal_factors(torch.eye(2)), None, ("Gs=Tensor of shape (2, 2)", "[G]")
    ),
    # a run that is looked at
    Mistake(
        "thalweg.check(optimizer, model, …)",
        lambda: _check(thalweg.SGD(_p(), lr=0.1), _model()),
        None,
        ("model=an optimizer, SGD", "The model comes first"),
    ),
    Mistake(
        "thalweg.check(…, batches=batch)",
        lambda: _check(batches=torch.ones(1, 4)),
        None,
        ("batches=Tensor of shape (1, 4)", "[batch]"),
    ),
    Mistake("thalweg.check(…, loss=nn.MSELoss())", lambda: _check(loss=nn.MSELoss()), None, ("loss=", "MSELoss")),
    Mistake('thalweg.check(…, steps="200")', lambda: _check(steps="200"), None, ("steps='200'", "an integer")),
    Mistake(
        "thalweg.watch(model, model.parameters())",
        lambda: _watch(_p()),
        None,
        ("optimizer=Parameter of shape (2, 2)", "torch.optim.Optimizer"),
    ),
    Mistake(
        'thalweg.watch(…, sinks=["wandb"])',
        lambda: _watch(sinks=["wandb"]),
        None,
        ("sinks[0]='wandb'", "a function"),
    ),
    # wrong objects
    Mistake(
        "Muon([bias])",
        lambda: O.Muon([nn.Parameter(torch.ones(3))]),
        lambda: T.Muon([nn.Parameter(torch.ones(3))]),
        ("params", "matrices"),
    ),
    Mistake(
        "SAM(model.parameters())",
        lambda: O.SAM(_model().parameters()),
        None,
        ("optimizer=", "torch.optim.Optimizer", "Build the optimizer first"),
    ),
    Mistake(
        "adamw.load_state_dict( momentum.state_dict())",
        lambda: _loaded(O.AdamW, _stepped(O.Momentum).state_dict()),
        lambda: _loaded(T.AdamW, T.SGD(_model().parameters(), lr=0.1, momentum=0.9).state_dict()),
        ("Momentum", "AdamW"),
    ),
    Mistake(
        "adamw.load_state_dict( model.state_dict())",
        lambda: _loaded(O.AdamW, _model().state_dict()),
        lambda: _loaded(T.AdamW, _model().state_dict()),
        ("state_dict",),
    ),
    Mistake(
        "Scheduler(model, linear(10))",
        lambda: schedule.Scheduler(_model(), schedule.linear(10)),
        lambda: T.lr_scheduler.LinearLR(_model()),
        ("optimizer", "Sequential"),
    ),
    # wrong order
    Mistake("SAM(…).step() without a closure", lambda: O.SAM(_stepped(O.SGD)).step(), None, ("closure",)),
    Mistake("MoMo(params).step() without the loss", lambda: _stepped(O.MoMo), None, ("loss=None",)),
    Mistake(
        "step() after eval() of ScheduleFreeAdamW",
        lambda: _averaged(O.ScheduleFreeAdamW),
        None,
        ("train()",),
    ),
    Mistake("fit(…) whose batches are empty", lambda: _fit(batches=[]), None, ("batches",)),
]


def message(run: Callable[[], Any] | None) -> str:
    """What an exception or a warning says; empty where there is none."""
    if run is None:
        return ""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("error")
            run()
    except Exception as error:  # whatever it is, a user sees it
        return re.sub(r" at 0x[0-9a-f]+", "", f"{type(error).__name__}: {error}")
    return ""


def table() -> str:
    """Each mistake, with both messages."""
    rows = []
    for one in MISTAKES:
        theirs = "(not in torch)" if one.torchs is None else message(one.torchs) or "(nothing)"
        rows.append([f"`{one.code}`", _cell(message(one.ours)), _cell(theirs)])
    return markdown_table(["mistake", "Thalweg", "torch"], rows)


def _cell(text: str) -> str:
    shown = " ".join(text.split())
    return shown.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_").replace("$", "\\$")
