import contextlib
import random
import re
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from thalweg._base.errors import ThalwegError
from thalweg.lab.looks import Look
from thalweg.lab.store import Store, database, trouble


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


@pytest.mark.posix
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


def test_a_store_from_a_newer_version_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "s.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("create table about (schema integer primary key); insert into about values (99)")
    before = path.read_bytes()
    with pytest.raises(ThalwegError, match="newer thalweg"):
        Store(str(path))
    assert path.read_bytes() == before


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
    with store._database.engine.begin() as connection:  # SQLite answers a full disk and a full file alike
        pages = connection.exec_driver_sql("pragma page_count").scalar()
    from sqlalchemy import event

    event.listen(store._database.engine, "connect", lambda c, _: c.execute(f"pragma max_page_count = {pages}"))
    store._database.engine.dispose()
    with pytest.raises(ThalwegError, match=r"cannot write the store .*full"):
        store.put("large", {"x": "y" * 10**6})
    assert store.get(["small", "large"]) == {"small": {"x": 1}}


def test_says_when_runs_were_finished(store):
    before = datetime.now(UTC)
    store.put("k", {"x": 1})
    assert store.finished(["k", "other"]).keys() == {"k"}
    assert before <= store.finished(["k"])["k"] <= datetime.now(UTC)


RUN = {"optimizer": "adamw", "lr": 0.003, "seed": 100, "steps": 40, "final_loss": 1.25}
EDITS = {
    "a loss": "update runs set run = replace(run, '1.25', '1.24')",
    "a space": "update runs set run = run || ' '",
    "the checksum": "update runs set checksum = replace(checksum, substr(checksum, 1, 1), 'z')",
    "no checksum": "update runs set checksum = null",
    "no text": "update runs set run = ''",
    "a number": "update runs set run = 7",
    "no run": "update runs set run = '[1, 2]'",
    "half a letter": "update runs set run = cast(x'7bff' as text)",
    "bytes": "update runs set run = x'00ff'",
    "another run": "update runs set run = (select run from runs where key = 'other'),"
    " checksum = (select checksum from runs where key = 'other')",
    "another key": "delete from runs where key = 'key'; update runs set key = 'key'",
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_a_run_that_was_edited_is_named_and_not_used(store, tmp_path, edit):
    store.put("key", RUN)
    store.put("other", RUN | {"final_loss": 9.0})
    with contextlib.closing(sqlite3.connect(tmp_path / "a" / "runs.db")) as connection:
        connection.executescript(edit)
        connection.commit()
    with pytest.raises(ThalwegError, match=r"the run key….* does not match its checksum: .*--drop-damaged") as error:
        store.get(["key"])
    assert "\n" not in str(error.value)


def test_an_edited_run_is_named_by_what_can_be_read_and_others_are_counted(store, tmp_path):
    for key in ("a" * 64, "b" * 64):
        store.put(key, RUN)
    with contextlib.closing(sqlite3.connect(tmp_path / "a" / "runs.db")) as connection:
        connection.execute("update runs set run = replace(run, '1.25', '1.24')")
        connection.commit()
    with pytest.raises(ThalwegError, match=r"the run aaaaaaaaaaaa… \(adamw, lr 0.003, seed 100, 40 steps\) and 1 more"):
        store.get(["a" * 64, "b" * 64])


OLD = """
create table about (schema integer not null primary key);
insert into about values (1);
create table runs (key varchar(64) primary key, run text not null, finished datetime default current_timestamp);
insert into runs (key, run) values ('old', '{"x": 1}');
create table looks (race varchar(64) not null, seeds integer not null, primary key (race, seeds));
insert into looks values ('race', 5);
"""


def test_a_store_of_the_first_version_gets_checksums_and_its_runs_are_not_believed(tmp_path):
    path = tmp_path / "s.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(OLD)
    for _ in range(2):
        store = Store(str(path))
        store.put("new", {"x": 2})
        assert store.get(["new"]) == {"new": {"x": 2}}
        with pytest.raises(ThalwegError, match="the run old"):
            store.get(["old"])
        store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select max(schema) from about").fetchone() == (2,)


LONG = RUN | {"curve": [[step, 1 / 3] for step in range(60)]}
KEYS = [f"{i:064}" for i in range(40)]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """The bytes of a store with some runs."""
    path = tmp_path_factory.mktemp("filled") / "s.db"
    store = Store(str(path))
    for key in KEYS:
        store.put(key, LONG)
    store.close()
    return path.read_bytes()


def _overwritten(data, start, length):
    noise = random.Random(start).randbytes(length)
    return data[:start] + noise + data[start + length :]


HARMS = {
    "cut in the middle": lambda data: data[: len(data) // 2],
    "cut within a page": lambda data: data[: len(data) // 2 + 777],
    "cut to a header": lambda data: data[:100],
    "beginning overwritten": lambda data: _overwritten(data, 0, 100),
    "schema overwritten": lambda data: _overwritten(data, 100, 3000),
    "a page overwritten": lambda data: _overwritten(data, len(data) // 2 // 4096 * 4096, 4096),
    "garbage": lambda data: random.Random(1).randbytes(len(data)),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
def test_a_damaged_file_is_one_true_sentence(tmp_path, filled, harm):
    path = tmp_path / "s.db"
    path.write_bytes(harm(filled))
    with pytest.raises(ThalwegError) as error:
        Store(str(path)).get(KEYS)
    text = str(error.value)
    assert "s.db" in text
    assert "--store" in text
    assert "are kept" not in text
    assert "\n" not in text


@pytest.mark.parametrize("seed", range(20))
def test_bits_that_were_turned_anywhere_are_an_error_or_change_nothing(tmp_path, filled, seed):
    """Some lie in no row and no page that is read."""
    path = tmp_path / "s.db"
    data = bytearray(filled)
    dice = random.Random(seed)
    for _ in range(30):
        data[dice.randrange(4096, len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)
    with contextlib.suppress(ThalwegError):
        store = Store(str(path))
        assert all(run == LONG for run in store.get(KEYS).values())


def test_a_folder_is_no_store(tmp_path):
    with pytest.raises(ThalwegError, match=r"cannot open the store .*It is a folder"):
        Store(str(tmp_path))


def test_a_store_that_is_closed_to_writing_keeps_its_runs_and_says_so(tmp_path, filled):
    path = tmp_path / "s.db"
    path.write_bytes(filled)
    store = Store(f"sqlite:///file:{path}?mode=ro&uri=true")
    assert store.get(KEYS).keys() == set(KEYS)
    with pytest.raises(ThalwegError, match=r"cannot write .*readonly.*Finished runs in it are kept; make the file"):
        store.put("k", RUN)
    store.close()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (sqlite3.SQLITE_IOERR_LOCK, "Its file system has no locks"),
        (sqlite3.SQLITE_PROTOCOL, "Its file system has no locks"),
        (sqlite3.SQLITE_IOERR_WRITE, "Its disk takes no more .*is kept"),
        (sqlite3.SQLITE_IOERR_READ, "may be lost"),
    ],
)
def test_what_a_disk_refuses_is_said_as_what_it_is(code, said):
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    assert re.search(said, str(trouble.explained(error, "write", "sqlite:///s.db")))


def test_a_store_that_was_moved_away_is_not_said_to_be_kept(store, tmp_path):
    store.put("k", RUN)
    (tmp_path / "a" / "runs.db").unlink()
    with pytest.raises(ThalwegError, match=r"cannot write the store .*moved or deleted after it was opened") as error:
        store.put("l", RUN)
    assert "are kept" not in str(error.value)


def test_another_process_that_never_stops_writing_is_named(store, tmp_path, monkeypatch):
    store.put("k", RUN)
    with contextlib.closing(sqlite3.connect(tmp_path / "a" / "runs.db")) as other:
        other.execute("begin immediate")
        monkeypatch.setattr(database, "PATIENCE_SECONDS", 0.1)
        with pytest.raises(ThalwegError, match="Another process has been writing to it"):
            Store(str(tmp_path / "a" / "runs.db")).put("l", RUN)


def test_another_programs_database_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / "mlflow.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript("create table runs (run_uuid varchar(32) primary key); create table metrics (x int)")
    before = path.read_bytes()
    with pytest.raises(ThalwegError, match=r"is another program's database .*'runs'.*--store"):
        Store(str(path))
    assert path.read_bytes() == before


def test_a_store_that_is_only_looked_at_is_not_made(tmp_path):
    with pytest.raises(ThalwegError, match="there is no store"):
        Store(str(tmp_path / "a" / "s.db"), new=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore:Selection of the SingletonThreadPool")
@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_store_in_memory_does_not_last(url, store):
    memory = Store(url)
    memory.put("k", RUN)
    assert memory.get(["k"]) == {"k": RUN}
    assert not memory.lasts
    assert store.lasts
    memory.close()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgres//me:s3cr3t@host/races", "it is neither a file nor a whole URL; expected a path, or postgresql://"),
        ("postgresql:me:s3cr3t@host", "it is neither a file nor a whole URL"),
        ("postgresql://me:s3cr3t@host:port/races", "'port' is no port; expected a number"),
        ("postgresql://me:s3cr3t@[::1]:54x2/races", "'54x2' is no port"),
    ],
)
def test_a_url_that_is_none_is_one_sentence_without_its_password_and_no_file(url, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert database.is_there(url) or "://" not in url
    with pytest.raises(ThalwegError, match=r"^cannot open the store ") as caught:
        Store(url)
    assert said in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["me@host.db", "a:b.db", "12:30.db"])
def test_a_file_may_have_a_strange_name(name, tmp_path):
    Store(str(tmp_path / name)).close()
    assert (tmp_path / name).exists()


def test_a_time_that_was_removed_is_one_sentence(store, tmp_path):
    store.put("k", RUN)
    with contextlib.closing(sqlite3.connect(tmp_path / "a" / "runs.db")) as connection:
        connection.execute("update runs set finished = null")
        connection.commit()
    with pytest.raises(ThalwegError, match=r"cannot read the store .*the run k… has no time"):
        store.finished(["k"])
    assert (store.contents().whole, store.contents().finished) == (1, None)


def test_contents_are_all_there_is_and_what_is_damaged_can_be_dropped(store, tmp_path):
    assert (store.contents().whole, store.contents().finished) == (0, None)
    for key in ("a", "b", "c", "d"):
        store.put(key, RUN)
    store.begin("race", {"task": "small", "content": "task"})
    leases = store.leases()
    assert leases.take("e")
    with contextlib.closing(sqlite3.connect(tmp_path / "a" / "runs.db")) as connection:
        connection.execute("update runs set run = replace(run, '1.25', '1.24') where key = 'b'")
        connection.execute("update runs set checksum = null where key = 'c'")
        connection.commit()
    found = store.contents()
    assert (found.whole, found.damaged.keys(), found.unchecked, found.underway) == (2, {"b"}, ["c"], 1)
    assert "adamw, lr 0.003, seed 100" in found.damaged["b"]
    assert found.tasks("task") == "small"
    assert found.tasks("other") == "task other…"
    assert store.remove(found.unusable) == 2
    assert store.contents().unusable == []
    assert store.get(["a", "b", "c", "d"]).keys() == {"a", "d"}
    store.put("b", RUN)
    assert store.get(["b"]) == {"b": RUN}


def test_on_a_full_disk_no_run_is_begun_and_no_look_taken(store):
    store.put("small", {"x": 1})
    leases = store.leases()
    with store._database.engine.begin() as connection:
        pages = connection.exec_driver_sql("pragma page_count").scalar()
    sa.event.listen(store._database.engine, "connect", lambda c, _: c.execute(f"pragma max_page_count = {pages}"))
    store._database.engine.dispose()
    with pytest.raises(ThalwegError, match=r"cannot write the store .*full"):
        any(not leases.take(str(i)) for i in range(1000))  # until the last page is full
    verdicts = [{"labels": ["x" * 10**6]}]
    look = Look("task", "A, B", 1, "evidence", datetime.now(UTC), verdicts)
    with pytest.raises(ThalwegError, match=r"cannot write the store .*full"):
        store.take([look])
    assert store.looks("task") == []
    assert store.get(["small"]) == {"small": {"x": 1}}
