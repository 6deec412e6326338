"""The words around an explanation, in English and in Chinese. A text that has no translation stays English."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any

from thalweg.explain import not_here
from thalweg.explain.docstring import Words


@dataclass(frozen=True)
class Language:
    """What replaces an English text.

    Attributes:
        name: ``"en"`` or ``"zh"``.
        phrases: headings and short phrases.
        families: what each file of optimizers is about, by its name.
        docs: of hyperparameters and states.
        entries: idea, adds, strength, weakness, notes and how it differs, of each optimizer, by its name.
    """

    name: str = "en"
    phrases: dict[str, str] = field(default_factory=dict)
    families: dict[str, str] = field(default_factory=dict)
    docs: dict[str, str] = field(default_factory=dict)
    entries: dict[str, dict[str, str]] = field(default_factory=dict)

    def __call__(self, phrase: str, **values: Any) -> str:
        """A phrase, with the values that it speaks of."""
        return self.phrases.get(phrase, phrase).format(**values)

    def listed(self, names: Iterable[str]) -> str:
        """Names, one after the other."""
        return functools.reduce(lambda one, another: self("{one}, {another}", one=one, another=another), names)

    def family(self, name: str, text: str) -> str:
        """What a file of optimizers is about."""
        return self.families.get(name, text)

    def doc(self, text: str) -> str:
        """What a hyperparameter or a state is."""
        return self.docs.get(text, text)

    def words(self, name: str, text: Words) -> Words:
        """The text of an optimizer, its formulas above its notes; what is not translated of these is left out."""
        entry = self.entries.get(name)
        if not entry:
            return text
        notes = tuple(filter(None, entry.get("notes", "").strip().split("\n\n")))
        return replace(
            text,
            notes=notes,
            body="\n\n".join((*(f"$$\n{math}\n$$" for math in text.math), *notes)),
            idea=entry.get("idea", text.idea),
            adds=entry.get("adds", text.adds),
            strength=entry.get("strength", text.strength),
            weakness=entry.get("weakness", text.weakness),
            differs=entry.get("differs", ""),
        )


ENGLISH = Language()


@functools.cache
def chinese() -> Language:
    """The catalogue in ``zh.toml``, with what ``not_here.toml`` says."""
    text = resources.files("thalweg.explain").joinpath("zh.toml").read_text(encoding="utf-8")
    found = tomllib.loads(text)
    phrases = {**found["phrases"], **not_here.in_chinese()}
    return Language("zh", phrases, found["families"], found["docs"], found["optimizers"])
