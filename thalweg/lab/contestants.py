"""Who may race: the field by name, and whatever else an entry of ``--optimizers`` names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from thalweg import registry
from thalweg._base.errors import ThalwegError, nearest, unknown_name
from thalweg.engine.optimizer import Declared
from thalweg.lab import classes, labels, trial
from thalweg.lab.contestant import Contestant, Point, Wrap
from thalweg.lab.entries import Entry, Range, compact, read
from thalweg.lab.field import CONTESTANTS

__all__ = ["CONTESTANTS", "Contestant", "parse", "parse_all"]


def parse(entry: str) -> Contestant:
    """A contestant from what people type.

    - ``adamw``: one of :data:`CONTESTANTS`, or any other optimizer of the library;
    - ``my_file.py:Mine``, ``torch.optim:NAdam``: any ``torch.optim.Optimizer`` class of a file, or of a package;
    - ``adamw(betas=(0.9, 0.99))``: settings that are fixed; the learning rate is tuned as for all;
    - ``adamw(lr=1e-4..1e-2)``: it is tuned within this range;
    - ``adamw(lr=3e-4, weight_decay=0.1)``: a present recipe, since its learning rate is one number. It is not tuned:
      whatever it does not say is the default of the class, one learning rate and one decay serve all parameters;
    - ``lookahead(adamw, k=5)``: a wrapper of the library around any of these;
    - ``twin=adamw``, ``twin=adamw@50``: under another name, and with other verdict seeds.

    Raises:
        ThalwegError: for an unknown optimizer (the nearest names are offered), one that a race cannot train, settings
            that it does not take, a label that is another one's name, or another form.
    """
    wanted = read(entry)
    found = _contestant(wanted, entry)
    label = wanted.label or found.label
    if wanted.label:
        labels.refuse_borrowed(label, found)
    return replace(found, label=label, seed_offset=wanted.offset)


def parse_all(entries: Iterable[str], baseline: str) -> list[Contestant]:
    """The field of a race, the baseline first.

    Raises:
        ThalwegError: for two of one label, one that is called like another's class, or a baseline that does not race.
    """
    field_ = [parse(entry) for entry in entries]
    labels.refuse_confusing(field_)
    names = [c.label for c in field_]
    wanted = compact(baseline)
    if wanted not in names:
        raise ThalwegError(f"--baseline {baseline!r} is not among the optimizers of this race: {', '.join(names)}")
    return sorted(field_, key=lambda c: c.label != wanted)


def _contestant(entry: Entry, typed: str) -> Contestant:
    """What an entry names, with its settings; around it the wrapper, if it is one."""
    wrapper = _wrapper(entry.name)
    if wrapper is None:
        if entry.inner:
            names = ", ".join(name.lower() for name in registry.wrappers())
            raise ThalwegError(f"--optimizers: {typed!r}: {entry.name} wraps no other optimizer; wrappers are: {names}")
        return _with_settings(_named(entry.name), entry, typed)
    name = wrapper.__name__
    if entry.inner is None:
        raise ThalwegError(f"{name} does not race alone: it wraps another optimizer, as in {name.lower()}(adamw)")
    inner = _contestant(entry.inner, typed)
    _refuse_unknown(wrapper, entry.settings, typed)
    outside = Wrap(name, entry.settings)
    written = ",".join((inner.label, *entry.written))
    wrapped = replace(inner, label=f"{name.lower()}({written})", wraps=(outside, *inner.wraps))
    return _tried(wrapped)


def _wrapper(name: str) -> type[torch.optim.Optimizer] | None:
    wrappers = {key.lower(): one for key, one in registry.wrappers().items()}
    return wrappers.get(name.lower())


def _named(name: str) -> Contestant:
    """One of the field, or one that has no row of its own: its search starts at its default learning rate."""
    if (known := CONTESTANTS.get(name.lower())) is not None:
        return known
    home, _, cls = name.rpartition(":")
    if home.endswith(".py"):
        found = Contestant(labels.of_file(home, cls), f"{Path(home).expanduser().resolve()}:{cls}", math.nan)
    elif home:
        found = Contestant(name, name, math.nan)
    else:
        try:
            found = Contestant(name.lower(), registry.find(name).__name__, math.nan)
        except ThalwegError:
            raise unknown_name("optimizer", name, {*CONTESTANTS, *map(str.lower, registry.optimizers())}) from None
    if hasattr(found.rule, "take_hessian"):
        raise ThalwegError(
            f"{found.rule.__name__} does not race: it needs estimates of curvature, which the loop does not make"
        )
    return replace(found, code=classes.code(found.optimizer))


def _with_settings(known: Contestant, entry: Entry, typed: str) -> Contestant:
    """With what stands in the call, tried on a tiny model unless it is one of the field as it stands there."""
    if not entry.settings and known in CONTESTANTS.values():
        return known
    rule, given = known.rule, dict(entry.settings)
    _refuse_unknown(rule, given, typed)
    lr = given.pop("lr", None)
    decay = given.pop("weight_decay", None)
    for key, value in given.items():
        if isinstance(value, Range):
            raise ThalwegError(f"--optimizers: {typed!r}: {key}: a range is searched for lr alone; expected one value")
    if decay is not None and not (_number(decay) and decay >= 0):
        raise ThalwegError(f"--optimizers: {typed!r}: weight_decay={decay!r}: expected a number of at least 0")
    label = f"{known.label}({','.join(entry.written)})" if entry.written else known.label
    found = replace(known, label=label, weight_decay=decay)
    if lr is None or isinstance(lr, Range):
        return _tuned(found, given, lr, typed)
    if not (_number(lr) and lr > 0):
        raise ThalwegError(
            f"--optimizers: {typed!r}: lr={lr!r}: expected a number above 0, or a range as in 1e-4..1e-2"
        )
    return _recipe(found, given, float(lr))


def _tuned(known: Contestant, given: Mapping[str, Any], within: Range | None, typed: str) -> Contestant:
    """The learning rate is searched for; what is given is fixed, beside what the field has fixed."""
    rule = known.rule
    settings = {**known.settings, **given}
    knobs = {key: values for key, values in known.knobs.items() if key not in given}
    if not issubclass(rule, Declared) and "decoupled_weight_decay" in (classes.arguments(rule) or ()):
        settings.setdefault("decoupled_weight_decay", True)  # as everyone's in a race
    if within is not None:
        if not 0 < within.low < within.high < math.inf:
            raise ThalwegError(f"--optimizers: {typed!r}: lr={within.low:g}..{within.high:g}: expected 0 < low < high")
        centre: float | None = math.sqrt(within.low * within.high)
    else:
        centre = classes.default_lr(rule) if math.isnan(known.centre) else known.centre
    if not centre:
        takes = "lr" in (classes.arguments(rule) or ("lr",))
        hint = f"; or say where to: {known.label}(lr=1e-4..1e-2)" if takes else ""
        raise ThalwegError(
            f"{rule.__name__} does not race: found lr = {centre}; expected a default above 0 to search from{hint}"
        )
    limits = (within.low, within.high) if within else None
    return _tried(replace(known, centre=float(centre), settings=settings, knobs=knobs, lr_range=limits))


def _recipe(known: Contestant, given: Mapping[str, Any], lr: float) -> Contestant:
    """What runs as it was written: the class with its own defaults, where the name says no more than the class."""
    fixed = {} if labels.same(known.label.partition("(")[0], known.rule.__name__) else known.settings
    recipe = replace(known, centre=lr, settings={**fixed, **given}, knobs={}, tuned=False)
    if recipe.weight_decay is None:
        recipe = replace(recipe, weight_decay=trial.default_decay(recipe, Point(lr)))
    return _tried(recipe)


def _tried(entered: Contestant) -> Contestant:
    found = trial.traits(entered, Point(entered.centre, weight_decay=entered.weight_decay or 0.0))
    if found.decay == "none" and entered.weight_decay:
        raise ThalwegError(f"--optimizers: {entered.label}: {entered.rule.__name__} has no weight decay; leave it out")
    return replace(entered, traits=found)


def _refuse_unknown(rule: type[torch.optim.Optimizer], settings: Mapping[str, Any], typed: str) -> None:
    """Refuse a setting that a class does not take."""
    known = classes.arguments(rule)
    for key in settings if known is not None else ():
        if key not in (known or ()) or key == "backend":
            taken: Sequence[str] = [name for name in known or () if name != "backend"]
            near = nearest(key, taken)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it takes: {', '.join(taken) or 'none'}"
            raise ThalwegError(f"--optimizers: {typed!r}: {rule.__name__} has no setting {key!r}; {hint}")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
