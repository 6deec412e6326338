"""The tables of a store, their version, and how those of an earlier version become these."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, IntegrityError

#: version of the tables below; a store from a newer one is refused.
#: 1: runs without checksums, looks by the hash of a race. 2: checksums, races, looks by task and pair of classes,
#: leases.
SCHEMA = 2

METADATA = sa.MetaData()
ABOUT = sa.Table("about", METADATA, sa.Column("schema", sa.Integer, primary_key=True))
RUNS = sa.Table(
    "runs",
    METADATA,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("finished", sa.DateTime),  # UTC
    sa.Column("checksum", sa.String(64)),  # of key and run; none in rows of version 1
)
RACES = sa.Table(
    "races",
    METADATA,
    sa.Column("identity", sa.String(64), primary_key=True),
    sa.Column("about", sa.Text, nullable=False),
    sa.Column("begun", sa.DateTime, nullable=False),  # UTC, as all times
    sa.Column("ended", sa.DateTime),
    sa.Column("headline", sa.Text),
)
#: two races cannot take the same number. A store of version 1 also has a table `looks`, which names neither task nor
#: contestants
VERDICTS = sa.Table(
    "verdicts",
    METADATA,
    sa.Column("task", sa.String(64), primary_key=True),
    sa.Column("pair", sa.String(200), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("evidence", sa.String(64), nullable=False),
    sa.Column("taken", sa.DateTime, nullable=False),
    sa.Column("verdicts", sa.Text, nullable=False),
    sa.Column("checksum", sa.String(64), nullable=False),
)
LEASES = sa.Table(
    "leases",
    METADATA,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(255), nullable=False),
    sa.Column("expires", sa.Double, nullable=False),  # seconds since 1970
)


def now() -> datetime:
    """The time as the tables hold it: UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def version(engine: sa.Engine) -> int | None:
    """The version of the tables that are there; None for a new store."""
    if not sa.inspect(engine).has_table(ABOUT.name):
        return None
    with engine.connect() as connection:
        found: int | None = connection.scalar(sa.select(sa.func.max(ABOUT.c.schema)))
    return found


def foreign(engine: sa.Engine) -> list[str]:
    """Tables of ours by name in a database that is no store: another program's."""
    names = sa.inspect(engine).get_table_names()
    return [] if ABOUT.name in names else [name for name in METADATA.tables if name in names]


def prepare(engine: sa.Engine) -> None:
    """Make what is missing. Several may do so at the same time."""
    for table in METADATA.sorted_tables:
        _create(engine, table)
    if version(engine) != SCHEMA:
        _add_column(engine, RUNS.c.checksum)
        _claim(engine)


def _create(engine: sa.Engine, table: sa.Table) -> None:
    try:
        table.create(engine, checkfirst=True)
    except DatabaseError:
        if not sa.inspect(engine).has_table(table.name):
            raise
        # another race that opened the new store at the same time was first


def _add_column(engine: sa.Engine, column: sa.Column[str]) -> None:
    if _has_column(engine, column):
        return
    kind = column.type.compile(engine.dialect)
    try:
        with engine.begin() as connection:
            connection.execute(sa.text(f"ALTER TABLE {column.table.name} ADD COLUMN {column.name} {kind}"))
    except DatabaseError:
        if not _has_column(engine, column):
            raise


def _has_column(engine: sa.Engine, column: sa.Column[str]) -> bool:
    return column.name in {found["name"] for found in sa.inspect(engine).get_columns(column.table.name)}


def _claim(engine: sa.Engine) -> None:
    """Write the version; another may have done so."""
    try:
        with engine.begin() as connection:
            connection.execute(ABOUT.insert().values(schema=SCHEMA))
    except IntegrityError:
        pass
