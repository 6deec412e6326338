"""A watch beside the ``Trainer`` of Hugging Face's transformers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.compiler import is_compiling
from transformers import TrainerCallback

from thalweg.diagnosis.inflight.watching import Watch, watch


class TrainerWatch(TrainerCallback):
    """Watches a run of the ``Trainer``: ``Trainer(..., callbacks=[TrainerWatch(log="run.jsonl")])``.

    The loss is that which the model returns. Where it returns none, since the labels are not given to it or it is
    compiled, it is the mean that the ``Trainer`` logs.

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
        self.handle: Any = None
        self.told = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **known: Any) -> None:
        """Begin to watch."""
        self._end()
        model: nn.Module = known["model"]
        made = {"steps": state.max_steps, **self.arguments}
        self.watch = watch(model, known["optimizer"], known["lr_scheduler"], **made)
        self.handle = model.register_forward_hook(self._hook(args), with_kwargs=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Tell the logged loss, where the model does not."""
        if self.watch is not None and not self.told and isinstance(loss := (logs or {}).get("loss"), float):
            self.watch.loss(loss)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Look no more."""
        self._end()

    def _hook(self, args: Any) -> Any:
        """What sees the outputs of the model; a compiled one is left as it is."""
        parts = args.gradient_accumulation_steps
        parts *= args.world_size if args.average_tokens_across_devices else 1

        def hook(model: nn.Module, _: Any, given: dict[str, Any], output: Any) -> None:
            if is_compiling() or not model.training or self.watch is None:
                return
            loss = output.get("loss") if hasattr(output, "get") else None
            if isinstance(loss, Tensor):
                self.told = True
                # where the model is told the tokens of all micro-batches, it divides by them
                self.watch.loss(loss, share=1.0 if given.get("num_items_in_batch") is None else 1 / parts)

        return hook

    def _end(self) -> None:
        if self.handle is not None:
            self.handle.remove()
        if self.watch is not None:
            self.watch.close()
