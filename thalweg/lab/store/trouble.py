"""What went wrong with a database, in one sentence that promises no more than is known."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError

from thalweg._base.errors import ThalwegError
from thalweg._base.secrets import hidden

#: what a broken, missing or busy database raises
ERRORS = (SQLAlchemyError, NoSuchModuleError, ModuleNotFoundError, OSError)

_DAMAGED = (
    "The file is damaged, and runs in it may be lost: name another with --store. The command `sqlite3 FILE .recover` "
    "may save some of it"
)
#: SQLite's result code → what is known of the finished runs, and what to do
_ADVICE = {
    sqlite3.SQLITE_BUSY: "Another process has been writing to it all the time; finished runs in it are kept, and the "
    "same command goes on",
    sqlite3.SQLITE_CANTOPEN: "It is a folder, or lies where no file can be made; name another with --store",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_FULL: "Finished runs in it are kept; make room or name another with --store, and the same command "
    "goes on",
    sqlite3.SQLITE_IOERR: "Its disk failed or its file was cut short, and what was finished may be lost; look at the "
    "disk, or name another with --store",
    sqlite3.SQLITE_NOTADB: "It is another kind of file, or its beginning was overwritten; name another with --store",
    sqlite3.SQLITE_READONLY: "Finished runs in it are kept; make the file and its folder writable, or name another "
    "with --store",
    sqlite3.SQLITE_READONLY_DBMOVED: "Its file was moved or deleted after it was opened; put it back and the same "
    "command goes on, or start again without the runs in it",
}
_ANY = "Look whether the database is there and may be written, or name another with --store"


def explained(error: Exception, action: str, url: str) -> ThalwegError:
    """The error for a database that could not be read or written.

    Args:
        error: what it raised.
        action: ``open``, ``read`` or ``write``.
        url: the store, without its password.
    """
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    code = getattr(cause, "sqlite_errorcode", 0)
    advice = _ADVICE.get(code) or _ADVICE.get(code & 0xFF, _ANY)
    reason = (str(cause).splitlines() or [type(cause).__name__])[0].rstrip(".")
    return ThalwegError(f"cannot {action} the store {url}: {hidden(reason)}. {advice}")


def damaged(reason: str, url: str) -> ThalwegError:
    """The error for a file that can be read, but holds what no store does."""
    return ThalwegError(f"cannot read the store {url}: {reason.splitlines()[-1]}. {_DAMAGED}")
