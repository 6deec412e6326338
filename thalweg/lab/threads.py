"""One torch thread: the last bits of a loss depend on the number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from thalweg._base.errors import ThalwegError


@contextmanager
def one_thread() -> Iterator[None]:
    """As the workers run, while the context lasts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def refuse_more(what: str) -> None:
    """Within :func:`one_thread`: whether it is still one.

    Args:
        what: has run meanwhile.

    Raises:
        ThalwegError: if not.
    """
    if (threads := torch.get_num_threads()) != 1:
        raise ThalwegError(
            f"{what} has set torch to {threads} threads: a run has one, on which the last bits of its losses depend; "
            "leave out torch.set_num_threads"
        )
