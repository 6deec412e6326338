"""What others would say of a run: norms, as wandb.watch shows them, and rules of the kind that TrainCheck publishes.

Both are written here after their descriptions and look at 30 updates of the run itself.

- *Norms* (wandb.watch draws histograms of gradients and parameters, and gives no verdict): somebody who looks at them
  is taken to notice a tensor whose gradient is missing, zero or not finite, and a norm that grows a hundredfold.
- *Rules* (TrainCheck, OSDI 2025): its invariants are inferred from healthy runs. These are the relations that its paper
  and its success stories name, as they would be inferred from the healthy set-ups here: a step changes every trainable
  matrix; each has a gradient after backward and none after zero_grad; the model is in training mode; the calls of an
  update come in the same order and number; tied tensors stay one; frozen parameters and their buffers stay as they are.
"""

import math
import warnings

import torch

UPDATES = 30
GROWTH = 100.0


def verdicts(setup):
    """What norms and rules say of a set-up, each as a few words; empty where they say nothing."""
    looking = _Looking(setup)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for _ in setup.updates(UPDATES):
                looking.after_update()
        except Exception as error:  # the run itself ends
            words = f"the run ends: {type(error).__name__}"
            return words, words
    return looking.norms, looking.rules


class _Looking:
    def __init__(self, setup):
        self.setup, self.norms, self.rules = setup, "", ""
        self.begin = {}
        self.before = self._values()
        self.buffers = self._frozen_buffers()
        self.calls = {"step": 0, "scheduled": 0, "cleared": 0}
        self._count(setup.optimizer, "step", "step")
        self._count(setup.optimizer, "zero_grad", "cleared")
        if setup.scheduler is not None:
            self._count(setup.scheduler, "step", "scheduled")
        self._before_step(setup)

    def _count(self, thing, name, what):
        method = getattr(thing, name)

        def counted(*args, **kwargs):
            if what == "step":
                self._look_at_gradients()
            self.calls[what] += 1
            return method(*args, **kwargs)

        setattr(thing, name, counted)

    def _before_step(self, setup):
        if setup.loop.scaler is not None:  # its step is not the optimizer's
            update = setup.loop.scaler.step
            setup.loop.scaler.step = lambda optimizer: (self._look_at_gradients(), update(optimizer))

    def _look_at_gradients(self):
        for name, p in self.setup.model.named_parameters():
            if not p.requires_grad:
                continue
            size = math.nan if p.grad is None else float(p.grad.norm())
            first = self.begin.setdefault(name, size)
            if p.grad is None:
                self.norms = self.norms or f"no gradient in {name}"
                self.rules = self.rules or f"no gradient after backward in {name}"
            elif size == 0:
                self.norms = self.norms or f"zero gradient in {name}"
            elif not math.isfinite(size):
                self.norms = self.norms or f"gradient of {name} is not finite"
            elif size > GROWTH * first > 0:
                self.norms = self.norms or f"norm in {name} grew over {10 ** int(math.log10(size / first)):,} times"

    def _values(self):
        return {name: p.detach().clone() for name, p in self.setup.model.named_parameters()}

    def _frozen_buffers(self):
        frozen = [
            m for m in self.setup.model.modules() if m._parameters and not any(p.requires_grad for p in m.parameters())
        ]
        return [(b, b.clone()) for m in frozen for b in m.buffers(recurse=False)]

    def after_update(self):
        now, calls, setup = self._values(), self.calls, self.setup
        broken = self._unchanged(now) or self._frozen(now)
        if not setup.model.training:
            broken = broken or "the model is not in training mode"
        if calls["cleared"] != 1:
            broken = broken or "no zero_grad in an update"
        if calls["step"] != 1:
            broken = broken or "no step in an update"
        if setup.scheduler is not None and calls["scheduled"] != 1:
            broken = broken or f"{calls['scheduled']} scheduler steps in an update"
        self.rules = self.rules or broken
        self.before, self.calls = now, dict.fromkeys(calls, 0)

    def _unchanged(self, now):
        for name, p in self.setup.model.named_parameters():
            same = name in self.before and now[name].shape == self.before[name].shape
            if p.ndim > 1 and p.requires_grad and same and torch.equal(now[name], self.before[name]):
                return f"a step does not change {name}"
        return ""

    def _frozen(self, now):
        if any(not torch.equal(buffer, value) for buffer, value in self.buffers):
            return "buffers of a frozen layer change"
        names = [n for n, p in self.setup.model.named_parameters() if not p.requires_grad and n in self.before]
        return next((f"frozen {n} changes" for n in names if not torch.equal(now[n], self.before[n])), "")
