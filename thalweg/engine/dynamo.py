"""Keeping `torch.compile` out of a step, without loading it where nobody compiles: that import takes a second."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch.compiler import is_dynamo_compiling

#: what looks at each frame of this thread on behalf of `torch.compile`; None where nobody compiles
compiling: Callable[[], Any] = getattr(torch._C._dynamo.eval_frame, "get_eval_frame_callback", lambda: True)

F = TypeVar("F", bound=Callable[..., Any])


def uncompiled(function: F) -> F:
    """``function`` with a clean graph break around it, should it be called in a compiled region."""

    guarded = torch._disable_dynamo(function)  # type: ignore[attr-defined]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" in sys.modules and (is_dynamo_compiling() or compiling() is not None):
            return guarded(*args, **kwargs)
        return function(*args, **kwargs)

    return cast(F, call)


def bare(method: F) -> F:
    """A method of torch's optimizers without the wrapper that loads the compiler when it is first called."""
    return uncompiled(cast(F, getattr(method, "__wrapped__", method)))
