"""What a user's file defines, as far as its text shows it: a file that is no task is not run to find that out."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path

#: methods of a task; a class with all of them and a base is meant to be one, wherever the base comes from
METHODS = frozenset({"model", "loss", "evaluate"})
#: files that are followed from base to base
DEEP = 5


def may_define_task(source: bytes, folder: Path) -> bool:
    """Whether a file has a function ``task``, or a class that may be a subclass of ``Task``.

    A class may be one if a base of it is called so, comes from this package's tasks, or is one in a file beside this
    one; or if it has a base and a task's methods. What is no Python is left to be run, which says so.
    """
    tree = _parsed(source)
    return tree is None or _has_function(tree) or any(_may_be_task(one, tree, folder, DEEP) for one in _classes(tree))


def binds(source: bytes, name: str) -> bool:
    """Whether a file may define or import ``name``."""
    tree = _parsed(source)
    return tree is None or name in _bound(tree) or "*" in _bound(tree)


def _parsed(source: bytes) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # running the file gives them
        try:
            return ast.parse(source)
        except (SyntaxError, ValueError):
            return None


def _top(tree: ast.AST) -> Iterator[ast.stmt]:
    """The statements that run when the file does, those within if, try, with and loops too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.stmt):
            yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _top(node)


def _bound(tree: ast.Module) -> set[str]:
    """The names that the file's own statements bind."""
    found: set[str] = set()
    for node in _top(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


def _has_function(tree: ast.Module) -> bool:
    """Whether ``task`` is a function here: defined, imported by name, or put together from others."""
    for node in _top(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "task":
            return True
        if isinstance(node, ast.ImportFrom) and any((a.asname or a.name) == "task" for a in node.names):
            return True
        named = [one.id for one in getattr(node, "targets", ()) if isinstance(one, ast.Name)]
        if "task" in named and isinstance(getattr(node, "value", None), ast.Lambda | ast.Name | ast.Attribute):
            return True
    return False


def _classes(tree: ast.Module) -> Iterator[ast.ClassDef]:
    yield from (node for node in _top(tree) if isinstance(node, ast.ClassDef))


def _may_be_task(node: ast.ClassDef, tree: ast.Module, folder: Path, deep: int) -> bool:
    methods = {one.name for one in node.body if isinstance(one, ast.FunctionDef)}
    bases = [ast.unparse(base) for base in node.bases]
    return bool(bases and methods >= METHODS) or any(_is_task(base, tree, folder, deep) for base in bases)


def _is_task(base: str, tree: ast.Module, folder: Path, deep: int) -> bool:
    """Whether the base of a class, as it is spelt, may be a task."""
    root, name = base.partition(".")[0], base.rpartition(".")[2]
    if name == "Task":
        return True
    if any(one.name == base and _may_be_task(one, tree, folder, deep - 1) for one in _classes(tree) if deep):
        return True
    for bound, original, module in _imported(tree):
        if bound == root and module.startswith("thalweg.lab.tasks"):
            return True
        if bound == root and deep and (beside := _beside(module, folder)) is not None:
            wanted = original if base == root else name
            there = _parsed(beside.read_bytes())
            if there is None or any(
                one.name == wanted and _may_be_task(one, there, folder, deep - 1) for one in _classes(there)
            ):
                return True
    return False


def _imported(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Names that are imported: as they are bound, as they were called, and the module that each comes from."""
    for node in _top(tree):
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from ((alias.asname or alias.name, alias.name, module) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.asname or alias.name.partition(".")[0], "", alias.name) for alias in node.names)


def _beside(module: str, folder: Path) -> Path | None:
    """The file of a module that lies beside the user's file; None if there is none."""
    path = folder.joinpath(*module.lstrip(".").split("."))
    found = [file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()]
    return found[0] if found else None
