"""A store in PostgreSQL: what SQLite does, a server that is started again, errors that say what to do."""

import pickle
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("psycopg")

from tests.lab.cluster.test_executors import AtOnce, plain, planned
from tests.lab.tasks.small import write_small
from tests.lab.test_race import Inline, Log
from tests.lab.test_sharing import share_alike
from tests.postgres import PASSWORD, Postgres, programs
from thalweg._base.errors import ThalwegError
from thalweg.lab import keeping, sharing, workers
from thalweg.lab.cluster import alone
from thalweg.lab.race import race
from thalweg.lab.search import Setting
from thalweg.lab.store import Store, keep

pytestmark = [
    pytest.mark.posix,
    pytest.mark.slow(reason="a server that is started, stopped and killed"),
    pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed"),
]


@pytest.fixture(scope="module")
def server():
    server = Postgres()
    yield server
    server.close()


@pytest.fixture
def url(server):
    return server.database(uuid.uuid4().hex)


@pytest.fixture
def store(url):
    store = Store(url)
    yield store
    store.close()


def test_runs_are_kept_once_whoever_keeps_them(store):
    run = {"final_loss": 0.1 + 0.2, "curve": [[0, 1.0]], "text": "é\n'"}
    keep(store.address, "k", run)
    store.put("k", {"final_loss": 9.0})
    assert store.get(["k", "other"]) == {"k": run}
    assert store.lasts
    assert store.bytes is None
    assert store.contents().whole == 1


def test_many_may_open_a_new_store_and_keep_the_same_runs_at_once(url):
    begin = threading.Barrier(8)

    def use(number):
        begin.wait()
        store = Store(url)
        for key in range(20):
            store.put(str(key), {"by": number})
        store.close()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(8)))
    store = Store(url)
    assert store.contents().whole == 20
    store.close()


def test_a_server_that_is_started_again_is_waited_for(server, store):
    store.put("a", {"x": 1})
    leases = store.leases()
    assert leases.take("run")
    server.stop()
    starting = threading.Timer(1.0, server.start)
    starting.start()
    store.put("b", {"x": 2})
    starting.join()
    assert store.get(["a", "b"]) == {"a": {"x": 1}, "b": {"x": 2}}
    assert leases.take("run")  # it is ours, also where the answer to the first question was lost


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"password": "wrong"}, r"password authentication failed for user \"me\". Look at user and password"),
        ({"database": "nothing"}, r"database \"nothing\" does not exist. Make it there with `createdb`"),
        ({"user": "stranger"}, r"password authentication failed for user \"stranger\""),
    ],
)
def test_what_is_wrong_is_one_sentence_without_the_password(server, wrong, said):
    with pytest.raises(ThalwegError, match=f"^cannot open the store postgresql.*: {said}") as caught:
        Store(server.url(**wrong))
    assert not [part for part in (PASSWORD, "s3cr3t", "wrong@") if part in str(caught.value)]
    assert "\n" not in str(caught.value)


def test_a_host_where_nobody_is_is_one_sentence():
    with pytest.raises(ThalwegError, match=r"refused.*No server listens there: start it, or look at host and port"):
        Store("postgresql://me:s3cr3t@127.0.0.1:9/x")


def test_a_worker_keeps_its_run_by_itself_and_its_password_is_not_shown(tmp_path, store):
    place = keeping.StorePlace(store.address, "key")
    assert "s3cr3t" not in repr(place)
    assert pickle.loads(pickle.dumps(place)) == place
    made = planned(write_small(tmp_path))
    spec = made.spec(made.contestants[0], Setting(1e-2), seed=7, steps=20)
    found = keeping.work_and_keep(place, spec, "tune")
    assert found.kept
    assert store.get(["key"])["key"]["final_loss"] == found.run["final_loss"]


def test_a_race_on_a_server_is_that_on_a_file_and_goes_on_there(tmp_path, store, url, monkeypatch):
    monkeypatch.setattr(alone, "once", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(workers, "Pool", Inline)
    made, other, again = planned(write_small(tmp_path)), Store(str(tmp_path / "runs.db")), Log()
    assert plain(race(made, store, executor=AtOnce())) == plain(race(made, other))
    another = Store(url)
    race(made, another, again)
    assert not again.started
    for one in (other, another):
        one.close()


@pytest.mark.usefixtures("few_trials")
def test_two_races_on_one_server_make_each_run_once_and_draw_one_verdict(tmp_path, url, monkeypatch):
    monkeypatch.setattr(workers, "Pool", Inline)
    monkeypatch.setattr(sharing, "POLL_SECONDS", 0.01)
    stores = [Store(url) for _ in range(2)]
    share_alike(planned(write_small(tmp_path), ("adamw", "momentum")), stores, hours=-1.0)
    for store in stores:
        store.close()


class Noting(Log):
    def __init__(self):
        super().__init__()
        self.notes = []

    def on_note(self, text):
        self.notes.append(text)


def test_workers_that_do_not_reach_the_store_have_their_runs_kept_for_them_and_it_is_said_once(
    tmp_path, store, monkeypatch
):
    def unreachable(*_):
        raise ThalwegError("no route")

    monkeypatch.setattr(workers, "Pool", Inline)
    monkeypatch.setattr(keeping, "keep", unreachable)
    log = Noting()
    race(planned(write_small(tmp_path)), store, log)
    assert store.contents().whole > 4
    [note] = log.notes
    assert "do not reach the store" in note
    assert "s3cr3t" not in note
