"""A race whose runs somebody else's executor makes: the same result as that of its own workers."""

import asyncio
import json
import multiprocessing
import os
import pickle
import threading
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from tests.lab.tasks.small import write_small
from tests.lab.test_race import Inline, Log, _untimed
from thalweg._base.errors import ThalwegError
from thalweg.lab import workers
from thalweg.lab.cluster import alone, away
from thalweg.lab.cluster.away import Abroad
from thalweg.lab.cluster.errand import Answer
from thalweg.lab.plan import plan
from thalweg.lab.race import race
from thalweg.lab.search import Setting
from thalweg.lab.store import Store
from thalweg.lab.work import work

#: no search, few runs
RECIPES = ("adamw(lr=1e-2)", "momentum(lr=0.1)")


class AtOnce(Inline):
    """An executor that calls at once, in the thread that asks."""

    def __init__(self):
        super().__init__(1, None)
        self.asked = 0

    def submit(self, function, /, *arguments):
        self.asked += 1
        return super().submit(function, *arguments)


@pytest.fixture
def store(tmp_path):
    store = Store(str(tmp_path / "runs.db"))
    yield store
    store.close()


def planned(path, optimizers=RECIPES, **more):
    return plan(path, optimizers=optimizers, **{"baseline": optimizers[0], "seeds": 2, "steps": 20, "jobs": 2, **more})


def plain(result):
    return {k: v for k, v in _untimed(json.loads(json.dumps(result))).items() if k != "environment"}


@pytest.fixture
def here(monkeypatch):
    """New processes are not needed where nothing depends on them."""
    monkeypatch.setattr(alone, "once", lambda function, *arguments: function(*arguments))


def test_an_executor_gives_the_result_of_the_races_own_workers(tmp_path, store, monkeypatch, here, capsys):
    """Of a task that prints, which is not shown, and said once."""
    made = planned(write_small(tmp_path, "print('a loss')"))
    other, log, notes = Store(str(tmp_path / "other.db")), Log(), []
    log.on_note = notes.append
    monkeypatch.setattr(workers, "Pool", Inline)
    executor = AtOnce()
    capsys.readouterr()
    assert plain(race(made, store, log, executor=executor)) == plain(race(made, other))
    assert executor.asked > 15
    assert capsys.readouterr().out == ""
    assert notes == ["the task prints while it trains; what its runs print is not shown"]
    other.close()


def _told(path):
    """Who makes a run, and the loss at its end."""
    made = planned(path)
    spec = made.spec(made.contestants[0], Setting(3e-3), seed=5, steps=20)
    return made, [spec, "tune"], work(spec, "tune").run["final_loss"]


def _worked(*arguments):
    return os.getpid(), threading.current_thread() is threading.main_thread(), work(*arguments).run["final_loss"]


@pytest.mark.slow(reason="processes that import torch")
@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_threads_and_forked_processes_make_their_runs_in_processes_of_their_own(tmp_path, kind):
    made, arguments, loss = _told(write_small(tmp_path))
    with kind(1) as executor:
        asked = away.Away(executor, made, Abroad())
        given = executor.submit(os.getpid).result()
        found = [asked.submit(_worked, *arguments).result() for _ in range(2)]
        alone_ = away.Away(executor, made, Abroad(), alone=True).submit(_worked, *arguments).result()
    processes = [process for process, *_ in found]
    assert len({*processes, given, os.getpid()} - {os.getpid()}) == (1 if kind is ThreadPoolExecutor else 2)
    assert alone_[0] not in processes
    assert {tuple(rest) for _, *rest in (*found, alone_)} == {(True, loss)}


def _in_a_daemon(answers):
    answers.put(alone.once(os.getpid))


@pytest.mark.slow(reason="a process that starts a process, each of which loads torch")
def test_a_worker_that_is_a_daemon_may_start_a_process_for_its_runs():
    """Dask's workers are."""
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    worker = context.Process(target=_in_a_daemon, args=(answers,), daemon=True)
    worker.start()
    worker.join(120)
    assert worker.exitcode == 0
    assert answers.get() not in (worker.pid, os.getpid())


def _in_a_worker_with_a_start_method_of_its_own(answers):
    class Own(multiprocessing.context.SpawnContext):
        _name = "loky"

    default = multiprocessing.context._default_context
    default._actual_context = own = Own()
    answers.put((alone.once(os.getpid), default._actual_context is own))


@pytest.mark.slow(reason="a process that starts a process, each of which loads torch")
def test_a_worker_with_a_start_method_of_its_own_may_start_a_process_for_its_runs():
    """Those of loky have one, which processes that loky did not start do not know."""
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    worker = context.Process(target=_in_a_worker_with_a_start_method_of_its_own, args=(answers,))
    worker.start()
    worker.join(120)
    assert worker.exitcode == 0
    process, kept = answers.get()
    assert process not in (worker.pid, os.getpid())
    assert kept


class Foreign:
    """A future that is not of concurrent.futures, as those of Dask's client."""

    def __init__(self, future):
        self._future = future
        self.cancel, self.cancelled = future.cancel, future.cancelled
        self.result, self.exception = future.result, future.exception

    def add_done_callback(self, function):
        self._future.add_done_callback(lambda _: function(self))


class Remembering(AtOnce):
    """Has nothing but submit(), and answers what it was asked before as it did then."""

    def __init__(self):
        super().__init__()
        self.answers = {}

    def submit(self, function, /, *arguments):
        asked = pickle.dumps((function, arguments))
        if asked not in self.answers:
            self.answers[asked] = super().submit(function, *arguments)
        return Foreign(self.answers[asked])


def test_an_executor_that_remembers_answers_repeats_runs_all_the_same(tmp_path, store, here):
    executor = Remembering()
    made = planned(write_small(tmp_path))
    assert not set(dir(executor)) & {"map", "shutdown"}
    race(made, store, executor=executor)
    before = executor.asked
    race(made, store, executor=executor)  # finds all runs
    assert executor.asked - before >= 3 * len(made.contestants)


def test_futures_that_are_none_are_one_error(tmp_path, store):
    class Values:
        def submit(self, function, /, *arguments):
            return 7

    with pytest.raises(ThalwegError, match=r"submit\(\) gave a int without add_done_callback, .*: expected a future"):
        race(planned(write_small(tmp_path)), store, executor=Values())


def test_what_an_executor_loses_is_asked_for_again_and_counted(tmp_path, store, monkeypatch, here):
    executor, lost = AtOnce(), []

    def losing(function, /, *arguments):
        future = AtOnce.submit(executor, function, *arguments)
        if executor.asked % 7 == 0:
            lost.append(future)
            future = Future()
            future.set_exception(OSError("the node is gone"))
        return future

    monkeypatch.setattr(executor, "submit", losing)
    result = race(planned(write_small(tmp_path)), store, executor=executor)
    assert result["environment"]["lost"].startswith(f"{len(lost)}, made again: ")
    assert "seed " in result["environment"]["lost"]
    assert len(lost) > 1


def test_a_lost_call_leaves_those_beside_it_alone(tmp_path):
    """Both are under way when one is lost."""
    asked = []

    class Later:
        def submit(self, *call):
            asked.append(Future())
            asked[-1].set_running_or_notify_cancel()
            return asked[-1]

    async def both():
        workers = away.workers(Later(), made, abroad)
        calls = [asyncio.ensure_future(workers.make(work, spec)) for _ in range(2)]
        await asyncio.sleep(0)
        asked[0].set_exception(OSError("the node is gone"))
        while len(asked) < 3:
            await asyncio.sleep(0.01)
        for number, future in enumerate(asked[1:]):
            future.set_result(Answer("there", pickle.dumps(number)))
        return await asyncio.gather(*calls)

    said: list[str] = []
    abroad, (made, [spec, _], _) = Abroad(said.append), _told(write_small(tmp_path))
    assert asyncio.run(both()) == [1, 0]
    assert (abroad.lost, abroad.runs) == ({str(spec): 1}, {"there": 2})
    assert abroad.in_short == said[-1] == "there (2 calls); 1 lost and made again"
    assert abroad.told["lost"] == f"1, made again: {spec}"


def test_an_executor_that_loses_all_ends_the_race_with_one_error(tmp_path, store, monkeypatch, here):
    executor = AtOnce()
    gone = Future()
    gone.set_exception(OSError("the node is gone"))
    monkeypatch.setattr(away, "check", lambda *_: None)
    monkeypatch.setattr(executor, "submit", lambda *_: gone)
    with pytest.raises(ThalwegError, match=r"died 6 times .*the last one: OSError: the node is gone"):
        race(planned(write_small(tmp_path)), store, executor=executor)


class Nodes(AtOnce):
    """Asks each node; those that are gone lose the question."""

    def __init__(self, *gone):
        super().__init__()
        self.gone = gone

    def everywhere(self, function, /, *arguments):
        futures = [self.submit(function, *arguments) for _ in self.gone]
        for future, gone in zip(futures, self.gone, strict=True):
            if gone:
                future.exception = lambda timeout=None: OSError("the node is gone")
                future.result = lambda timeout=None: (_ for _ in ()).throw(OSError("the node is gone"))
        return futures


def test_a_node_that_goes_away_when_it_is_asked_takes_no_part(tmp_path, here):
    made = planned(write_small(tmp_path))
    away.check(Nodes(True, False), made)
    with pytest.raises(ThalwegError, match="the workers do not answer: OSError: the node is gone"):
        away.check(Nodes(True, True), made)


def test_an_executor_that_was_shut_down_or_is_none_is_one_error(tmp_path, store, monkeypatch):
    made = planned(write_small(tmp_path))
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(ThalwegError, match=r"takes no more runs: cannot schedule"):
        race(made, store, executor=executor)
    monkeypatch.setattr(executor, "submit", lambda *_: (_ for _ in ()).throw(ConnectionError))
    with pytest.raises(ThalwegError, match=r"takes no more runs: ConnectionError\. Finished"):
        race(made, store, executor=executor)
    with pytest.raises(ValueError, match=r"^executor='eight': expected an object with submit"):
        race(made, store, executor="eight")
