"""The user's files travel with a run: the task's, the optimizers', and what these import of the user's own."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from thalweg.lab import classes
from thalweg.lab.contestant import Contestant
from thalweg.lab.plan import RacePlan
from thalweg.lab.run import Spec
from thalweg.lab.tasks import imports
from thalweg.native import disk_cache

#: folder of the user's cache where they are laid out
FOLDER = "luggage"


@dataclass(frozen=True)
class GivenFile:
    """A file that a race was given.

    Attributes:
        path: where it lies on the machine that planned the race.
        code: hash of what it and the files behind it mean.
        place: where it lies in the luggage.
    """

    path: str
    code: str
    place: str


@dataclass(frozen=True)
class Luggage:
    """Files of the user's.

    Attributes:
        roots: what the race was given.
        files: place, with ``/`` → text; modules lie where an import from the luggage's folder finds them.
    """

    roots: tuple[GivenFile, ...] = ()
    files: tuple[tuple[str, bytes], ...] = ()

    @functools.cached_property
    def name(self) -> str:
        """Hash of the content."""
        return hashlib.sha256(repr(self.files).encode()).hexdigest()[:24]


def packed(plan: RacePlan) -> Luggage:
    """What the runs of a race need of the user's files."""
    roots: list[GivenFile] = []
    files: dict[str, bytes] = {}
    for given, file, module in _given(plan):
        behind = imports.modules_behind(file, module)
        places = {path: _place(path, name) for path, (name, _) in behind.items()}
        files |= {places[path]: text for path, (_, text) in behind.items()}
        roots.append(GivenFile(given, imports.of_meanings(text for _, text in behind.values()), places[file]))
    return Luggage(tuple(roots), tuple(sorted(files.items())))


def _given(plan: RacePlan) -> Iterator[tuple[str, str, str]]:
    """As given, resolved, and the name of its module if it is imported by that."""
    if plan.task.home:
        yield plan.reference, _resolved(plan.reference), ""
    for contestant in plan.contestants:
        if file := classes.file_of(contestant.optimizer):
            yield file, _resolved(file), ""
        elif (module := contestant.optimizer.rpartition(":")[0]) and not contestant.library:
            found = getattr(sys.modules.get(module), "__file__", None)
            if found and imports.own(module, found):
                yield module, found, module


def _resolved(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def _place(path: str, module: str) -> str:
    """Where a module is found by its name; a file that nobody imports lies on top."""
    if not module:
        return Path(path).name
    inside = module.replace(".", "/")
    return f"{inside}/__init__.py" if Path(path).stem == "__init__" else f"{inside}.py"


@dataclass(frozen=True)
class Places:
    """Where the files of a race lie here: path as given → path."""

    moved: Mapping[str, str]

    def here(self, value: Any) -> Any:
        """A run, or a list of runs, of the files as they lie here; any other value as it is."""
        if isinstance(value, list):
            return [self.here(one) for one in value]
        return self._run(value) if isinstance(value, Spec) else value

    def _run(self, spec: Spec) -> Spec:
        here = replace(spec, task=self.moved.get(spec.task, spec.task), contestant=self._entered(spec.contestant))
        vars(here)["key"] = spec.key  # which does not depend on the places of files
        return here

    def _entered(self, contestant: Contestant) -> Contestant:
        home, _, name = contestant.optimizer.rpartition(":")
        return replace(contestant, optimizer=f"{self.moved[home]}:{name}") if home in self.moved else contestant


def unpacked(luggage: Luggage) -> Places:
    """The files in their own place, where the same lie there, else laid out in the user's cache."""
    return Places({root.path: _at(luggage, root) for root in luggage.roots})


def _at(luggage: Luggage, root: GivenFile) -> str:
    is_module = not root.path.endswith(".py")
    if not is_module and Path(root.path).is_file() and imports.code(root.path) == root.code:
        return root.path
    folder = _laid_out(luggage)
    if is_module:
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
        return root.path
    return str(folder / root.place)


def _laid_out(luggage: Luggage) -> Path:
    """All or nothing, whoever else lays out the same."""
    folder = disk_cache.folder() / FOLDER / luggage.name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=folder.parent))
    for place, text in luggage.files:
        file = new / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)
    try:
        os.rename(new, folder)
    except OSError:  # another was first
        shutil.rmtree(new, ignore_errors=True)
    return folder
