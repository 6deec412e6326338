"""How long workers take for runs of which some wait for others."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence

#: runs that may be made at the same time, by their seconds; the next begin when all of them are finished
Wave = Sequence[float]


def makespan(chains: Iterable[Iterable[Wave]], workers: int) -> float:
    """Seconds until all is done.

    Args:
        chains: waves that go one after the other; of two chains, runs go side by side.
        workers: who take runs in the order in which these are asked for.
    """
    going: list[Iterator[Wave]] = [iter(chain) for chain in chains]
    ready = [(0.0, number) for number in range(len(going))]
    free, end = [0.0] * workers, 0.0
    while ready:
        now, number = heapq.heappop(ready)
        end = max(end, now)
        if (wave := next(going[number], None)) is not None:
            heapq.heappush(ready, (_finished(wave, now, free), number))
    return end


def _finished(wave: Wave, now: float, free: list[float]) -> float:
    """When its last run is finished; ``free`` is a heap of the times at which each worker has nothing to do."""
    last = now
    for seconds in wave:
        until = max(now, heapq.heappop(free)) + seconds
        heapq.heappush(free, until)
        last = max(last, until)
    return last
