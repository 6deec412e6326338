"""Checkpoints across formats: what was saved in one, torch's among them, loads in another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from itertools import chain
from types import SimpleNamespace
from typing import Any

from torch import Tensor

from thalweg.engine import fitting
from thalweg.engine.protocol import SteppedOptimizer
from thalweg.ir import fields
from thalweg.ir.trace import is_matrix, kept_states
from thalweg.runtime.formats import Format
from thalweg.runtime.state import MASTER, conform, formats_of


@contextlib.contextmanager
def formats_kept(optimizer: SteppedOptimizer) -> Iterator[None]:
    """Remember the state that ``load_state_dict`` is given, before torch casts all of it to the parameters' dtypes."""
    loaded: dict[str, Any] = {}

    def remember(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        loaded.update(fitted(optimizer, state_dict))
        return {**loaded}

    handle = optimizer.register_load_state_dict_pre_hook(remember)
    optimizer.__dict__["_loading"] = loaded
    try:
        yield
    finally:
        handle.remove()
        del optimizer.__dict__["_loading"]


def without_functions(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group as it is saved: a function in it would not load with ``weights_only``, or not be there any more."""
    return {name: value for name, value in group.items() if not callable(value)}


def _with_functions(saved: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
    """A saved group with the functions of this one, where it has nothing in their place."""
    return {**{name: value for name, value in group.items() if callable(value)}, **saved}


def fitted(optimizer: SteppedOptimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint in the order of the optimizer's parameters.

    Raises:
        ValueError: unless it is one of the same rule and of these parameters.
    """
    fitting.check_keys(state_dict)
    fitting.check_transforms(optimizer.rule, state_dict)
    state_dict = fitting.by_name(state_dict, optimizer.param_groups)
    pairs = zip(state_dict["param_groups"], optimizer.param_groups, strict=False)
    own = [_with_functions(*pair) for pair in pairs]
    more = state_dict["param_groups"][len(own) :]  # which torch refuses
    state_dict = {**state_dict, "param_groups": [*own, *more]}
    rule = optimizer.rule
    owners: dict[Any, tuple[Tensor, dict[str, Any]]] = {}
    for mine, theirs in zip(optimizer.param_groups, state_dict["param_groups"], strict=False):
        numbered = zip(theirs["params"], mine["params"], strict=False)
        owners |= {number: (p, {**mine, **theirs}) for number, p in numbered}

    def needed(number: Any) -> list[str]:
        if number not in owners:
            return []
        p, group = owners[number]
        found = kept_states(rule, group, is_matrix(rule, p))
        return [spec.name for spec in found if spec.kind not in ("aside", "shared")]

    specs = rule.states.values()
    names = [name for spec in specs for name in (spec.name, f"{spec.name}_scale")]
    hypers = [*rule.hypers, *(spec.name for spec in specs if spec.kind == "shared")]
    known = [*names, *optimizer.kept_besides, MASTER]
    fitting.check_rule(optimizer.kin, fields.kindred(rule), hypers, known, needed, state_dict)
    return state_dict


def restore(optimizer: SteppedOptimizer) -> None:
    """Bring every state to the optimizer's format; on the way in from a checkpoint, from what was saved."""
    saved = _by_parameter(optimizer)
    rule = optimizer.rule
    for group in optimizer.param_groups:
        specs_of = {matrix: kept_states(rule, group, matrix) for matrix in (True, False)}
        formats: dict[Any, dict[str, Format]] = {}
        h = SimpleNamespace(**group)
        for p in group["params"]:
            mine = optimizer.state.get(p)
            if mine:
                kind = is_matrix(rule, p), p.dtype
                if kind not in formats:
                    formats[kind] = formats_of(p.dtype, specs_of[kind[0]], optimizer.storage)
                conform(p, formats[kind], specs_of[kind[0]], h, mine, saved.get(id(p)))


def _by_parameter(optimizer: SteppedOptimizer) -> dict[int, dict[str, Any]]:
    loading = optimizer.__dict__.get("_loading")
    if not loading:
        return {}
    ids = chain.from_iterable(g["params"] for g in loading["param_groups"])
    params = chain.from_iterable(g["params"] for g in optimizer.param_groups)
    return {id(p): loading["state"][k] for k, p in zip(ids, params, strict=False) if k in loading["state"]}
