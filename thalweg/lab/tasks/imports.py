"""The user's own files behind a file: itself, what it imports anywhere in its text, and what those import."""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.util
import itertools
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

_INSTALLED = tuple(sysconfig.get_path(which) for which in ("stdlib", "platstdlib", "purelib", "platlib"))
_WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


#: files whose syntax trees are not read again while their text is the same: every run looks at all of them, twice
REMEMBERED = 2048


def own(name: str, file: str) -> bool:
    """Whether a module is the user's code, or part of a built-in task."""
    if name.split(".")[0] == "thalweg":
        return name.startswith("thalweg.lab.tasks.")
    return not installed(file)


def installed(file: str) -> bool:
    """Whether a file belongs to the standard library or to an installed package."""
    return file.startswith(_INSTALLED) or bool({"site-packages", "dist-packages"} & set(Path(file).parts))


def code(file: str) -> str:
    """Hash of what the user's own files behind ``file`` mean.

    It is the same wherever they lie; one that cannot be read counts as empty.
    """
    return of_meanings(behind(str(Path(file).expanduser().resolve())).values())


def of_meanings(texts: Iterable[bytes]) -> str:
    """Hash of what Python files mean, whatever their order."""
    meanings = {_mark(text) for text in texts}
    return hashlib.sha256(b"".join(sorted(meanings))).hexdigest()[:16]


@functools.lru_cache(maxsize=REMEMBERED)
def _mark(text: bytes) -> bytes:
    return hashlib.sha256(meaning(text)).digest()


def meaning(text: bytes) -> bytes:
    """What a Python file means: its syntax tree without docstrings, so that comments and layout are not part of it.

    What cannot be parsed is its own meaning.
    """
    tree = _parsed(text)
    if tree is None:
        return text
    for node in ast.walk(tree):
        if isinstance(node, _WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return ast.dump(tree).encode()


def packages(texts: Iterable[bytes]) -> list[tuple[str, str]]:
    """The installed packages that Python files import, by the names of their modules, with their versions."""
    names = {name.split(".")[0] for text in texts for name in _imported(text, "")}
    found = ((name, _version(name)) for name in sorted(names - sys.stdlib_module_names - {"thalweg"}))
    return [(name, version) for name, version in found if version]


@functools.cache
def _version(module: str) -> str:
    """Of the distribution that a module comes from, which often has the same name; empty if there is none."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(module)
    return " ".join(sorted({importlib.metadata.version(one) for one in _distributions().get(module, ())}))


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """The distributions behind each module; it takes some tenths of a second to find out."""
    return importlib.metadata.packages_distributions()


def behind(file: str, name: str = "") -> dict[str, bytes]:
    """The texts of ``file`` (module ``name``, if others import it) and of the user's own files that it needs.

    They are looked for, not imported: what a function imports may not be meant to run yet.
    """
    return {path: text for path, (_, text) in modules_behind(file, name).items()}


def modules_behind(file: str, name: str = "") -> dict[str, tuple[str, bytes]]:
    """The same, each with the name by which it is imported; that of ``file`` is as its package says, or as given."""
    package, folder = home(file, _text(file))
    if package and Path(file).stem != "__init__":
        name = f"{package}.{Path(file).stem}"
    found: dict[str, tuple[str, bytes]] = {}
    todo = [(name, file)]
    while todo:
        name, file = todo.pop()
        if file not in found:
            text = _text(file)
            found[file] = name, text
            package = name if Path(file).stem == "__init__" else name.rpartition(".")[0]
            for other in _imported(text, package):
                place, _ = _find(other, folder)
                if place and own(other, place):
                    todo.append((other, place))
    return found


def home(file: str, text: bytes) -> tuple[str, str]:
    """The package that a file with relative imports belongs to, and the folder from which it is imported.

    A file without relative imports stands alone, whatever lies around it: then the package is empty, and the folder is
    its own.
    """
    folder, names = Path(file).parent, list[str]()
    while _relative(text) and (folder / "__init__.py").is_file() and folder.name:
        names.insert(0, folder.name)
        folder = folder.parent
    return ".".join(names), str(folder)


@functools.lru_cache(maxsize=REMEMBERED)
def _relative(text: bytes) -> bool:
    tree = _parsed(text)
    return any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree)) if tree else False


def source(file: str | Path) -> bytes:
    """The text of a source file, read here so that it is not taken for data (see :mod:`thalweg.lab.tasks.opened`)."""
    with open(file, "rb") as opened:
        return opened.read()


def _text(file: str) -> bytes:
    try:
        return source(file)
    except OSError:
        return b""


def _parsed(text: bytes) -> ast.Module | None:
    """The syntax tree; None of half an edit, or of what is no Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # running the file gives them
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError):
            return None


@functools.lru_cache(maxsize=REMEMBERED)
def _imported(text: bytes, package: str) -> tuple[str, ...]:
    """What may be a module among the names that a text imports, with the packages around it."""
    return tuple(dict.fromkeys(_names(text, package)))


def _names(text: bytes, package: str) -> Iterator[str]:
    tree = _parsed(text)
    for node in ast.walk(tree) if tree else ():
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
