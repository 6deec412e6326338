"""Methods that the library leaves out: what each is, why, and what to use instead; from ``not_here.toml``."""

from __future__ import annotations

import functools
import re
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class LeftOut:
    """One method: what it is, why it is not here, what to use instead, and where it comes from."""

    name: str
    what: str
    why: str
    instead: str
    source: str


@functools.cache
def left_out() -> dict[str, LeftOut]:
    """Every method that is left out, by its name, in the order of the file."""
    found = _read()
    return {
        name: LeftOut(name, m["what"], found["reasons"][m["why"]][0], m["instead"], m["source"])
        for name, m in found["methods"].items()
    }


def find_left_out(name: str) -> LeftOut | None:
    """The one of a name; case and punctuation do not count."""
    return {plain(key): one for key, one in left_out().items()}.get(plain(name))


def in_chinese() -> dict[str, str]:
    """What each is and each reason, by the English text."""
    found = _read()
    return {**{m["what"]: m["zh"] for m in found["methods"].values()}, **dict(found["reasons"].values())}


def plain(name: str) -> str:
    """A name without case and punctuation."""
    return re.sub(r"[\W_]", "", name.lower())


@functools.cache
def _read() -> dict[str, Any]:
    text = resources.files("thalweg.explain").joinpath("not_here.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
