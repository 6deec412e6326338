"""Schedule-free: a mean of the weights replaces the schedule, and gradients are taken near that mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.engine.dynamo import uncompiled
from thalweg.ir import counter_rng
from thalweg.ir.fields import plain
from thalweg.ir.trace import kept_states
from thalweg.rule import Optimizer, count, hyper, ops, shared, state
from thalweg.runtime.formats import Format
from thalweg.runtime.state import beside_name, formats_of
from thalweg.runtime.tensors import local
from thalweg.shards import gathered


class ScheduleFree(Optimizer):
    """Base of all: the parameters hold y in training, and after :meth:`eval` their mean x.

    Call ``eval()`` before the model is evaluated or its weights are handed on, and ``train()`` before training goes on,
    as on the model itself. It begins in train mode (the authors' code begins in eval mode, where it refuses to step).
    In eval mode y stands in the state, so that ``train()`` brings it back to the bit, and a checkpoint goes on in the
    mode in which it was made. What changes the step of y alone cannot go with it: cautious, trust_ratio, hyperball.
    """

    kept_besides = ("y",)

    r: float = hyper(default=0.0, within="[0, ∞)", doc="r, power of the step number in weightₜ", kw_only=True)
    weight_lr_power: float = hyper(default=2.0, within="[0, ∞)", doc="q, power of Γ in weightₜ", kw_only=True)
    train_mode: bool = hyper(default=True, init=False, doc="whether the parameters are y, not x")
    cautious: bool = hyper(default=False, within=(False,), init=False)
    cautious_decay: bool = hyper(default=False, within=(False,), init=False)
    hyperball: Literal[False] = hyper(default=False, within=(False,), init=False)
    independent_weight_decay: bool = hyper(default=False, within=(False,), init=False)
    trust_ratio: bool = hyper(default=False, within=(False,), init=False)

    k: float = shared(doc="k, steps of the whole group so far")
    lr_max: float = shared(doc="Γ, largest rate so far")
    weight_sum: float = shared(doc="W, sum of all weightₜ so far")
    z: Tensor = state(doc="z, the point that the steps move, without averaging", begins_at_p=True)

    @uncompiled
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; refused in eval mode."""
        if not all(group["train_mode"] for group in self.param_groups):
            allowed = "True for a step: the parameters hold their mean now"
            raise bad_argument("train_mode", False, allowed, "Call optimizer.train() first")
        return super().step(closure)

    @torch.no_grad()
    def eval(self) -> None:
        """Let the parameters be x, the mean; nothing where they are already."""
        for p, mine, memory, z, beta in self._switched(to_train=False):
            mine["y"] = p.clone(memory_format=torch.preserve_format)
            local(p).copy_(mean_of(memory.numbers(p), z, beta))
        self._drop_gathered()

    @torch.no_grad()
    def train(self) -> None:
        """Let the parameters be y, where gradients are taken; found from x where somebody has written to that."""
        for p, mine, memory, z, beta in self._switched(to_train=True):
            x = local(p)
            y = torch.lerp(x.to(z.dtype), z, 1 - beta)
            if (before := mine.pop("y", None)) is not None:
                was = memory.numbers(before)
                y = torch.where(x == mean_of(was, z, beta).to(x.dtype), was, y)
            memory.store(y, p)
        self._drop_gathered()

    def _drop_gathered(self) -> None:
        gathered.drop(p for group in self.param_groups for p in group["params"])

    def _switched(self, to_train: bool) -> Iterator[tuple[Tensor, dict[str, Any], _Memory, Tensor, float]]:
        """Parameters with a z, in groups of the other mode, which is theirs afterwards: with state, z and β."""
        for group in self.param_groups:
            if group["train_mode"] == to_train:
                continue
            specs, beta = kept_states(self.rule, group), plain(self._beta(group))
            for p in group["params"]:
                mine = self.state.get(p, {})
                if mine.get("z") is not None:
                    formats = formats_of(p.dtype, specs, self.storage)
                    bits = mine[beside_name("p", formats["p"])] if formats["p"].beside else None
                    z = formats["z"].decode(local(mine["z"]), None)
                    yield p.detach(), mine, _Memory(formats["p"], bits), z, beta
            group["train_mode"] = to_train

    def _beta(self, group: dict[str, Any]) -> Any:
        """The share of x in y."""
        return group["betas"][0]

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if any(spec.kind == "count" for spec in self.rule.states.values()):
            for group in self.param_groups:  # the authors' code counts steps of the group alone
                for mine in (self.state[p] for p in group["params"] if "z" in self.state.get(p, {})):
                    mine.setdefault("step", torch.tensor(float(group["k"])))


class _Memory(NamedTuple):
    """How a parameter lies in memory: its format, and the bits below it."""

    format: Format
    bits: Tensor | None

    def numbers(self, p: Tensor) -> Tensor:
        """What it stands for."""
        return self.format.decode(local(p), self._bits)

    def store(self, numbers: Tensor, p: Tensor) -> None:
        """Let it stand for these, to the nearest."""
        Format(self.format.name).encode(numbers, local(p), self._bits, counter_rng.nearest)

    @property
    def _bits(self) -> Tensor | None:
        return None if self.bits is None else local(self.bits)


def mean_of(y: Tensor, z: Tensor, beta: float) -> Tensor:
    """The x of which there is a share β in y, beside z."""
    return torch.lerp(y, z, 1 - 1 / beta)


def averaged(p: Any, g: Any, s: Any, h: Any, beta: Any, rate: Any, rate_of_all: Any) -> tuple[Any, Any]:
    r"""The direction of y while z steps by ``rate`` times g and its decay; and the share of g in it.

    $$y \leftarrow (1-c)\,y + c z - \gamma\,(1 - \beta(1-c))\,g$$

    This is what $y = \beta x + (1-\beta) z$ and $x \leftarrow (1-c)\,x + c z$ come to without x. ``rate_of_all`` is
    that of parameters which have taken part in all steps; the weights of the mean follow it.
    """
    s.k = s.k + 1
    s.lr_max = ops.maximum(s.lr_max, rate_of_all)
    weight = s.k**h.r * s.lr_max**h.weight_lr_power
    s.weight_sum = s.weight_sum + weight
    c = weight / ops.nonzero(s.weight_sum)
    unit = ops.nonzero(h.lr)  # the step multiplies a direction by lr
    share = (1 - beta * (1 - c)) * rate / unit
    u = share * g + c / unit * (p - s.z)
    s.z = s.z - rate * (g + h.weight_decay * p if h.weight_decay and h.decoupled_weight_decay else g)
    return u, share


class ScheduleFreeSGD(ScheduleFree):
    r"""Schedule-Free SGD moves a point z by plain steps, keeps the mean x of all z, and computes gradients at a point y
    between the two; it has no momentum and no schedule.

    $$y_t = (1-\beta)\,z_t + \beta x_t, \quad z_{t+1} = z_t - \gamma_t\,g(y_t), \quad
    x_{t+1} = (1-c_t)\,x_t + c_t z_{t+1}$$
    $$c_t = w_t / \textstyle\sum_{i \le t} w_i, \quad w_t = t^r\,(\max_{i \le t} \gamma_i)^2$$

    The parameters hold y. Call ``eval()`` before you evaluate or save the model: it puts x in the place of y.
    ``train()`` puts y back. $\gamma_t$ is ``lr`` times a linear warmup over ``warmup_steps``, β is ``momentum``, and
    the exponent 2 is ``weight_lr_power``. Weight decay is added to the gradient, at y. A good learning rate is larger
    than the best peak of a schedule that decays.

    Parent: SGD. Adds: a mean of the points on its path, instead of momentum and a schedule; gradients are taken near
    this mean.
    Strength: At any time it is about as good as a schedule that knows when training ends, and it keeps one state, as
    momentum does.
    Weakness: The weights must be switched for evaluation (``eval()``), the statistics of batch norm must be computed
    again at x, and the learning rate must still be tuned.
    Source: Defazio et al. 2024, "The road less scheduled", https://arxiv.org/abs/2405.15682, and the authors' code
    """

    lr: float = hyper(default=1.0, within="[0, ∞)", doc="γ, step size")
    momentum: float = hyper(default=0.9, within="(0, 1)", doc="β, share of x in y")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ of the L2 penalty, at y", off=0)
    warmup_steps: float = hyper(default=0, within="[0, ∞)", doc="T, length of the linear warmup in steps")
    decoupled_weight_decay: bool = hyper(default=False, within=(False,), init=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The way of y."""
        rate = warmed(s, h)
        u: Tensor = averaged(p, g, s, h, h.momentum, rate, rate)[0]
        return u

    def _beta(self, group: dict[str, Any]) -> Any:
        return group["momentum"]


class ScheduleFreeAdamW(ScheduleFree):
    r"""Schedule-Free AdamW moves a point z by gradients that are divided by Adam's denominator. It computes the
    gradients at a point y between z and a third point x, which is a weighted mean of all the places where z has been.

    $$v_t = \beta_2 v_{t-1} + (1-\beta_2)\,g(y_t)^2, \quad z_{t+1} = z_t - \gamma_t
    \Bigl(\frac{g(y_t)}{\sqrt{v_t / (1-\beta_2^t)} + \epsilon} + \lambda y_t\Bigr)$$

    The parameters hold y, which is $(1-\beta_1)\,z + \beta_1 x$; x itself is not stored. $c_t$ is the share of the
    newest z in x, as in ScheduleFreeSGD. ``rate`` (also written $\gamma_t$) is the learning rate of a step: ``lr``
    times a linear warmup over ``warmup_steps``. The authors recommend a warmup; ``warmup_steps`` is 0 unless you set
    it. ``unit`` is ``lr``, or 1 if ``lr`` is 0: it cancels the ``lr`` by which Thalweg multiplies every direction. Call
    the optimizer's ``eval()`` before you evaluate or save the model: it puts x in the place of y. The optimizer's
    ``train()`` puts y back. Checkpoints of the authors' code can be loaded.

    Parent: AdamW. Adds: a mean of the points on its path, instead of momentum and a schedule; gradients are taken near
    this mean.
    Strength: In the authors' experiments it is at any time about as good as AdamW with a schedule that ends at this
    time. In training it takes no more memory than AdamW; after ``eval()`` it keeps one more copy of the weights.
    Weakness: The weights must be switched for evaluation (``eval()``), the statistics of batch norm must be computed
    again at x, and it is more sensitive to β₁ than AdamW.
    Source: Defazio et al. 2024, "The road less scheduled", algorithm 1, https://arxiv.org/abs/2405.15682
    Differs: The paper multiplies $\gamma_t$ by $\sqrt{1-\beta_2^t}$, so this factor is also in $c_t$ and in the decay;
    here, as in the authors' later code, $v_t$ is divided by $1-\beta_2^t$. For a parameter that is added later, t
    counts its own steps; in the authors' code it counts those of its group.
    """

    lr: float = hyper(default=0.0025, within="[0, ∞)", doc="γ, step size")
    betas: tuple[float, float] = hyper(
        default=(0.9, 0.999), within="(0, 1)", doc="β₁, share of x in y; β₂, share of v that is kept"
    )
    eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(
        default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay, which acts on y", off=0
    )
    warmup_steps: float = hyper(default=0, within="[0, ∞)", doc="T, length of the linear warmup in steps")
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)

    steps: Tensor = count()
    exp_avg_sq: Tensor = state(doc="v, mean of squared gradients", signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Any:
        """The way of y, and what decay takes from."""
        beta1, beta2 = h.betas
        s.exp_avg_sq = torch.addcmul(beta2 * s.exp_avg_sq, g, g, value=1 - beta2)
        g = g / (torch.sqrt(s.exp_avg_sq) / (1 - beta2**h.step) ** 0.5 + h.eps)
        rate = warmed(s, h)
        u, share = averaged(p, g, s, h, beta1, rate, rate)
        return u, share * p


class ScheduleFreeRAdam(ScheduleFreeAdamW):
    r"""Schedule-Free RAdam is Schedule-Free AdamW with RAdam's factor for how little is known of the squares at first,
    instead of a warmup.

    $$\gamma_t = \gamma\,r_t \text{ where } \rho_t > 4, \text{ else } 0$$

    Here $\rho_t$ and $r_t$ are RAdam's, and all else is as in ScheduleFreeAdamW. So nothing moves in the first steps,
    where $\rho_t \le 4$; with ``silent_sgd_phase=False`` z moves by γ times the plain gradient in these steps.

    Parent: ScheduleFreeAdamW. Adds: RAdam's rectification.
    Strength: There is no warmup to choose.
    Weakness: Its weaknesses are those of ScheduleFreeAdamW.
    Source: Defazio et al. 2024, "The road less scheduled", https://arxiv.org/abs/2405.15682, and the authors' code;
    Liu et al. 2020, "On the variance of the adaptive learning rate and beyond", algorithm 2
    """

    warmup_steps: float = hyper(default=0, within=(0,), init=False)
    silent_sgd_phase: bool = hyper(default=True, doc="wait until the squares are known, instead of plain steps")

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Any:
        """The way of y, and what decay takes from."""
        beta1, beta2 = h.betas
        s.exp_avg_sq = torch.addcmul(beta2 * s.exp_avg_sq, g, g, value=1 - beta2)
        sure, rate = rectified(h.step, h)
        g = g / ops.where(sure, torch.sqrt(s.exp_avg_sq) / (1 - beta2**h.step) ** 0.5 + h.eps, 1.0)
        u, share = averaged(p, g, s, h, beta1, rate, rectified(s.k + 1, h)[1])
        return u, share * p


def warmed(s: Any, h: Any) -> Any:
    """γ of the step after ``s.k``."""
    return h.lr * ops.minimum((s.k + 1) / ops.maximum(h.warmup_steps, 1.0), 1.0)


def rectified(t: Any, h: Any) -> tuple[Any, Any]:
    """Whether t steps have shown enough squares, and γ of step t."""
    beta2 = h.betas[1]
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / (1 - beta2**t)
    sure = length > 4  # 1 or 0; both branches stay finite
    below = sure * (longest - 4) * (longest - 2) * length + (1 - sure)
    factor = (sure * (length - 4) * (length - 2) * longest / below) ** 0.5
    return sure, h.lr * (factor if h.silent_sgd_phase else factor + (1 - sure))
