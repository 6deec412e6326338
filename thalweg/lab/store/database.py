"""A database that is opened with its tables, read and written; whatever goes wrong is one clear error."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, IntegrityError

from thalweg._base.errors import ThalwegError
from thalweg._base.secrets import hidden
from thalweg.lab.store import server, tables, trouble

T = TypeVar("T")

#: a statement, and the rows that it adds
Change = tuple[sa.Insert | sa.Update | sa.Delete, Sequence[dict[str, Any]]]

#: databases limit the length of IN (...)
AT_ONCE = 500
#: so long another process may keep an SQLite file to itself before this one gives up
PATIENCE_SECONDS = 60


def is_there(url: str) -> bool:
    """Whether a store can be looked into: False for an SQLite file that has not been made yet."""
    try:
        found = sa.make_url(url if "://" in url else f"sqlite:///{url}")
    except (ArgumentError, ValueError):
        return True  # opening it says what is wrong
    name = found.database or ""
    return found.get_backend_name() != "sqlite" or name in ("", ":memory:") or Path(name).exists()


class Database:
    """An open database.

    Args:
        url: an SQLAlchemy URL; a plain path means SQLite in that file.
        new: whether a file that is not there is made.
        brief: whether a server is asked once and then left; its tables are known to be there.

    Raises:
        ThalwegError: if it cannot be opened or written, is damaged, another program's, or from a newer version.
    """

    def __init__(self, url: str, *, new: bool = True, brief: bool = False) -> None:
        _refuse_half_a_url(url)
        full = server.driver(url) if "://" in url else f"sqlite:///{url}"
        self.url = hidden(url)  # as it may be shown
        self._opened = False
        with self.clear_errors("open"):
            self.url = hidden(sa.make_url(full).render_as_string())
            self.engine = _engine(full, brief)
            if brief:
                return
            if not new and self.file and not Path(self.file).exists():
                raise ThalwegError(
                    f"there is no store {self.url}; `thalweg race` makes it, or name another with --store"
                )
            self._check_file()
            refusal = self._refusal()
            if refusal is None:
                tables.prepare(self.engine)
        if refusal is not None:
            self.close()
            raise ThalwegError(f"the store {self.url} {refusal}, or name another with --store")
        self._opened = True

    @property
    def address(self) -> str | None:
        """Its URL with the password, for workers; never to be shown. None where only this machine reaches it."""
        url = self.engine.url
        return None if url.get_backend_name() == "sqlite" else url.render_as_string(hide_password=False)

    @property
    def file(self) -> str | None:
        """The file, if it is SQLite in one that is named by its path."""
        url = self.engine.url
        plain = url.get_backend_name() == "sqlite" and self.lasts and not (url.database or "").startswith("file:")
        return url.database if plain else None

    @property
    def lasts(self) -> bool:
        """Whether it is more than SQLite in memory."""
        url = self.engine.url
        name = url.database or ""
        return url.get_backend_name() != "sqlite" or not (name in ("", ":memory:") or "mode=memory" in str(url))

    def read(self, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        """All rows of a query."""

        def rows() -> Sequence[sa.Row[Any]]:
            with self.engine.connect() as connection:
                return connection.execute(query).all()

        try:
            return self._tried("read", rows)
        except ValueError as error:  # a time that is none
            raise trouble.damaged(str(error), self.url) from error

    def insert(self, table: sa.Table, *rows: dict[str, Any]) -> bool:
        """Add rows, all or none; False if one of their keys is there already: another was first."""
        return self.together((table.insert(), rows))

    def change(self, statement: sa.Update | sa.Delete) -> int:
        """Change or remove rows; how many."""

        def changed() -> int:
            with self.engine.begin() as connection:
                return connection.execute(statement).rowcount

        return self._tried("write", changed)

    def together(self, *changes: Change) -> bool:
        """Several changes in one transaction, all or none; False if a key that one adds is there already.

        A transaction is what costs time, not what is in it: an SQLite file is synced to the disk several times in each.
        """

        def done() -> bool:
            try:
                with self.engine.begin() as connection:
                    for statement, rows in changes:
                        connection.execute(statement, list(rows) or None)
            except IntegrityError:
                return False
            return True

        return not changes or self._tried("write", done)

    def _tried(self, action: str, attempt: Callable[[], T]) -> T:
        """A server that was there is waited for."""
        with self.clear_errors(action):
            return server.patiently(attempt) if self._opened and self.address else attempt()

    def close(self) -> None:
        """Let go of it."""
        self.engine.dispose()

    @contextmanager
    def clear_errors(self, action: str) -> Iterator[None]:
        """What the database raises becomes one sentence."""
        try:
            yield
        except trouble.ERRORS as error:
            raise trouble.explained(error, action, self.url) from error

    def _refusal(self) -> str | None:
        """Why nothing may be changed here."""
        version = tables.version(self.engine) or 0
        if version > tables.SCHEMA:
            reads = f"its format is {version}, this one reads {tables.SCHEMA}"
            return f"was written by a newer thalweg ({reads}); update thalweg"
        if names := tables.foreign(self.engine):
            return f"is another program's database (it has a table {names[0]!r}, and no version); look what it is"
        return None

    def _check_file(self) -> None:
        """Damage is found before hours are spent; and a new file gets its folder."""
        if self.file is None:
            return
        Path(self.file).parent.mkdir(parents=True, exist_ok=True)
        with self.engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if found != "ok":
            self.close()
            raise trouble.damaged(str(found), self.url)


def _refuse_half_a_url(url: str) -> None:
    """Not a file: its folder would be called like a user and a password; nor what has no number for a port."""
    if found := re.search(r"://[^/?]*:([^@:/?\]]*[^@:/?\]\d][^@:/?\]]*)(?:[/?]|$)", url):
        raise ThalwegError(
            f"cannot open the store {hidden(url)}: {found[1]!r} is no port; expected a number, as in "
            "postgresql://USER:PASSWORD@HOST:5432/DATABASE"
        )
    if "://" not in url and (found := re.match(r"([\w+]+):?/*[^/:@]+:[^/@]+@", url)):
        raise ThalwegError(
            f"cannot open the store {found[1]}…: it is neither a file nor a whole URL; expected a path, or "
            "postgresql://USER:PASSWORD@HOST/DATABASE"
        )


def _engine(url: str, brief: bool) -> sa.Engine:
    if not url.startswith("sqlite"):
        return server.engine(url, brief)
    engine = sa.create_engine(url, connect_args={"timeout": PATIENCE_SECONDS})
    sa.event.listen(engine, "connect", _read_any_text)
    return engine


def _read_any_text(connection: Any, _: object) -> None:
    """Damaged text is read all the same, and found by its checksum."""
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
