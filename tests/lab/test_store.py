import sqlite3
import subprocess
import sys

import pytest
import sqlalchemy as sa

from thalweg._base.errors import ThalwegError
from thalweg.lab.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "a" / "runs.db"))
    yield store
    store.close()


def test_keeps_runs_by_key_and_the_first_one_stays(store):
    store.put("k", {"final_loss": 0.1 + 0.2, "curve": [[0, 1.0]]})
    store.put("k", {"final_loss": 9.0})
    assert store.get(["k", "other"]) == {"k": {"final_loss": 0.1 + 0.2, "curve": [[0, 1.0]]}}


def test_finds_many_keys_at_once(store):
    for i in range(600):
        store.put(str(i), {"i": i})
    assert len(store.get([str(i) for i in range(1200)])) == 600


def test_two_races_may_share_a_store(tmp_path):
    a, b = Store(str(tmp_path / "s.db")), Store(str(tmp_path / "s.db"))
    a.put("k", {"x": 1})
    assert b.get(["k"]) == {"k": {"x": 1}}
    b.put("k", {"x": 2})
    assert a.get(["k"]) == {"k": {"x": 1}}
    a.close()
    b.close()


def test_counts_the_looks_at_a_race(store):
    assert store.look("race", 5) == 1
    assert store.look("race", 5) == 1  # the same data again is no new look
    assert store.look("race", 8) == 2
    assert store.look("other", 8) == 1


def test_a_killed_writer_loses_nothing_that_it_finished(tmp_path):
    path = tmp_path / "s.db"
    code = (
        "import os, signal\n"
        "from thalweg.lab.store import Store\n"
        f"s = Store({str(path)!r})\n"
        "for i in range(20): s.put(str(i), {'i': i})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    store = Store(str(path))
    assert len(store.get([str(i) for i in range(20)])) == 20
    store.close()


def test_a_store_from_a_newer_version_is_refused(tmp_path):
    path = tmp_path / "s.db"
    Store(str(path)).close()
    with sqlite3.connect(path) as connection:
        connection.execute("update about set schema = 99")
    connection.close()
    with pytest.raises(ThalwegError, match="newer thalweg"):
        Store(str(path))


def test_a_new_store_may_be_opened_by_several_at_once(tmp_path, monkeypatch):
    """Each sees that a table is missing, and makes it when another has just done so."""
    path = str(tmp_path / "s.db")
    create = sa.Table.create

    def late(table, engine, **options):
        monkeypatch.setattr(sa.Table, "create", create)
        Store(path).close()
        create(table, engine, checkfirst=False)

    monkeypatch.setattr(sa.Table, "create", late)
    store = Store(path)
    store.put("k", {"x": 1})
    assert store.get(["k"]) == {"k": {"x": 1}}
    store.close()


def test_a_file_that_is_no_database_is_named(tmp_path):
    path = tmp_path / "s.db"
    path.write_text("not a database, but long enough to be read as a header of one " * 20)
    with pytest.raises(ThalwegError, match=r"cannot open the store sqlite:///.*s\.db: file is not a database"):
        Store(str(path))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ThalwegError, match="cannot open the store"):
        Store(str(tmp_path / "file" / "s.db"))


@pytest.mark.parametrize("url", ["nosuchdb://host/x", "sqlite://host/with/authority"])
def test_a_wrong_url_is_named(url):
    with pytest.raises(ThalwegError, match="store"):
        Store(url)


def test_a_password_is_never_shown():
    with pytest.raises(ThalwegError) as error:
        Store("postgresql+nosuchdriver://me:secret@localhost/x")
    assert "secret" not in str(error.value)


def test_a_full_disk_is_said_and_what_is_finished_stays(store):
    store.put("small", {"x": 1})
    with store._engine.begin() as connection:  # SQLite answers a full disk and a full file alike
        pages = connection.exec_driver_sql("pragma page_count").scalar()
    from sqlalchemy import event

    event.listen(store._engine, "connect", lambda c, _: c.execute(f"pragma max_page_count = {pages}"))
    store._engine.dispose()
    with pytest.raises(ThalwegError, match=r"cannot write the store .*full"):
        store.put("large", {"x": "y" * 10**6})
    assert store.get(["small", "large"]) == {"small": {"x": 1}}
