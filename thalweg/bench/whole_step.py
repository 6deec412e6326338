"""A whole training step: an optimizer that is fast alone but leaves the cores or caches in disorder shows here."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor

from thalweg.bench import entrants, torchs
from thalweg.bench.result import WholeStep
from thalweg.bench.turns import ratio, reason, take_turns
from thalweg.bench.works import Load, Work
from thalweg.train.gpt import Gpt

#: layers, width, heads, vocabulary, context; batch
SIZE, BATCH = (4, 256, 4, 4096, 128), 4
TINY, TINY_BATCH = (1, 16, 2, 32, 8), 2


@dataclasses.dataclass
class _Training:
    """A model, its optimizers, and one step of both on a fixed batch."""

    model: Gpt
    entrant: entrants.Entrant
    tokens: Tensor

    def prepare(self) -> None:
        """Nothing: gradients come from backward, new tensors at each step."""

    def step(self) -> None:
        """Forward, backward, step, zero_grad."""
        self.model.loss(self.tokens).backward()  # type: ignore[no-untyped-call]
        self.entrant.step()
        for optimizer in self.entrant.optimizers:
            optimizer.zero_grad()


def whole_step(name: str, seconds: float, least: int, most: int, tiny: bool = False, device: str = "cpu") -> WholeStep:
    """Train the same model from the same start with ours and with torch's fastest, in turn.

    Args:
        name: of the optimizer; torch has one of that name.
        seconds, least, most: how long each steps, as :func:`thalweg.bench.turns.take_turns` takes them.
        tiny: a model for tests.
        device: where it trains.
    """
    size, batch = (TINY, TINY_BATCH) if tiny else (SIZE, BATCH)
    torch.manual_seed(0)
    model, tokens = Gpt(*size, like_gpt2=True).to(device), torch.randint(size[3], (batch, size[4] + 1)).to(device)
    parameters = sum(p.numel() for p in model.parameters())
    result: WholeStep = {
        "optimizer": name, "backend": None, "torch_kind": None, "parameters": parameters, "tokens": batch * size[4],
        "ms": None, "spread": None, "torch_ms": None, "torch_spread": None, "vs_torch": None, "note": "",
    }  # fmt: skip
    try:
        ours = _training(model, tokens, lambda load: entrants.ours(name, load, "auto", {}))
        torch_s = _training(model, tokens, lambda load: _torchs(name, load))
    except Exception as error:  # its result, not the benchmark's end
        return {**result, "note": reason(error)}
    times = take_turns({"ours": ours, "torch": torch_s}, seconds, least, most, device=device)
    mine, theirs = times["ours"], times["torch"]
    return {
        **result,
        "backend": entrants.backend_of(ours.entrant.optimizers[0]),
        "torch_kind": torch_s.entrant.kind,
        "ms": mine.ms,
        "spread": mine.spread,
        "torch_ms": theirs.ms,
        "torch_spread": theirs.spread,
        "vs_torch": ratio(theirs, mine),
        "note": mine.error or theirs.error,
    }


def _training(model: Gpt, tokens: Tensor, make: Any) -> _Training:
    twin = copy.deepcopy(model)
    named = dict(twin.named_parameters())
    matrices = tuple(name.startswith("blocks.") and p.ndim == 2 for name, p in named.items())
    work = Work("whole step", tuple(tuple(p.shape) for p in named.values()), matrices, device=tokens.device.type)
    training = _Training(twin, make(Load(work, list(named.values()), [[]])), tokens)
    training.step()
    training.step()
    return training


def _torchs(name: str, load: Load) -> entrants.Entrant:
    """Torch's over these parameters: fused where it can, else foreach, else plain."""
    kind, optimizers = torchs.first_that_runs(lambda kind: torchs.build(torchs.twin(name), name, load, kind))
    return entrants.Entrant(load, optimizers, kind)
