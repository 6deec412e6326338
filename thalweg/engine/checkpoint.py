"""Checkpoints across formats: what was saved in one, torch's among them, loads in another."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from thalweg.engine import fitting
from thalweg.engine.protocol import SteppedOptimizer
from thalweg.ir import fields
from thalweg.ir.fields import Hyper, StateSpec
from thalweg.ir.trace import is_matrix, kept_states
from thalweg.runtime.formats import Format
from thalweg.runtime.guards import states_of
from thalweg.runtime.state import MASTER, SideBySide, conform, copies, formats_of

#: a parameter, its state, and what a checkpoint holds of it; None where that is its state
_Member = tuple[Tensor, dict[str, Any], dict[str, Any] | None]


@dataclass(frozen=True)
class _Kept:
    """What is kept of parameters of one kind.

    Attributes:
        formats: how it lies in memory, by name.
        specs: what it is.
        h: the hyperparameters of their group.
        idle: keys of states that no step needs now.
    """

    formats: dict[str, Format]
    specs: list[StateSpec]
    h: SimpleNamespace
    idle: list[str]

    def restore_all(self, members: Sequence[_Member]) -> list[SideBySide]:
        """Bring the states of parameters to their format; the numbers in them that lie side by side now."""
        others = {*self.idle, MASTER, *_names_of(self.specs)} - {spec.name for spec in self.specs}
        sources = [source for _, _, source in members if source is not None and others.isdisjoint(source)]
        params = [p for p, _, _ in members]
        found = copies(params, self.formats, self.specs, sources) if len(sources) == len(members) else None
        if found is None:
            for member in members:
                self.restore(*member)
            return []
        for name, copied in found.items():
            for (_, mine, _), x in zip(members, copied, strict=True):
                mine[name] = x
        return [copied for copied in found.values() if isinstance(copied, SideBySide)]

    def restore(self, p: Tensor, mine: dict[str, Any], source: dict[str, Any] | None) -> None:
        """Bring the state of a parameter to its format.

        Args:
            p: the parameter.
            mine: its state.
            source: what a checkpoint holds of it; None where it is ``mine``.
        """
        conform(p, self.formats, self.specs, self.h, mine, source)
        if source is not None:
            for name in filter(source.__contains__, self.idle):  # another hyperparameter may ask for it
                x = source[name]
                mine[name] = x.to(p.device, copy=True) if isinstance(x, Tensor) else x


@contextlib.contextmanager
def formats_kept(optimizer: SteppedOptimizer) -> Iterator[None]:
    """Remember the state that ``load_state_dict`` is given, before torch casts all of it to the parameters' dtypes.

    Of what :func:`restore` brings to its format from what was saved, torch gets nothing: its copy would be thrown away.
    """
    loaded: dict[str, Any] = {}
    restored = {*_names_of(optimizer.rule.states.values()), MASTER}

    def remember(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        loaded.update(fitted(optimizer, state_dict))
        numbers = {*chain.from_iterable(g["params"] for g in loaded["param_groups"])}
        rest = {
            k: {name: x for name, x in kept.items() if name not in restored} if k in numbers else kept
            for k, kept in loaded["state"].items()
        }
        return {**loaded, "state": rest}

    handle = optimizer.register_load_state_dict_pre_hook(remember)
    optimizer.__dict__["_loading"] = loaded
    try:
        yield
    finally:
        handle.remove()
        del optimizer.__dict__["_loading"]


def saved(group: Mapping[str, Any], hypers: Mapping[str, Hyper]) -> dict[str, Any]:
    """A group as it is saved.

    A function in it would not load with ``weights_only``, or not be there any more, and what its parameters have each
    for itself says how they are used, which is not the checkpoint's to say.
    """
    plain = {name: value for name, value in group.items() if not callable(value)}
    return {**plain, **{name: h.default for name, h in hypers.items() if h.each and name in group}}


def _adapted(state_dict: dict[str, Any], optimizer: SteppedOptimizer) -> dict[str, Any]:
    """A checkpoint whose groups say how parameters are kept here, and have the functions that they have here."""
    ours, theirs = optimizer.param_groups, state_dict["param_groups"]
    groups = [_as_here(*pair, optimizer.rule.hypers) for pair in zip(theirs, ours, strict=False)]
    return {**state_dict, "param_groups": [*groups, *theirs[len(groups) :]]}  # torch refuses more of them


def _as_here(theirs: Mapping[str, Any], mine: Mapping[str, Any], hypers: Mapping[str, Hyper]) -> dict[str, Any]:
    functions = {name: value for name, value in mine.items() if callable(value)}
    return {**functions, **theirs, **{name: mine[name] for name, h in hypers.items() if h.layout}}


def fitted(optimizer: SteppedOptimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint in the order of the optimizer's parameters.

    Raises:
        ValueError: unless it is one of the same rule and of these parameters.
    """
    fitting.check_keys(state_dict)
    fitting.check_transforms(optimizer.rule, state_dict)
    rule = optimizer.rule
    state_dict = {**state_dict, "state": fitting.filled(state_dict["state"])}
    state_dict = _adapted(fitting.by_name(state_dict, optimizer.param_groups), optimizer)
    owners: dict[Any, tuple[Tensor, int, int]] = {}
    pairs = [*zip(optimizer.param_groups, state_dict["param_groups"], strict=False)]
    for i, (mine, theirs) in enumerate(pairs):
        numbered = zip(theirs["params"], mine["params"], strict=False)
        owners |= {number: (p, i, k) for k, (number, p) in enumerate(numbered)}

    def needed(number: Any) -> list[str]:
        if number not in owners:
            return []
        p, i, k = owners[number]
        mine, theirs = pairs[i]
        group = {**mine, **theirs, **fields.of_one(rule.hypers, mine, k)}
        found = kept_states(rule, group, is_matrix(rule, p))
        return [spec.name for spec in found if spec.kind not in ("aside", "shared")]

    specs = rule.states.values()
    hypers = [*rule.hypers, *(spec.name for spec in specs if spec.kind == "shared")]
    known = [*_names_of(specs), *optimizer.kept_besides, MASTER]
    fitting.check_rule(optimizer.kin, fields.kindred(rule), hypers, known, needed, state_dict)
    return state_dict


@torch.no_grad()
def restore(optimizer: SteppedOptimizer) -> None:
    """Bring every state to the optimizer's format; on the way in from a checkpoint, from what was saved."""
    laid: list[SideBySide] = []
    saved = _by_parameter(optimizer)
    rule = optimizer.rule
    for group in optimizer.param_groups:
        same: dict[Any, list[_Member]] = defaultdict(list)
        params = group["params"]
        states = states_of(params, optimizer.state)
        for p, own, mine in zip(params, fields.of_each(rule.hypers, group), states, strict=True):
            source = saved.get(id(p))
            if mine or source:
                same[is_matrix(rule, p), p.dtype, (*own.items(),)].append((p, mine, source))
        for (matrix, dtype, own), members in same.items():
            laid += _kept(optimizer, {**group, **dict(own)}, matrix, dtype).restore_all(members)
    optimizer._stepper.laid = laid


def _kept(optimizer: SteppedOptimizer, group: dict[str, Any], matrix: bool, dtype: torch.dtype) -> _Kept:
    """What is kept of parameters of this dtype that are matrices, or of the others."""
    specs = kept_states(optimizer.rule, group, matrix)
    formats = formats_of(dtype, specs, optimizer.storage)
    idle = _names_of(spec for spec in optimizer.rule.states.values() if spec not in specs)
    return _Kept(formats, specs, SimpleNamespace(**group), idle)


def _names_of(specs: Iterable[StateSpec]) -> list[str]:
    """The keys of these in the state of a parameter."""
    return [name for spec in specs for name in (spec.name, f"{spec.name}_scale")]


def _by_parameter(optimizer: SteppedOptimizer) -> dict[int, dict[str, Any]]:
    loading = optimizer.__dict__.get("_loading")
    if not loading:
        return {}
    ids = chain.from_iterable(g["params"] for g in loading["param_groups"])
    params = chain.from_iterable(g["params"] for g in optimizer.param_groups)
    return {id(p): loading["state"][k] for k, p in zip(ids, params, strict=False) if k in loading["state"]}
