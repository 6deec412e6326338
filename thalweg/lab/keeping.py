"""A worker stores what it has made by itself, where the store is a server: then whoever asked may be gone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from thalweg._base.errors import ThalwegError
from thalweg.lab import reuse
from thalweg.lab.result import Role
from thalweg.lab.run import Spec
from thalweg.lab.store import keep
from thalweg.lab.work import Made, work


@dataclass(frozen=True)
class StorePlace:
    """Where a run is kept.

    Attributes:
        address: of the store, with its password.
        key: of the run.
    """

    address: str = field(repr=False)
    key: str


def work_and_keep(place: StorePlace, spec: Spec, role: Role, checkpoints: str | None = None) -> Made:
    """A whole run, which is in the store when this returns; or not, if the store cannot be reached from here."""
    made = work(spec, role, checkpoints)
    try:
        keep(place.address, place.key, reuse.packed(made))
    except ThalwegError:  # who asked will keep it, and says so
        return made
    return replace(made, kept=True)
