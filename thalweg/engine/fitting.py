"""Whether a checkpoint fits the optimizer that it is loaded into: it is one, of the same rule, and whose is which.

What our optimizers save names its rule (``RULE``). A checkpoint of torch, or one that passed through
`torch.distributed.checkpoint`, does not: it is told by the states and hyperparameters that are in it.
"""

from __future__ import annotations

import functools
import inspect
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch

from thalweg._base.errors import bad_argument
from thalweg.ir.transforms import STANDARD

#: key of the rule in a checkpoint
RULE = "rule"
#: key, in what stands there, of the transforms of a list
TRANSFORMS = "transforms"
#: under which names wrappers keep theirs beside the states and hyperparameters of the optimizer: those of
#: `thalweg.wrap`, which may not be imported where their checkpoint is loaded, then those that a user has defined
PREFIXES = {"asam", "ema", "emanesterov", "gpa", "lookahead", "mechanic", "sam", "snoo"}
#: what schedulers, loggers and this library write into groups, whatever the rule; some are other rules' hyperparameters
ANYBODYS = frozenset(
    {"params", "param_names", "name", "maximize", "decoupled_weight_decay", "seed", "updates"}
    | {"initial_lr", "first_lr", "max_lr", "min_lr", "swa_lr", "max_momentum", "base_momentum"}
    | {"foreach", "fused", "capturable", "differentiable"}
)
#: stands in the groups of all our optimizers, and of none of torch's
OURS = "clip_global_norm"
#: what data parallelism and `torch.compile` put before names of parameters
AROUND = ("module.", "_orig_mod.")

#: the states that a parameter with this number in the checkpoint must have here
Needed = Callable[[Any], Iterable[str]]


def check_form(state_dict: Any) -> None:
    """Refuse what is no optimizer's checkpoint.

    Raises:
        TypeError: for a path or anything else that is no dict.
        ValueError: for a dict of something else.
    """
    if isinstance(state_dict, (str, os.PathLike)):
        raise TypeError(
            f"state_dict={str(state_dict)!r}: expected the dict that an optimizer's state_dict() gave, not a path. "
            "Read the file first: optimizer.load_state_dict(torch.load(path))"
        )
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"state_dict={state_dict!r:.200}: expected the dict that an optimizer's state_dict() gave")


def check_keys(state_dict: Mapping[str, Any]) -> None:
    """Refuse a dict without an optimizer's state and groups: a model's, or one that holds several.

    Raises:
        ValueError: that says which it looks like.
    """
    if "state" in state_dict and "param_groups" in state_dict:
        return
    inner = [key for key, x in state_dict.items() if isinstance(x, Mapping) and "param_groups" in x]
    tensors = bool(state_dict) and all(isinstance(x, torch.Tensor) for x in state_dict.values())
    keys = ", ".join(map(repr, list(state_dict)[:5])) + (", …" if len(state_dict) > 5 else "")
    raise ValueError(
        f"state_dict: expected what an optimizer's state_dict() gave, with 'state' and 'param_groups'; it has {keys}. "
        + (f"Load state_dict[{inner[0]!r}]" if inner else "")
        + ("It is a model's: load it with model.load_state_dict" if tensors else "")
    )


def filled(state: Mapping[Any, Any]) -> dict[Any, Any]:
    """The states without what was not saved, for which torch puts ``{}`` where a state dict was flattened."""
    full = {number: {key: x for key, x in kept.items() if not _is_nothing(x)} for number, kept in state.items()}
    return {number: kept for number, kept in full.items() if kept or not state[number]}


def _is_nothing(x: Any) -> bool:
    return isinstance(x, Mapping) and not x


def check_rule(
    mine: Mapping[str, str],
    kin: Collection[str],
    hypers: Collection[str],
    states: Collection[str] | None,
    needed: Needed,
    state_dict: Mapping[str, Any],
) -> None:
    """Refuse a checkpoint of another rule: its learning rate and its states do not mean the same here.

    Args:
        mine: what the optimizer writes under ``RULE``.
        kin: names of classes whose checkpoints are its own too.
        hypers: keys that its groups may have.
        states: all states that it may keep; None where that is not known.
        needed: gives the states that it must find for a parameter of this number.
        state_dict: the checkpoint.

    Raises:
        ValueError: that names both rules, or what in the checkpoint does not fit, before anything changes.
    """
    name, theirs = mine["name"], state_dict.get(RULE)
    groups: list[dict[str, Any]] = state_dict["param_groups"]
    if theirs is not None:
        if theirs["kin"] != mine["kin"]:
            _refuse(name, str(theirs["name"]), [])
        return
    likely = [] if any(OURS in group for group in groups) else _likely(groups)
    if likely and not {*likely} & {*kin}:
        _refuse(name, " or ".join(likely), [key for kept in state_dict["state"].values() for key in kept])
    foreign = [key for group in groups for key in group if key in _hypers_of_torch() - ANYBODYS - {*hypers}]
    if states is not None:
        held = {number: {k for k in kept if not _wrappers(k)} for number, kept in state_dict["state"].items()}
        foreign += sorted({k for kept in held.values() for k in kept if k not in states})
        if not foreign:
            foreign = [f"no {k}" for number, kept in held.items() if kept for k in needed(number) if k not in kept]
    foreign = [key for key in dict.fromkeys(foreign) if not _wrappers(key)]
    if foreign:
        _refuse(name, " or ".join(likely), foreign)


def check_transforms(rule: Any, state_dict: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that was saved with transforms that the optimizer lacks; warn of those that it lacks itself.

    Those that every optimizer has as keywords may come and go: what they do stands in the groups.

    Raises:
        ValueError: that names them, before anything changes.
    """
    if RULE not in state_dict:  # torch's, or passed through others' hands: its states tell
        return
    everybodys = {t.__name__ for t in STANDARD}
    theirs = [name for name in state_dict[RULE].get(TRANSFORMS, "").split(", ") if name not in {"", *everybodys}]
    mine = [t.__name__ for t in rule.listed if t.__name__ not in everybodys]
    name = rule.__name__
    if more := [t for t in theirs if t not in mine]:
        raise bad_argument(
            "state_dict", f"a checkpoint of {name} with transforms={more}", "those of this optimizer: it has "
            f"{', '.join(mine) or 'none'}", f"Build it with transforms=[{', '.join(theirs)}], each with its values",
        )  # fmt: skip
    if less := [t for t in mine if t not in theirs]:
        warnings.warn(
            f"the checkpoint was saved without transforms={less}: they begin with the next step, with the values that "
            f"{name} was given",
            stacklevel=2,
        )


def _refuse(name: str, other: str, foreign: Sequence[str]) -> None:
    what = f" ({', '.join(list(dict.fromkeys(foreign))[:6])})" if foreign else ""
    raise ValueError(
        f"state_dict: a checkpoint of {other or 'another rule'}{what}; expected one of {name}: its learning rate and "
        f"states mean something else. Nothing was loaded. Keep the model's weights, and begin {name} with its own "
        f"hyperparameters{f', or go on with {other}' if other else ''}"
    )


def _wrappers(key: Any) -> bool:
    return any(str(key).startswith(f"{prefix}_") for prefix in PREFIXES)


@functools.cache
def _torchs() -> dict[str, frozenset[str]]:
    """The names of the hyperparameters of each of torch's optimizers."""
    found = {}
    for name, cls in vars(torch.optim).items():
        if isinstance(cls, type) and issubclass(cls, torch.optim.Optimizer) and cls is not torch.optim.Optimizer:
            found[name] = frozenset(inspect.signature(cls).parameters) - {"params"}
    return found


def _hypers_of_torch() -> frozenset[str]:
    return frozenset(chain.from_iterable(_torchs().values()))


def _likely(groups: Sequence[Mapping[str, Any]]) -> list[str]:
    """The optimizers of torch that may have saved these hyperparameters.

    They are those with the most hyperparameters among the ones whose hyperparameters are all here; none where that
    number is too small to tell them apart.
    """
    keys = set(groups[0]) | ANYBODYS if groups else set()
    sizes = {name: len(hypers - ANYBODYS) for name, hypers in _torchs().items() if hypers <= keys}
    return [name for name, size in sizes.items() if size == max(sizes.values()) > 2]


# -- whose is which --------------------------------------------------------------------------------------------------


def by_name(state_dict: dict[str, Any], groups: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The checkpoint with its groups and parameters in the order of ``groups``, where both have ``param_names``.

    Where one has none, or the number of groups differs, or all names do, it is as it was: torch goes by position.

    Raises:
        ValueError: for parameters that are missing or too many, or stand in another group, before anything changes.
    """
    saved: Sequence[dict[str, Any]] = state_dict["param_groups"]
    if len(saved) != len(groups) or not all("param_names" in group for group in (*saved, *groups)):
        return state_dict
    theirs, ours = ([[*map(_bare, group["param_names"])] for group in side] for side in (saved, groups))
    if theirs == ours:
        return state_dict
    known, wanted = (list(chain.from_iterable(side)) for side in (theirs, ours))
    if len(set(known)) < len(known) or len(set(wanted)) < len(wanted):
        return state_dict
    if not set(known) & set(wanted):
        warnings.warn(
            f"the checkpoint's parameters have other names ({known[0]!r}, here {wanted[0]!r}): they are taken in order",
            stacklevel=2,
        )
        return state_dict
    if set(known) != set(wanted):
        _refuse_names([n for n in wanted if n not in known], [n for n in known if n not in wanted])
    return {**state_dict, "param_groups": [_matching(names, saved, theirs) for names in ours]}


def _matching(names: Sequence[str], saved: Sequence[dict[str, Any]], theirs: Sequence[Sequence[str]]) -> dict[str, Any]:
    """The saved group that holds these parameters, with its parameters in this order."""
    for group, known in zip(saved, theirs, strict=True):
        if set(known) == set(names):
            number = dict(zip(known, group["params"], strict=True))
            spelt = dict(zip(known, group["param_names"], strict=True))
            return {**group, "params": [number[n] for n in names], "param_names": [spelt[n] for n in names]}
    raise bad_argument(
        "state_dict", f"groups {[list(known)[:3] for known in theirs]}", f"a group of {list(names)[:5]}",
        "Put the parameters into the groups in which they were saved",
    )  # fmt: skip


def _refuse_names(missing: Sequence[str], more: Sequence[str]) -> None:
    parts = [f"it lacks {', '.join(missing[:5])}"] if missing else []
    parts += [f"it has {', '.join(more[:5])}, which the optimizer has not"] if more else []
    raise ValueError(
        f"state_dict: parameters are found by name, and {'; '.join(parts)}. Nothing was loaded. Build the optimizer "
        "with the parameters that were saved, or take param_names out of the checkpoint's groups to go by position"
    )


def _bare(name: str) -> str:
    """A parameter's name without the prefixes of wrappers around its model, such as ``module.``."""
    while found := next((around for around in AROUND if name.startswith(around)), None):
        name = name.removeprefix(found)
    return name.replace("._orig_mod.", ".")
