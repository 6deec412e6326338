"""An optimizer as a stranger writes it, and what goes wrong in such: each class below it has one fault."""

from __future__ import annotations

import math

import torch

from thalweg.testing import Case


class Momentum(torch.optim.Optimizer):
    """Momentum as ``torch.optim.SGD`` has it, tensor by tensor. Nothing is wrong with it."""

    def __init__(self, params, lr=1e-3, momentum=0.9, nesterov=False, weight_decay=0.0, maximize=False):
        if isinstance(lr, float) and not lr >= 0:
            raise ValueError(f"lr={lr}: expected at least 0")
        given = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, {"lr": lr, **given})

    @torch.no_grad()
    def step(self, closure=None):
        loss = self.loss(closure)
        self.update()
        return loss

    def update(self):
        self.begin()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.look(p)
                    self.move(p, self.gradient(p, group), self.state[p], group)

    def loss(self, closure):
        if closure is not None:
            with torch.enable_grad():
                return closure()
        return None

    def begin(self):
        pass

    def look(self, p):
        if p.grad.is_sparse:
            raise RuntimeError("Momentum takes no sparse gradients")

    def gradient(self, p, group):
        g = -p.grad if group["maximize"] else p.grad
        return g.add(p, alpha=group["weight_decay"])

    def move(self, p, g, state, group):
        p.sub_(group["lr"] * self.direction(g, state, group))

    def direction(self, g, state, group):
        b = self.buffer(g, state, group)
        return g + group["momentum"] * b if group["nesterov"] else b

    def buffer(self, g, state, group):
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = g.clone()
        else:
            state["momentum_buffer"].mul_(group["momentum"]).add_(g)
        return state["momentum_buffer"]


def torchs(params, **given):
    return torch.optim.SGD(params, **{"momentum": 0.9, **given})


FLAGS = [{"momentum": 0.5}, {"nesterov": True}, {"weight_decay": 0.1}, {"maximize": True}]


def case(optimizer, reference=torchs, **more):
    return Case(optimizer, reference, FLAGS, bad={"lr": [-1.0]}, **more)


class KeepsItsStateToItself(Momentum):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.buffers = {}

    def move(self, p, g, state, group):
        super().move(p, g, self.buffers.setdefault(p, {}), group)


class IgnoresNesterov(Momentum):
    def direction(self, g, state, group):
        return self.buffer(g, state, group)


class WritesToTheGradient(Momentum):
    def gradient(self, p, group):
        return p.grad.mul_(-1 if group["maximize"] else 1).add_(p, alpha=group["weight_decay"])


class LosesAnAttribute(Momentum):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.scale = 1.0

    def direction(self, g, state, group):
        return self.scale * super().direction(g, state, group)


class DecaysAfterTheBuffer(Momentum):
    def gradient(self, p, group):
        return -p.grad if group["maximize"] else p.grad

    def move(self, p, g, state, group):
        p.sub_(group["lr"] * (self.direction(g, state, group) + group["weight_decay"] * p))


class BeginsTheBufferAtZero(Momentum):
    def buffer(self, g, state, group):
        state.setdefault("momentum_buffer", torch.zeros_like(g))
        return super().buffer((1 - group["momentum"]) * g, state, group)


class ForgetsSlowly(Momentum):
    """Right in the first step."""

    def buffer(self, g, state, group):
        return super().buffer(g, state, {**group, "momentum": group["momentum"] + 1e-6})


class RemembersTheFirstRate(Momentum):
    def __init__(self, params, lr=1e-3, **given):
        super().__init__(params, lr, **given)
        self.rate = lr

    def __getstate__(self):
        return {**super().__getstate__(), "rate": self.rate}

    def move(self, p, g, state, group):
        p.sub_(self.rate * self.direction(g, state, group))


class ReadsDefaultsForGroups(Momentum):
    def move(self, p, g, state, group):
        super().move(p, g, state, {**group, "momentum": self.defaults["momentum"], "lr": self.defaults["lr"]})


class SwallowsArguments(Momentum):
    def __init__(self, params, lr=1e-3, momentum=0.9, nesterov=False, weight_decay=0.0, maximize=False, **others):
        super().__init__(params, lr, momentum, nesterov, weight_decay, maximize)


class TakesAnotherPathOverLists(Momentum):
    def __init__(self, params, lr=1e-3, foreach=None, **given):
        super().__init__(params, lr, **given)
        for group in self.param_groups:
            group["foreach"] = foreach

    def direction(self, g, state, group):
        if group["foreach"]:
            return self.buffer(g, state, group)
        return super().direction(g, state, group)


class MaximizesTheDecayToo(Momentum):
    def gradient(self, p, group):
        g = p.grad.add(p, alpha=group["weight_decay"] + 0.01)
        return -g if group["maximize"] else g


class MovesWithoutGradients(Momentum):
    def begin(self):
        for p in [p for group in self.param_groups for p in group["params"] if p.grad is None]:
            p.grad = torch.zeros_like(p)


class CountsForAll(Momentum):
    """A rule with a count of steps, which is one for all parameters and an attribute."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.count = 0

    def begin(self):
        self.count = vars(self).get("count", 0) + 1

    def direction(self, g, state, group):
        return super().direction(g, state, group) / math.sqrt(self.count)


class StepsAroundItsHooks(Momentum):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.step = type(self).step.__wrapped__.__get__(self)


class CallsTheClosureWithoutGradients(Momentum):
    def loss(self, closure):
        return closure() if closure else None


class KeepsTheLoss(Momentum):
    def loss(self, closure):
        super().loss(closure)


class ComputesInFloat32(Momentum):
    def direction(self, g, state, group):
        if g.is_complex():
            return super().direction(g, state, group)
        return super().direction(g.float(), state, group).to(g.dtype)


class SquaresComplexNumbers(Momentum):
    def direction(self, g, state, group):
        state["square"] = 0.9 * state.get("square", torch.zeros_like(g)) + 0.1 * g * g
        return super().direction(g / (state["square"].sqrt() + 1e-8), state, group)


class LaysParametersOut(Momentum):
    def move(self, p, g, state, group):
        p.data = p.data.contiguous()
        super().move(p, g, state, group)


class MovesCopiesOfWhatHasOtherStrides(Momentum):
    def move(self, p, g, state, group):
        p.reshape(-1).sub_(group["lr"] * self.direction(g, state, group).reshape(-1))


class RoundsToTheFirstDtype(Momentum):
    def direction(self, g, state, group):
        first = group["params"][0].dtype
        return super().direction(g, state, group).to(first if not g.is_complex() else g.dtype)


class WidensParameters(Momentum):
    def move(self, p, g, state, group):
        super().move(p, g, state, group)
        if p.dtype == torch.bfloat16:
            p.data = p.data.float()


class ChecksNothing(Momentum):
    def __init__(self, params, lr=1e-3, momentum=0.9, nesterov=False, weight_decay=0.0, maximize=False):
        given = {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay, "maximize": maximize}
        torch.optim.Optimizer.__init__(self, params, {"lr": lr, **given})


class AddsAGroupBeforeItLooks(Momentum):
    def add_param_group(self, param_group):
        known = {p for group in self.param_groups for p in group["params"]}
        try:
            super().add_param_group(param_group)
        except ValueError:
            self.param_groups.append({**self.defaults, "params": [p for p in param_group["params"] if p not in known]})
            raise


class LeavesGradientsOff(Momentum):
    def step(self, closure=None):
        loss = self.loss(closure)
        torch.set_grad_enabled(False)
        self.update()
        return loss


class DropsNames(Momentum):
    def state_dict(self):
        found = super().state_dict()
        for group in found["param_groups"]:
            group.pop("param_names", None)
        return found


class GoesUp(Momentum):
    def move(self, p, g, state, group):
        super().move(p, -g, state, group)


class WantsRows(Momentum):
    def direction(self, g, state, group):
        return super().direction(g.view(g.shape[0], -1), state, group).view(g.shape)


class DecaysWhateverTheRate(Momentum):
    def move(self, p, g, state, group):
        p.mul_(1 - 1e-4)
        super().move(p, g, state, group)


class SpeaksOfSomethingElse(Momentum):
    def look(self, p):
        if p.grad.is_sparse:
            raise KeyError("indices")


class RefusesAnEmptyCheckpoint(Momentum):
    def load_state_dict(self, state_dict):
        if not state_dict["state"]:
            raise ValueError("nothing was saved")
        super().load_state_dict(state_dict)


class TakesRatesThatAreFloats(Momentum):
    def move(self, p, g, state, group):
        group["lr"].hex()
        super().move(p, g, state, group)
