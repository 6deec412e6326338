"""Where finished runs live: one row a run, in SQLite or any database that SQLAlchemy reaches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from thalweg._base.errors import ThalwegError

#: version of the tables below; a store from a newer one is refused
SCHEMA = 1

_metadata = sa.MetaData()
_about = sa.Table("about", _metadata, sa.Column("schema", sa.Integer, primary_key=True))
_runs = sa.Table(
    "runs",
    _metadata,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("finished", sa.DateTime, server_default=sa.func.now()),
)
_looks = sa.Table(
    "looks",
    _metadata,
    sa.Column("race", sa.String(64), primary_key=True),
    sa.Column("seeds", sa.Integer, primary_key=True),
)


class Store:
    """Finished runs by the content hash of what made them, and the looks that were taken at a race.

    Args:
        url: an SQLAlchemy URL; a plain path means SQLite in that file.

    Raises:
        ThalwegError: if it cannot be opened or written, or comes from a newer version.
    """

    def __init__(self, url: str) -> None:
        full = url if "://" in url else f"sqlite:///{url}"
        self.url = url  # as it may be shown: without its password
        with self._clear_errors("open"):
            self.url = sa.make_url(full).render_as_string(hide_password=True)
            self._engine = sa.create_engine(full, **_options(full))
            if self._engine.url.get_backend_name() == "sqlite" and self._engine.url.database:
                Path(self._engine.url.database).parent.mkdir(parents=True, exist_ok=True)
            for table in _metadata.sorted_tables:
                self._create(table)
            with self._engine.connect() as connection:
                version = connection.scalar(sa.select(sa.func.max(_about.c.schema)))
        if version is None:
            self._insert(_about, schema=SCHEMA)
        if version is not None and version > SCHEMA:
            self.close()
            raise ThalwegError(
                f"the store {self.url} was written by a newer thalweg (its format is {version}, this one reads "
                f"{SCHEMA}); update thalweg, or name another with --store"
            )

    def get(self, keys: list[str]) -> dict[str, dict[str, Any]]:
        """The finished runs among ``keys``."""
        found: dict[str, dict[str, Any]] = {}
        with self._clear_errors("read"), self._engine.connect() as connection:
            for start in range(0, len(keys), 500):  # databases limit the length of IN (...)
                chosen = sa.select(_runs.c.key, _runs.c.run).where(_runs.c.key.in_(keys[start : start + 500]))
                found |= {key: json.loads(run) for key, run in connection.execute(chosen)}
        return found

    def put(self, key: str, run: dict[str, Any]) -> None:
        """Keep a finished run, at once and for good; a second one of the same key changes nothing."""
        self._insert(_runs, key=key, run=json.dumps(run))

    def look(self, race: str, seeds: int) -> int:
        """Note that a verdict on ``race`` was taken with so many seeds; which look at the data is it, from 1?"""
        self._insert(_looks, race=race, seeds=seeds)
        with self._clear_errors("read"), self._engine.connect() as connection:
            earlier = sa.select(sa.func.count()).where(_looks.c.race == race, _looks.c.seeds <= seeds)
            return int(connection.scalar(earlier) or 1)

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def _create(self, table: sa.Table) -> None:
        try:
            table.create(self._engine, checkfirst=True)
        except DatabaseError:
            if not sa.inspect(self._engine).has_table(table.name):
                raise
            # another race that opened the new store at the same time was first

    def _insert(self, table: sa.Table, **row: Any) -> None:
        with self._clear_errors("write"):
            try:
                with self._engine.begin() as connection:
                    connection.execute(table.insert().values(**row))
            except IntegrityError:
                pass  # another race that shares the store was first

    @contextmanager
    def _clear_errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, NoSuchModuleError, ModuleNotFoundError, OSError) as error:
            reason = str(error.orig if isinstance(error, DatabaseError) else error).splitlines()[0]
            raise ThalwegError(
                f"cannot {action} the store {self.url}: {reason}. Finished runs in it are kept; "
                "make room or name another with --store, and the same command goes on"
            ) from error


def _options(url: str) -> dict[str, Any]:
    """Wait for another race that is writing instead of failing."""
    return {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
