"""A small GPT on bytes."""

from __future__ import annotations

from torch import nn

from thalweg.lab.tasks._model import fresh
from thalweg.lab.tasks.corpus import CONTEXT, VOCABULARY, NextByte
from thalweg.lab.tasks.scaled import width
from thalweg.train.gpt import Gpt

#: width of a head
HEAD = 16


class BytesGpt(NextByte):
    """A byte-level GPT (2 layers, width 64, context 64) on Python source."""

    name = "bytes-gpt"
    steps = 400
    good_for = "clear differences after a few seconds: Muon is far ahead of AdamW, and AdamW of momentum"
    seconds_per_run = 6.0

    def model(self, seed: int, size: float = 1) -> nn.Module:
        """Some 0.13 M parameters; of another size it is wider, with heads of 16."""
        d = width(_of_width, 64, size, HEAD)
        return fresh(seed, lambda: _of_width(d))


def _of_width(d: int) -> Gpt:
    return Gpt(layers=2, width=d, heads=d // HEAD, vocabulary=VOCABULARY, context=CONTEXT)
