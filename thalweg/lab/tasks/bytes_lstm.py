"""The recurrent case: an LSTM on bytes."""

from __future__ import annotations

from torch import Tensor, nn

from thalweg.lab.tasks._model import fresh
from thalweg.lab.tasks.corpus import VOCABULARY, NextByte
from thalweg.lab.tasks.scaled import width


class BytesLstm(NextByte):
    """A byte-level LSTM (128 units, context 64) on Python source."""

    name = "bytes-lstm"
    steps = 400
    good_for = "recurrent networks, whose gates lie in two matrices: Muon is ahead of AdamW, then momentum"
    seconds_per_run = 3.5

    def model(self, seed: int, size: float = 1) -> nn.Module:
        """Some 0.15 M parameters; of another size it is wider."""
        d = width(lambda d: Lstm(d, 2 * d), 64, size)
        return fresh(seed, lambda: Lstm(d, 2 * d))


class Lstm(nn.Module):
    """Embedding, one recurrent layer, head: bytes (batch, time) to logits (batch, time, 256) of each next byte."""

    def __init__(self, d: int = 64, hidden: int = 128) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, d)
        self.lstm = nn.LSTM(d, hidden, batch_first=True)
        self.head = nn.Linear(hidden, VOCABULARY)

    def forward(self, x: Tensor) -> Tensor:
        """Logits; the state starts at zero."""
        states, _ = self.lstm(self.tokens(x))
        logits: Tensor = self.head(states)
        return logits
