"""Where finished runs and the verdicts drawn from them live: SQLite, or any database that SQLAlchemy reaches."""

from __future__ import annotations

from thalweg.lab.store.database import is_there
from thalweg.lab.store.store import Store, keep, rescued

__all__ = ["Store", "is_there", "keep", "rescued"]
