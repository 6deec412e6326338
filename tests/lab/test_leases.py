"""Leases: one race makes a run, and none waits for one that is gone."""

import asyncio
import contextlib
import os
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter

import pytest

from thalweg._base.errors import ThalwegError
from thalweg.lab import sharing
from thalweg.lab.sharing import Sharing
from thalweg.lab.store import Store, leases


@pytest.fixture
def stores(tmp_path):
    """Two races' views of one store."""
    both = [Store(str(tmp_path / "s.db")) for _ in range(2)]
    yield both
    for store in both:
        store.close()


@pytest.fixture
def two(stores):
    return [store.leases() for store in stores]


class Clock:
    """Seconds on the wall, and since some time."""

    def __init__(self):
        self.wall, self.ticks = 1e9, 50.0

    def time(self):
        return self.wall

    def monotonic(self):
        return self.ticks

    def passes(self, seconds):
        self.wall += seconds
        self.ticks += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(leases, "time", clock)
    return clock


def test_one_takes_it_and_the_other_when_it_is_released(two):
    a, b = two
    assert a.take("k")
    assert not b.take("k")
    assert b.take("l")
    b.release("k")  # not its own
    assert not b.take("k")
    a.release("k")
    assert b.take("k")


def test_all_are_released_at_once(two):
    a, b = two
    assert a.take("k")
    assert a.take("l")
    a.release()
    assert b.take("k")
    assert b.take("l")


def test_one_that_is_renewed_does_not_expire(two, clock):
    a, b = two
    assert a.take("k")
    for _ in range(10):
        clock.passes(leases.SECONDS / 3)
        a.renew()
        assert not b.take("k")
    clock.passes(leases.SECONDS + 1)
    assert b.take("k")
    a.renew()  # it is too late: the other's
    clock.passes(leases.SECONDS / 2)
    assert not a.take("k")


def test_an_expired_one_is_taken_over_by_one_alone(stores, clock):
    assert stores[0].leases().take("k")
    others = [store.leases() for store in stores]
    assert [other.take("k") for other in others] == [False, False]
    clock.passes(leases.SECONDS + 1)
    assert [other.take("k") for other in others] == [True, False]


@pytest.mark.parametrize("ahead", [-(10**6), 10**6])
def test_a_clock_that_is_wrong_keeps_nobody_waiting_for_ever(two, clock, ahead):
    a, b = two
    clock.wall += ahead
    assert a.take("k")
    clock.wall -= ahead
    assert b.take("k") is (ahead < 0)
    clock.passes(leases.SECONDS + 1)
    assert b.take("k")


@pytest.mark.parametrize("hours", [-13, -1, 1, 13])
def test_that_of_a_machine_whose_clock_is_hours_before_or_behind_is_waited_for_as_long_as_it_is_renewed(
    two, clock, hours
):
    a, b = two

    def as_its_clock_is(call, *arguments):
        clock.wall += 3600 * hours
        try:
            return call(*arguments)
        finally:
            clock.wall -= 3600 * hours

    assert as_its_clock_is(a.take, "k")
    for _ in range(10):
        assert not b.take("k")
        clock.passes(leases.SECONDS / 3)
        as_its_clock_is(a.renew)
    assert not b.take("k")
    clock.passes(leases.SECONDS + 1)
    assert b.take("k")


@pytest.mark.slow(reason="processes that import torch")
@pytest.mark.posix
def test_that_of_a_dead_process_on_this_machine_is_taken_at_once(tmp_path, two):
    code = f"from thalweg.lab.store import Store; print(Store({str(tmp_path / 's.db')!r}).leases().take('k'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
    assert two[0].take("k")


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")
def test_that_of_a_killed_process_that_its_parent_does_not_miss_is_taken_too(tmp_path, two):
    code = (
        f"from thalweg.lab.store import Store; Store({str(tmp_path / 's.db')!r}).leases().take('k'); print(flush=True)"
    )
    child = subprocess.Popen([sys.executable, "-c", code + "; input()"], stdin=-1, stdout=-1)
    child.stdout.readline()
    assert not two[0].take("k")
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert two[0].take("k")
    child.communicate()


@pytest.mark.parametrize("owner", ["", "elsewhere 1 x", "here no-number x", f"{leases._here()} 99999999999999999999 x"])
def test_an_owner_of_whom_nothing_is_known_is_waited_for(stores, clock, owner):
    other = stores[0].leases()
    other._owner = owner
    assert other.take("k")
    assert not stores[1].leases().take("k")


def test_one_that_was_damaged_is_taken_over(tmp_path, two):
    assert two[0].take("k")
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as connection:
        connection.execute("update leases set expires = 'never'")
        connection.commit()
    assert two[1].take("k")
    assert not two[0].take("k")


def test_a_process_of_the_same_number_in_another_container_is_not_this_one(monkeypatch):
    before = leases._here()
    monkeypatch.setattr(leases.os, "readlink", lambda _: "pid:[1]")
    assert leases._here() != before


async def _make(share, key, log, name, seconds=0.0, workers=None):
    async with share.turn(key, lambda: log.append(f"{name} waits")) as turn:
        if turn.stored is None:
            async with workers or contextlib.AsyncExitStack():
                await asyncio.sleep(seconds)
            turn.made = {"by": name}
            log.append(f"{name} makes {key}")
        else:
            log.append(f"{name} finds {key} of {turn.stored['by']}")


def test_who_waits_finds_what_the_other_made(stores, monkeypatch):
    monkeypatch.setattr(sharing, "POLL_SECONDS", 0.05)
    log = []

    async def both():
        a, b = (Sharing(store, 1) for store in stores)
        await asyncio.gather(_make(a, "k", log, "a", 0.2), _make(b, "k", log, "b"))

    asyncio.run(both())
    assert log[-2:] == ["a makes k", "b finds k of a"]
    assert "b waits" in log


def test_who_waits_makes_it_when_the_other_fails(stores, monkeypatch):
    monkeypatch.setattr(sharing, "POLL_SECONDS", 0.05)
    log = []

    async def fails(share):
        async with share.turn("k", lambda: None):
            await asyncio.sleep(0.1)
            raise ZeroDivisionError

    async def both():
        a, b = (Sharing(store, 1) for store in stores)
        return await asyncio.gather(fails(a), _make(b, "k", log, "b"), return_exceptions=True)

    error, _ = asyncio.run(both())
    assert isinstance(error, ZeroDivisionError)
    assert log[-1] == "b makes k"


def test_one_run_more_than_there_are_workers_is_claimed_and_the_others_are_left_to_others(stores):
    log = []

    async def many():
        a, b = (Sharing(store, 1) for store in stores)
        mine = [asyncio.create_task(_make(a, f"k{i}", log, "a", 0.3)) for i in range(4)]
        await asyncio.sleep(0.1)
        await _make(b, "k3", log, "b")
        await asyncio.gather(*mine)

    asyncio.run(many())
    assert log[0] == "b makes k3"
    assert "a finds k3 of b" in log


def test_what_has_ended_is_kept_where_the_next_run_cannot_be_read(stores, tmp_path):
    stores[1].put("damaged", {"x": 1})
    with contextlib.closing(sqlite3.connect(tmp_path / "s.db")) as connection:
        connection.execute("update runs set run = 'no run'")
        connection.commit()
    log = []

    async def race():
        share = Sharing(stores[0], 1)
        async with share.turn("k", lambda: None) as turn:
            damaged = asyncio.ensure_future(_make(share, "damaged", log, "a"))
            turn.made = {"by": "a"}
        return await asyncio.gather(damaged, return_exceptions=True)

    [error] = asyncio.run(race())
    assert "does not match its checksum" in str(error)
    assert stores[1].get(["k"]) == {"k": {"by": "a"}}
    assert stores[1].leases().held(["k"]) == {}


class Counting:
    """The leases of a race, and how often each of their methods was called."""

    def __init__(self, leases):
        self.leases, self.calls, self.kept = leases, Counter(), []

    def __getattr__(self, name):
        def called(*arguments):
            self.calls[name] += 1
            if name == "exchange":
                self.kept.append(len(arguments[0]))
            return getattr(self.leases, name)(*arguments)

        return called


def test_what_ends_and_begins_at_the_same_moment_is_one_transaction(stores, monkeypatch):
    """Forty runs by four workers, in step: each wave is stored and the next one begun in one go."""
    counting, log = Counting(stores[0].leases()), []
    monkeypatch.setattr(stores[0], "leases", lambda: counting)

    async def many():
        share, workers = Sharing(stores[0], 4), asyncio.Semaphore(5)
        await asyncio.gather(*(_make(share, f"k{i}", log, "a", 0, workers) for i in range(40)))

    asyncio.run(many())
    assert len(log) == len(stores[1].get([f"k{i}" for i in range(40)])) == 40
    assert sum(counting.kept) == 40
    assert counting.calls["exchange"] < 20
    assert counting.calls["release"] == 0
    assert stores[1].leases().held([f"k{i}" for i in range(40)]) == {}


def test_of_many_runs_that_another_makes_none_is_asked_for_one_by_one(stores, monkeypatch):
    """Their number does not come into how often the store is read while one waits for them."""
    monkeypatch.setattr(sharing, "POLL_SECONDS", 0.05)
    keys = [f"k{i}" for i in range(300)]
    other, counting, log = stores[1].leases(), Counting(stores[0].leases()), []
    monkeypatch.setattr(stores[0], "leases", lambda: counting)
    assert len(other.exchange({}, keys, {})) == 300

    async def waiting():
        share = Sharing(stores[0], 1)
        all_of_them = asyncio.gather(*(_make(share, key, log, "a") for key in keys))
        await asyncio.sleep(0.3)
        other.exchange({key: {"by": "b"} for key in keys}, [], {})
        await all_of_them

    asyncio.run(waiting())
    assert Counter(line.partition(" k")[0] for line in log if "finds" in line) == {"a finds": 300}
    assert counting.calls["held"] < len(keys)


def test_a_store_that_fails_ends_the_turns_that_ask_it_and_no_lease_is_left(stores, monkeypatch):
    a = stores[0].leases()
    monkeypatch.setattr(stores[0], "leases", lambda: a)
    exchange = a.exchange

    def full(ended, wanted, held):
        if any(ended.values()):
            raise ThalwegError("full")
        return exchange(ended, wanted, held)

    monkeypatch.setattr(a, "exchange", full)

    async def race():
        share = Sharing(stores[0], 1)
        async with share.renewed():
            await asyncio.gather(*(_make(share, key, [], "a") for key in "kl"))

    with pytest.raises(ThalwegError, match=r"full\. Finished runs that it did not take: 2, which lie in") as caught:
        asyncio.run(race())
    assert stores[1].leases().held(["k", "l"]) == {}
    [path] = re.findall(r"--merge (\S+)`", str(caught.value))
    with contextlib.closing(Store(path, new=False)) as kept:
        assert stores[1].merge(kept).runs == 2
    assert stores[1].get(["k", "l"]) == {"k": {"by": "a"}, "l": {"by": "a"}}


def test_a_store_that_fails_where_nothing_else_can_be_written_says_only_that(stores, monkeypatch, tmp_path):
    leases = stores[0].leases()
    monkeypatch.setattr(stores[0], "leases", lambda: leases)
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(tmp_path / "a" / "b"))
    (tmp_path / "a").write_text("")

    async def race():
        share = Sharing(stores[0], 1)
        async with share.turn("k", lambda: None) as turn:
            (tmp_path / "s.db").unlink()
            turn.made = {"by": "a"}

    with pytest.raises(ThalwegError, match=r"moved or deleted after it was opened(?!.*Finished runs that)"):
        asyncio.run(race())


def test_leases_are_renewed_while_a_race_goes_on_and_given_up_at_its_end(stores, monkeypatch):
    monkeypatch.setattr(sharing, "SECONDS", 0.03)
    renewed = []
    a, b = (store.leases() for store in stores)
    monkeypatch.setattr(stores[0], "leases", lambda: a)
    monkeypatch.setattr(a, "renew", lambda: renewed.append(1) or (_ for _ in ()).throw(ThalwegError("full")))

    async def race():
        share = Sharing(stores[0], 1)
        async with share.renewed():
            assert a.take("left")
            await asyncio.sleep(0.2)

    asyncio.run(race())
    assert len(renewed) > 3
    assert b.take("left")
