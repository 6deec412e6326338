"""Save and resume, bit for bit: weights, optimizer, schedule, place in the data, random generators."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thalweg._base.errors import ThalwegError
from thalweg.schedule import Scheduler
from thalweg.train import rng
from thalweg.train.data import Stream


@dataclass
class Checkpoint:
    """A training's file and what goes into it; ``torch.load(path, weights_only=True)`` can read it."""

    path: Path
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler
    stream: Stream

    def save(self, step: int) -> None:
        """Write everything; a kill at any time leaves the old file or the new one, never a broken one.

        Raises:
            ThalwegError: if it cannot be written; the old file is kept.
        """
        content = {
            "step": step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "data": self.stream.state_dict(),
            "rng": rng.capture(),
        }
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with part.open("wb") as file:
                torch.save(content, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path)
        except (OSError, RuntimeError) as error:
            part.unlink(missing_ok=True)
            raise ThalwegError(f"cannot write the checkpoint {self.path}: {error}") from error

    def load(self) -> int:
        """Put everything back as it was saved, if the file is there; the step to go on from, else 0.

        Raises:
            ThalwegError: if the file is no checkpoint of this model and optimizer.
        """
        if not self.path.exists():
            return 0
        try:
            content: dict[str, Any] = torch.load(self.path, weights_only=True)
            self.model.load_state_dict(content["model"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.scheduler.load_state_dict(content["scheduler"])
            self.stream.load_state_dict(content["data"])
            rng.restore(content["rng"])
        except Exception as error:
            raise ThalwegError(f"{self.path} is no checkpoint of this training: {error}") from error
        return int(content["step"])
