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
_NO_LOCKS = (
    "Its file system has no locks, as some network file systems have none, and without them two processes would damage "
    "it: name a file on a disk of this machine, or PostgreSQL, with --store"
)
_QUOTA = (
    "Its disk takes no more (a quota, or it failed); what was finished before is kept, unless the disk is broken. Make "
    "room or name another with --store, and the same command goes on"
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
    **dict.fromkeys((sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC), _QUOTA),
    **dict.fromkeys(
        (
            sqlite3.SQLITE_IOERR_LOCK,
            sqlite3.SQLITE_IOERR_RDLOCK,
            sqlite3.SQLITE_IOERR_UNLOCK,
            sqlite3.SQLITE_IOERR_CHECKRESERVEDLOCK,
            sqlite3.SQLITE_PROTOCOL,
        ),
        _NO_LOCKS,
    ),
    sqlite3.SQLITE_NOTADB: "It is another kind of file, or its beginning was overwritten; name another with --store",
    sqlite3.SQLITE_READONLY: "Finished runs in it are kept; make the file and its folder writable, or name another "
    "with --store",
    sqlite3.SQLITE_READONLY_DBMOVED: "Its file was moved or deleted after it was opened; put it back and the same "
    "command goes on, or start again without the runs in it",
}
#: PostgreSQL's codes → the same
_SERVER = {
    "53100": "Finished runs in it are kept; make room on the server's disk, and the same command goes on",
    "53300": "It has no connection left; raise max_connections there, or start fewer races at once",
    "25006": "It takes no changes, as a standby does not; name the primary with --store",
    "42501": "Its owner must grant this user to read and write it: GRANT ALL ON SCHEMA public TO …",
}
#: what a connection that fails says, which has no code → the same
_SAID = {
    "password authentication failed": "Look at user and password: postgresql://USER:PASSWORD@HOST/DATABASE",
    "no password supplied": "Put it into the URL, postgresql://USER:PASSWORD@HOST/DATABASE, or into ~/.pgpass",
    "does not exist": "Make it there with `createdb`, or look at the name at the end of the URL",
    "Connection refused": "No server listens there: start it, or look at host and port",
    "resolve host": "There is no such host: look at its name in the URL",
    "timeout": "Nobody answers there: look at host, port and firewall",
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
    advice = _ADVICE.get(code) or _ADVICE.get(code & 0xFF) or _of_a_server(cause)
    reason = _reason(str(cause)) or type(cause).__name__
    return ThalwegError(f"cannot {action} the store {url}: {hidden(reason)}. {advice}")


def _of_a_server(cause: BaseException) -> str:
    """What to do about what a server says, or about one that says nothing."""
    code, text = getattr(cause, "sqlstate", None), str(cause)
    return _SERVER.get(code or "") or next((advice for part, advice in _SAID.items() if part in text), _ANY)


def _reason(text: str) -> str:
    """The line that says what happened; psycopg puts the address that it tried in front of it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = [line.partition("FATAL:")[2].strip() for line in lines if "FATAL:" in line]
    return (said or lines or [""])[0].rstrip(".")


def damaged(reason: str, url: str) -> ThalwegError:
    """The error for a file that can be read, but holds what no store does."""
    return ThalwegError(f"cannot read the store {url}: {reason.splitlines()[-1]}. {_DAMAGED}")
