"""All optimizers, as a list shows them: told from their classes once for each version of the code, then kept as JSON.

To tell them takes seconds, since each class is traced and torch is imported; what is kept needs neither.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thalweg.explain.docstring import Words
from thalweg.native import disk_cache

FILE = "catalogue.json"
PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class CatalogueEntry:
    """An optimizer, or what stands around one.

    Attributes:
        facts: what programs are told (:meth:`thalweg.explain.Explanation.as_dict`).
        about: what the file of its family holds.
        text: what its docstring says.
    """

    facts: dict[str, Any]
    about: str
    text: Words

    @property
    def name(self) -> str:
        """Of the class."""
        return str(self.facts["name"])

    @property
    def family(self) -> str:
        """Name of the file that it stands in."""
        return str(self.facts["family"])


@dataclass(frozen=True)
class Catalogue:
    """The optimizers in the order of the alphabet, and what stands around any of them."""

    optimizers: list[CatalogueEntry]
    wrappers: list[CatalogueEntry]


def catalogue() -> Catalogue:
    """From the user's cache folder where this very code has put it there, else from the classes."""
    made_of = _made_of()
    kept = _kept(made_of)
    if kept is None:
        kept = _told()
        if made_of:
            text = json.dumps({"made_of": made_of, **asdict(kept)}, ensure_ascii=False)
            with contextlib.suppress(OSError):  # told again next time
                disk_cache.write(FILE, text.encode())
    return kept


def _kept(made_of: str) -> Catalogue | None:
    """None where there is none, it is damaged, or other code has made it."""
    try:
        found = json.loads(disk_cache.read(FILE) or b"")
        if found.pop("made_of") != made_of:
            return None
        return Catalogue(**{which: [_entry(**one) for one in entries] for which, entries in found.items()})
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _entry(facts: dict[str, Any], about: str, text: dict[str, Any]) -> CatalogueEntry:
    words: dict[str, Any] = {name: tuple(said) if isinstance(said, list) else said for name, said in text.items()}
    return CatalogueEntry(facts, about, Words(**words))


def _told() -> Catalogue:
    # torch is imported here
    from thalweg.explain.about import explain
    from thalweg.registry import optimizers, wrappers

    def entry(cls: Any) -> CatalogueEntry:
        one = explain(cls)
        return CatalogueEntry(one.as_dict(), one.about, one.text)

    return Catalogue(*(list(map(entry, known.values())) for known in (optimizers(), wrappers())))


def _made_of() -> str:
    """A hash of all that the catalogue comes from: our files, torch, Python. Empty where they cannot be read."""
    torch = importlib.util.find_spec("torch")
    files = sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".toml"))
    if torch is None or torch.origin is None or not files:  # such as in an archive
        return ""
    sha = hashlib.sha256(f"{sys.version} {sys.flags.optimize}".encode())  # without docstrings, there are no words
    try:
        for path in (*files, Path(torch.origin).with_name("version.py")):
            sha.update(f"\0{path}\0".encode() + path.read_bytes())
    except OSError:
        return ""
    return sha.hexdigest()
