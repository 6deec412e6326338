"""The user's own files behind a file: itself, what it imports anywhere in its text, and what those import."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import itertools
import sys
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

_INSTALLED = tuple(sysconfig.get_path(which) for which in ("stdlib", "platstdlib", "purelib", "platlib"))


def own(name: str, file: str) -> bool:
    """Whether a module is the user's code, or part of a built-in task."""
    if name.split(".")[0] == "thalweg":
        return name.startswith("thalweg.lab.tasks.")
    return not file.startswith(_INSTALLED) and not {"site-packages", "dist-packages"} & set(Path(file).parts)


def code(file: str) -> str:
    """Hash of the user's own files behind ``file``; wherever they lie, and one that cannot be read counts as empty."""
    texts = set(behind(str(Path(file).expanduser().resolve())).values())
    return hashlib.sha256(b"".join(sorted(hashlib.sha256(text).digest() for text in texts))).hexdigest()[:16]


def behind(file: str, name: str = "") -> dict[str, bytes]:
    """The texts of ``file`` (module ``name``, if others import it) and of the user's own files that it needs.

    They are looked for, not imported: what a function imports may not be meant to run yet.
    """
    folder = str(Path(file).parent)
    found: dict[str, bytes] = {}
    todo = [(name, file)]
    while todo:
        name, file = todo.pop()
        if file not in found:
            found[file] = _text(file)
            package = name if Path(file).stem == "__init__" else name.rpartition(".")[0]
            for other in _imported(found[file], package):
                place, _ = _find(other, folder)
                if place and own(other, place):
                    todo.append((other, place))
    return found


def _text(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError:
        return b""


def _imported(text: bytes, package: str) -> Iterator[str]:
    """What may be a module among the names that a text imports, with the packages around it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # running the file gives them
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError):  # half an edit, or no Python
            return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        start = ""
        if isinstance(node, ast.ImportFrom):
            start = "." * node.level + (f"{node.module}." if node.module else "")
        for alias in node.names:
            with contextlib.suppress(ImportError):  # beyond the topmost package: running it will say so
                whole = importlib.util.resolve_name(start + alias.name, package)
                yield from itertools.accumulate(whole.split("."), "{}.{}".format)


def _find(name: str, folder: str) -> tuple[str | None, Sequence[str] | None]:
    """File of a module, and where its submodules lie; the folder of the user's file comes last, as when it runs."""
    if (module := sys.modules.get(name)) is not None:
        return getattr(module, "__file__", None), getattr(module, "__path__", None)
    if parent := name.rpartition(".")[0]:
        folders = _find(parent, folder)[1]
        spec = PathFinder.find_spec(name, folders) if folders is not None else None
    else:
        spec = importlib.util.find_spec(name) or PathFinder.find_spec(name, [folder])
    if spec is None:
        return None, None
    return spec.origin if spec.has_location else None, spec.submodule_search_locations
