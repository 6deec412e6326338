"""A database that runs as a server: how it is reached, and what is done while it is away."""

from __future__ import annotations

import importlib.util
import re
import time
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from thalweg._base.errors import ThalwegError

T = TypeVar("T")

#: so long a server that was there may be away, such as one that is started again
PATIENCE_SECONDS = 60.0
#: so long it may take to answer at first
CONNECT_SECONDS = 10
#: connections that one race keeps
CONNECTIONS = 2
#: beginnings of URLs of PostgreSQL; its driver is psycopg
_POSTGRESQL = re.compile(r"^postgres(ql)?://")


def driver(url: str) -> str:
    """The URL with our driver, where it names PostgreSQL and none.

    Raises:
        ThalwegError: if that driver is not installed.
    """
    url = _POSTGRESQL.sub("postgresql+psycopg://", url)
    if url.startswith("postgresql+psycopg:") and importlib.util.find_spec("psycopg") is None:
        raise ThalwegError(
            "a store in PostgreSQL needs psycopg of thalweg[postgres], which is not installed: pip install "
            "'psycopg[binary]'"
        )
    return url


def engine(url: str, brief: bool) -> sa.Engine:
    """The connections to a server.

    Args:
        url: with a driver.
        brief: whether it is asked once and then left: a server has a limited number of connections, and a cluster many
            workers.
    """
    postgres = url.startswith("postgresql+psycopg:")
    arguments = {"connect_timeout": CONNECT_SECONDS, "application_name": "thalweg"} if postgres else {}
    if brief:
        return sa.create_engine(url, poolclass=sa.NullPool, connect_args=arguments)
    return sa.create_engine(
        url, pool_pre_ping=True, pool_size=CONNECTIONS, max_overflow=CONNECTIONS, connect_args=arguments
    )


def patiently(attempt: Callable[[], T]) -> T:
    """Again where the server has gone away: all that a store does may be done twice."""
    until, pause = time.monotonic() + PATIENCE_SECONDS, 0.1
    while True:
        try:
            return attempt()
        except DBAPIError as error:
            if not _gone(error) or time.monotonic() > until:
                raise
        time.sleep(pause)
        pause = min(2 * pause, 2.0)


def _gone(error: DBAPIError) -> bool:
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
