"""A watch beside the ``Trainer`` of Lightning."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from thalweg.diagnosis.inflight.watching import Watch, watch


class LightningWatch(Callback):
    """Watches a run of Lightning's ``Trainer``: ``Trainer(..., callbacks=[LightningWatch(log="run.jsonl")])``.

    Attributes:
        watch: of the run, once it has begun; its findings stay there.
    """

    def __init__(self, **arguments: Any) -> None:
        """Prepare.

        Args:
            arguments: of :func:`thalweg.watch`, but for model, optimizer, scheduler and steps.
        """
        self.arguments = arguments
        self.watch: Watch | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to watch."""
        wrapped = trainer.strategy.model
        model = wrapped if isinstance(wrapped, nn.parallel.DistributedDataParallel) else pl_module
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs if config.interval == "step"]
        steps = trainer.estimated_stepping_batches
        made = {"steps": steps if isinstance(steps, int) else None, **self.arguments}
        self.watch = watch(model, trainer.optimizers, schedulers or None, **made)

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Tensor) -> None:
        """Tell the loss, which was divided by the number of micro-batches and multiplied by the scale of a scaler."""
        if self.watch is None:
            return
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        share = 1 / trainer.accumulate_grad_batches
        if scaler is None:
            self.watch.loss(loss, share=share)
        else:
            self.watch.loss(loss.detach() / scaler.get_scale(), share=share)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Look no more."""
        if self.watch is not None:
            self.watch.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Look no more, and say what may have ended the run."""
        if self.watch is not None:
            self.watch.__exit__(type(exception), exception, None)
