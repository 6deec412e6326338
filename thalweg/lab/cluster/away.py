"""Workers of somebody else's executor: what they are handed goes with all that it needs, and is asked for again."""

from __future__ import annotations

import pickle
import threading
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol

from thalweg._base.errors import ThalwegError, bad_argument
from thalweg.lab.cluster import errand
from thalweg.lab.cluster.errand import Answer, Header, answer
from thalweg.lab.cluster.luggage import packed
from thalweg.lab.plan import RacePlan
from thalweg.lab.pool import CallLostError
from thalweg.lab.run import Spec
from thalweg.lab.workers import Workers

#: how often a run is asked for whose workers were lost; elsewhere nodes go for other reasons than the run
ATTEMPTS = 6
#: lost runs that the report names one by one
NAMED = 5
#: what is asked of a future; executors of others have futures of their own
FUTURE = ("add_done_callback", "cancel", "cancelled", "exception", "result")


class RunExecutor(Protocol):
    """What a race asks of an executor: that of :class:`concurrent.futures.Executor`.

    A process of its own for each call is not asked for: a worker that has none starts one. A future may be of any class
    that has :data:`FUTURE`.
    """

    def submit(self, function: Callable[..., Any], /, *arguments: Any) -> Future[Any]:
        """Call ``function(*arguments)`` in a worker; both pickle."""


class Abroad:
    """What the workers of one race elsewhere have done.

    Args:
        tell: called when a call was answered or lost, in whichever thread hears of it.

    Attributes:
        runs: how many calls each node has answered.
        lost: what was asked for in the calls that were lost with their workers; each was made again.
    """

    def __init__(self, tell: Callable[[str], None] = lambda _: None) -> None:
        self.runs: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self._tell, self._lock = tell, threading.Lock()

    def answered(self, node: str) -> None:
        """One more call."""
        with self._lock:
            self.runs[node] += 1
            self._tell(self.in_short)

    def lose(self, what: str) -> None:
        """One more was lost."""
        with self._lock:
            self.lost[what] += 1
            self._tell(self.in_short)

    @property
    def in_short(self) -> str:
        """``a (12 calls), b (1 call); 2 lost and made again``."""
        lost = f"{self.lost.total()} lost and made again" if self.lost else ""
        return "; ".join(filter(None, (self._nodes, lost)))

    @property
    def _nodes(self) -> str:
        return ", ".join(f"{host} ({count} call{'s' * (count > 1)})" for host, count in sorted(self.runs.items()))

    @property
    def told(self) -> dict[str, str]:
        """What the report says of it; nothing where the race had workers of its own."""
        if not self.runs:
            return {}
        named = [f"{what}{f' ({count} times)' if count > 1 else ''}" for what, count in self.lost.most_common(NAMED)]
        more = f", and {len(self.lost) - NAMED} more" if len(self.lost) > NAMED else ""
        lost = f"{self.lost.total()}, made again: {'; '.join(named)}{more}" if named else "nothing"
        return {"nodes": self._nodes, "lost": lost}


class Away:
    """What :class:`~thalweg.lab.workers.Workers` ask, by way of an executor that belongs to the caller.

    Args:
        executor: whose workers have this version of Thalweg, and the packages that the task needs.
        plan: of the race.
        abroad: is told who answered.
        alone: whether each call is made in a new process.
    """

    def __init__(self, executor: RunExecutor, plan: RacePlan, abroad: Abroad, *, alone: bool = False) -> None:
        self._executor, self._abroad, self._alone = executor, abroad, alone
        self._header, self._luggage = Header.of(plan), packed(plan)
        self._waiting: set[Future[Any]] = set()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a worker call ``function(*arguments)``."""
        told: Future[Any] = Future()
        [asked] = self._handed(lambda *call: [self._executor.submit(*call)], function, arguments)
        self._waiting.add(asked)
        what = next((str(one) for one in arguments if isinstance(one, Spec)), "timed steps")
        asked.add_done_callback(lambda done: self._pass_on(done, told, what))
        return told

    def check(self) -> None:
        """Before the first run: each node, as far as the executor tells of them, has what the race needs.

        One that goes away meanwhile takes no part.

        Raises:
            ThalwegError: for the first one that has not, or if none answers.
        """
        everywhere = getattr(self._executor, "everywhere", lambda *call: [self._executor.submit(*call)])
        answers = [_tried(asked) for asked in self._handed(everywhere, errand.check, ())]
        for found in answers:
            if isinstance(found, Answer):
                found.value()
        if answers and all(isinstance(found, CallLostError) for found in answers):
            raise ThalwegError(f"the workers do not answer: {answers[0]}")

    def close(self) -> None:
        """Drop what waits; the executor itself is the caller's."""
        for asked in list(self._waiting):
            asked.cancel()

    def _handed(self, submit: Callable[..., list[Future[Any]]], function: Any, arguments: Any) -> list[Future[Any]]:
        once = uuid.uuid4().hex  # else an executor that remembers answers, as Dask's, would repeat no run
        try:
            asked = submit(answer, self._header, self._luggage, pickle.dumps((function, arguments)), self._alone, once)
        except Exception as error:  # it was shut down, or broke
            why = str(error).rstrip(".") or type(error).__name__
            raise ThalwegError(f"the executor takes no more runs: {why}. Finished runs are stored") from error
        for future in asked:
            if lacking := [name for name in FUTURE if not callable(getattr(future, name, None))]:
                raise ThalwegError(
                    f"the executor's submit() gave a {type(future).__name__} without {', '.join(lacking)}: expected a "
                    "future as concurrent.futures has it"
                )
        return asked

    def _pass_on(self, done: Future[Answer], told: Future[Any], what: str) -> None:
        self._waiting.discard(done)
        if done.cancelled() or not told.set_running_or_notify_cancel():
            told.cancel()
        elif (error := done.exception()) is not None:
            self._abroad.lose(what)
            told.set_exception(_lost(error))
        else:
            self._abroad.answered(done.result().host)
            _answered(done.result(), told)


def _tried(asked: Future[Answer]) -> Answer | CallLostError:
    """An answer, or how it was lost.

    Raises:
        ThalwegError: if it can never come.
    """
    try:
        return asked.result()
    except Exception as error:
        lost = _lost(error)
        if not isinstance(lost, CallLostError):
            raise lost from error
        return lost


def _answered(found: Answer, told: Future[Any]) -> None:
    try:
        value = found.value()
    except Exception as error:
        told.set_exception(error)
    else:
        told.set_result(value)


def _lost(error: BaseException) -> ThalwegError | CallLostError:
    """What an executor raises, and not the run, is that a worker was lost; but for one that can never answer."""
    if isinstance(error, ModuleNotFoundError):
        return ThalwegError(f"the workers have no package {error.name!r}: install there what is installed here")
    return CallLostError(f"{type(error).__name__}: {error}".splitlines()[0])


def workers(executor: RunExecutor, plan: RacePlan, abroad: Abroad, *, alone: bool = False) -> Workers:
    """Those of an executor; see :class:`Away`.

    Raises:
        ValueError: if it is no executor.
    """
    if not callable(getattr(executor, "submit", None)):
        raise bad_argument("executor", executor, "an object with submit(function, *arguments) → Future")
    return Workers(lambda: Away(executor, plan, abroad, alone=alone), ATTEMPTS)


def check(executor: RunExecutor, plan: RacePlan) -> None:
    """See :meth:`Away.check`."""
    Away(executor, plan, Abroad()).check()
