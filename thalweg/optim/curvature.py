"""Steps in units of curvature: the mean gradient over a running estimate of the Hessian's diagonal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg._base.given import stands_still
from thalweg.ir import counter_rng
from thalweg.ir.fields import plain
from thalweg.ir.trace import kept_states
from thalweg.rule import Optimizer, count, hyper, state
from thalweg.runtime.state import beside_name, formats_of, new_state, slots
from thalweg.runtime.tensors import local, placed, runs_of
from thalweg.shards.pieces import is_distributed, ranks_of

PROBES = ("rademacher", "normal")


def not_estimated(h: Any) -> float:
    """What the engine calls to begin a ``hessian``: a step before any estimate is refused, and changes nothing."""
    raise bad_argument(
        "hessian", None, "an estimate of each parameter's curvature before its first step", "Call update_hessian first"
    )


def hutchinson(
    loss: Tensor, params: list[Tensor], probe: str = "rademacher", generator: torch.Generator | None = None
) -> list[Tensor | None]:
    r"""An estimate of the Hessian's diagonal for each parameter, right on average.

    $$\hat D = z \odot \nabla (g^\top z), \qquad E\,z z^\top = I$$

    A complex number counts as two real ones. The graph of ``loss`` is kept, so that ``loss.backward()`` may follow.

    Args:
        loss: one number that depends on the parameters.
        params: of any dtypes and devices; one estimate for all, so products between tensors are averaged away too.
        probe: how z is drawn: ``"rademacher"``, ±1 with equal chances, exact for a diagonal Hessian; or ``"normal"``.
        generator: where z comes from; torch's own on each parameter's device if None.

    Returns:
        Tensors as the parameters; None for one that the loss does not depend on or that asks for no gradient.

    Raises:
        ValueError: for a loss without a graph, or one that does not reach sharded parameters, or another probe.
    """
    if probe not in PROBES:
        raise bad_argument("probe", probe, "one of " + ", ".join(map(repr, PROBES)))
    wanted = [i for i, p in enumerate(params) if p.requires_grad]
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad or not wanted:
        raise bad_argument("loss", loss, "one number with its graph", "Call update_hessian(loss), then loss.backward()")
    with torch.enable_grad():
        grads = torch.autograd.grad(loss.sum(), [params[i] for i in wanted], create_graph=True, allow_unused=True)
    z = {i: _probe(params[i], probe, generator) for i, g in zip(wanted, grads, strict=True) if g is not None}
    if not z and any(is_distributed(p) for p in params):
        raise bad_argument(
            "loss", "one whose graph does not reach the sharded parameters", "a graph that ends at them",
            "Under fully_shard it ends at gathered copies: take SophiaG, or hand estimates to take_hessian()",
        )  # fmt: skip
    estimates: list[Tensor | None] = [torch.zeros_like(p) if i in z else None for i, p in enumerate(params)]
    curved = [(g, z[i]) for i, g in zip(wanted, grads, strict=True) if g is not None and g.requires_grad]
    if curved:  # where no gradient depends on the parameters the Hessian is 0
        outputs, vectors = zip(*curved, strict=True)
        products = torch.autograd.grad(
            outputs, [params[i] for i in z], vectors, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        for i, product in zip(z, products, strict=True):
            estimates[i] = _pairwise(z[i], product)
    return estimates


def _probe(p: Tensor, probe: str, generator: torch.Generator | None) -> Tensor:
    device = p.device if generator is None else generator.device
    shape = (*p.shape, 2) if p.is_complex() else p.shape
    if probe == "normal":
        z = torch.randn(shape, generator=generator, device=device)
    else:
        z = 2.0 * torch.randint(2, shape, generator=generator, device=device) - 1
    z = z.to(p.device, p.dtype.to_real())
    return placed(torch.view_as_complex(z) if p.is_complex() else z, p)  # of ranks, all take what the first drew


def _pairwise(a: Tensor, b: Tensor) -> Tensor:
    """Products of elements; of the real and the imaginary parts of complex ones."""
    if not a.is_complex():
        return a * b
    return torch.view_as_complex(torch.view_as_real(a) * torch.view_as_real(b.resolve_conj()))


def _pairwise_abs(D: Tensor) -> Tensor:
    return torch.view_as_complex(torch.view_as_real(D).abs()) if D.is_complex() else D.abs()


def _squares(g: Tensor) -> Tensor:
    """In float32 at least: squares of small gradients are nothing in 16 bits."""
    g = g.to(torch.promote_types(g.dtype, torch.float32))
    return _pairwise(g, g)


class Curvature(Optimizer):
    """Base of optimizers that keep an estimate of the Hessian's diagonal, which the user has refreshed now and then.

    ``update_hessian`` makes an estimate and hands it to :meth:`take_hessian`. Every parameter needs one before its
    first step. Training on several processes, see to it that all take the same: average the estimates, or draw the
    same probe everywhere and average the loss.
    """

    hessian: Tensor = state(doc="D, the newest estimate of the Hessian's diagonal", fill=not_estimated)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; ``closure`` recomputes the loss, which is returned."""
        if closure is None and stands_still(self.param_groups):
            self.take_hessian(
                torch.zeros_like(p) if p.grad is not None and "hessian" not in self.state.get(p, {}) else None
                for group in self.param_groups
                for p in group["params"]
            )
        return super().step(closure)

    @torch.no_grad()
    def take_hessian(self, estimates: Iterable[Tensor | None]) -> None:
        """Take an estimate of the Hessian's diagonal that was made elsewhere, of the function that is minimised.

        Args:
            estimates: one for each parameter, in the order of the groups, shaped as it; None for no news.

        Raises:
            ValueError: for another number or other shapes, before anything changes.
        """
        owners = [(group, p) for group in self.param_groups for p in group["params"]]
        found = list(estimates)
        if len(found) != len(owners):
            raise bad_argument("estimates", f"{len(found)} tensors", f"one for each of {len(owners)} parameters")
        for (_, p), D in zip(owners, found, strict=True):
            if D is not None and (D.shape != p.shape or D.is_complex() != p.is_complex()):
                raise bad_argument("estimates", f"{D.dtype} of {tuple(D.shape)}", f"{p.dtype} of {tuple(p.shape)}")
        for i, ((group, p), D) in enumerate(zip(owners, found, strict=True)):
            if D is not None:
                self._fold(i, group, p, D)

    def _fold(self, i: int, group: dict[str, Any], p: Tensor, D: Tensor) -> None:
        """Blend an estimate into the state of the ``i``-th parameter, in whatever format that is kept."""
        specs, mine = kept_states(self.rule, group), self.state[p]
        formats = formats_of(p.dtype, specs, self.storage)
        if "hessian" not in mine:
            begun = [replace(spec, fill=lambda h: 0.0) for spec in specs if spec.name == "hessian"]
            new_state(begun, p, SimpleNamespace(**group), formats, mine)
        f, tensor = formats["hessian"], local(mine["hessian"])
        beside = mine[beside_name("hessian", f)] if f.beside else None
        old = f.decode(tensor, beside)
        D = local(self._averaged(group, D)).to(old.device, old.dtype)
        new = torch.empty_like(old).copy_(self._blend(group, old, D))
        key = counter_rng.key(group.get("seed", self.seed), group.get("updates", 0))
        runs = runs_of([p])[:1] if ranks_of(p) else []
        f.encode(new, tensor, beside, counter_rng.draw(key, i, slots(formats)["hessian"], old.device, *runs))

    def _averaged(self, group: dict[str, Any], D: Tensor) -> Tensor:
        """An estimate as it is to be blended."""
        return D

    def _blend(self, group: dict[str, Any], old: Tensor, D: Tensor) -> Tensor:
        """What is kept of the estimates so far and the new one; complex ones are pairs of real numbers."""
        raise NotImplementedError


class Hutchinson(Curvature):
    """Base of those whose estimate is Hutchinson's, from a product of the Hessian and a random vector."""

    probe: ClassVar[str] = "rademacher"

    def update_hessian(
        self, loss: Tensor, *, probe: str | None = None, generator: torch.Generator | None = None
    ) -> None:
        """Refresh the estimate from a loss; it takes about the time of two more backward passes::

            loss = criterion(model(x), y)
            optimizer.update_hessian(loss)
            loss.backward()
            optimizer.step()

        Args:
            loss: one number with its graph, before ``backward``; not scaled for mixed precision.
            probe: ``"rademacher"`` or ``"normal"`` (see :func:`hutchinson`); that of the paper if None.
            generator: where random vectors come from; torch's own if None.
        """
        owners = [(group, p) for group in self.param_groups for p in group["params"]]
        found = hutchinson(loss, [p for _, p in owners], probe or self.probe, generator)
        signed = [-D if D is not None and group["maximize"] else D for (group, _), D in zip(owners, found, strict=True)]
        self.take_hessian(signed)


class AdaHessian(Hutchinson):
    r"""AdaHessian is Adam that takes its squares from the curvature instead of the gradient, so its steps are long
    where the valley is flat.

    $$m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \quad v_t = \beta_2 v_{t-1} + (1-\beta_2) \bar D_t^2, \quad
    u_t = \frac{m_t / (1-\beta_1^t)}{\bigl(v_t / (1-\beta_2^t)\bigr)^{k/2} + \epsilon}$$

    $\bar D$ is the newest Hutchinson estimate of the Hessian's diagonal, averaged over the window of each convolution
    kernel (``average_rows``: over each row of a matrix too). ``absolute`` averages $\lvert D \rvert$. Decay is
    decoupled. Call ``optimizer.update_hessian(loss)`` before ``loss.backward()`` at each step, or every few of them.

    Parent: Adam. Adds: an estimate of the Hessian's diagonal in place of the gradient.
    Strength: Rescaling a weight does not change its path, so one learning rate serves all layers.
    Weakness: Each estimate of the curvature costs two more backward passes, which not every layer supports.
    Source: Yao et al. 2021, "ADAHESSIAN: An Adaptive Second Order Optimizer for Machine Learning", algorithm 1, eq. 10,
    https://arxiv.org/abs/2006.00719
    Differs: The paper has no ε, the authors' code has. Their code averages $\lvert D \rvert$ (``absolute``); the two
    are the same where nothing is averaged.
    """

    lr: float = hyper(default=0.15, within="[0, ∞)", doc="step size")
    betas: tuple[float, float] = hyper(
        default=(0.9, 0.999), within="[0, 1)", doc="β₁, β₂: shares of the means that are kept"
    )
    eps: float = hyper(default=1e-4, within="[0, ∞)", doc="ε, added to the root")
    weight_decay: float = hyper(default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    hessian_power: float | None = hyper(default=None, within="[0, 1]", doc="k, of the curvature; None is 1", off=None)
    average_rows: bool = hyper(default=False, doc="average D over each row of a matrix", kw_only=True)
    absolute: bool = hyper(default=False, doc="average |D|, not D", kw_only=True)
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)

    steps: Tensor = count()
    exp_avg: Tensor = state(doc="m, mean of gradients")
    exp_hessian_diag_sq: Tensor = state(doc="v, mean of squares of the curvature", signed=False)

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """Mean gradient over root mean square curvature."""
        beta1, beta2 = h.betas
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - beta1)
        s.exp_hessian_diag_sq = torch.addcmul(beta2 * s.exp_hessian_diag_sq, s.hessian, s.hessian, value=1 - beta2)
        size = torch.sqrt(s.exp_hessian_diag_sq) / (1 - beta2**h.step) ** 0.5
        if h.hessian_power:
            size = torch.pow(size, h.hessian_power)
        return s.exp_avg / (1 - beta1**h.step) / (size + h.eps)

    def _averaged(self, group: dict[str, Any], D: Any) -> Any:
        """The mean over the window of a kernel, of which other ranks may have a part."""
        window = tuple(range(2, D.ndim)) or ((1,) if D.ndim == 2 and group["average_rows"] else ())
        D = _pairwise_abs(D) if group["absolute"] else D
        if not window:
            return D
        whole = D.full_tensor() if is_distributed(D) else D
        return placed(whole.mean(window, keepdim=True).expand_as(whole).contiguous(), D)

    def _blend(self, group: dict[str, Any], old: Tensor, D: Tensor) -> Tensor:
        """The newest."""
        return D


class Sophia(Curvature):
    """Base of both: momentum over curvature, each element clipped."""

    lr: float = hyper(default=1e-4, within="[0, ∞)", doc="step size, the most that a weight moves")
    betas: tuple[float, float] = hyper(default=(0.96, 0.99), within="[0, 1)", doc="β₁ of m, β₂ of h: shares kept")
    gamma: float = hyper(default=0.01, within="[0, ∞)", doc="γ, weight of h: the larger, the less is clipped")
    eps: float = hyper(default=1e-12, within="(0, ∞)", doc="ε, the least that is divided by")
    weight_decay: float = hyper(default=0.1, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0)
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)

    hessian: Tensor = state(doc="h, mean of estimates of the Hessian's diagonal", fill=not_estimated)
    exp_avg: Tensor = state(doc="m, mean of gradients")

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Tensor:
        """The clipped quotient."""
        s.exp_avg = torch.lerp(s.exp_avg, g, 1 - h.betas[0])
        return torch.clamp(s.exp_avg / torch.clamp(h.gamma * s.hessian, min=h.eps), -1, 1)

    def _blend(self, group: dict[str, Any], old: Tensor, D: Tensor) -> Tensor:
        """The running mean of estimates, from 0."""
        return torch.lerp(old, D, 1 - plain(group["betas"][1]))


class SophiaH(Sophia, Hutchinson):
    r"""SophiaH divides momentum by curvature, and no weight moves further than lr: the step is Newton's where the
    curvature is large enough, and otherwise a sign.

    $$m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \quad h_t = \beta_2 h_{t-k} + (1-\beta_2) \hat D_t, \quad
    u_t = \operatorname{clip}\Bigl(\frac{m_t}{\max(\gamma h_t, \epsilon)}, 1\Bigr)$$

    $\hat D$ is Hutchinson's estimate from a normal random vector (``probe="rademacher"`` varies less), made by
    ``optimizer.update_hessian(loss)`` before ``backward``; every 10 steps, on a tenth of the batch, will do. Where the
    curvature is not positive the step is lr. γ is to be such that a tenth to a half of the elements are not clipped.

    Parent: Signum. Adds: curvature, wherever it is large enough to matter.
    Strength: A spike or a saddle point moves no weight further than lr, and the estimate costs a few per cent.
    Weakness: γ and the interval between estimates are further numbers to tune, and the model must allow Hessian-vector
    products.
    Source: Liu et al. 2023, "Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training",
    algorithms 1 and 3, https://arxiv.org/abs/2305.14342
    """

    probe = "normal"


class SophiaG(Sophia):
    r"""SophiaG is Sophia with a curvature that is never negative: the squares of gradients for labels that the model
    itself draws.

    $$\hat D_t = B\, \hat g \odot \hat g, \quad \hat g = \nabla \frac1B \sum_{b=1}^B
    \ell\bigl(f(p, x_b), \hat y_b\bigr), \quad \hat y_b \sim \operatorname{softmax} f(p, x_b)$$

    Here $m_t$, $h_t$ and $u_t$ are those of SophiaH. It estimates the diagonal of the Gauss-Newton matrix of a
    cross-entropy. The gradients $\hat g$ are those that stand in the parameters when ``optimizer.update_hessian(B)`` is
    called; every 10 steps will do.

    Parent: SophiaH. Adds: the Gauss-Newton-Bartlett estimate.
    Strength: It needs first derivatives only, and its curvature is never negative.
    Weakness: It works only with a loss that is the likelihood of a distribution from which one can draw.
    Source: Liu et al. 2023, "Sophia: A Scalable Stochastic Second-order Optimizer for Language Model Pre-training",
    algorithms 2 and 3, https://arxiv.org/abs/2305.14342
    Differs: The authors' code has the batch size B in the step, where here it is in the estimate, and it writes ρ for
    γ.
    """

    gamma: float = hyper(default=0.05, within="[0, ∞)", doc="γ, weight of h: the larger, the less is clipped")

    hessian: Tensor = state(doc="h, mean of estimates of the Gauss-Newton diagonal", fill=not_estimated, signed=False)

    def update_hessian(self, batch_size: int) -> None:
        """Refresh the estimate from the gradients, as they are now, of a mean loss for labels that the model drew::

            logits = model(x)
            drawn = torch.distributions.Categorical(logits=logits).sample()
            cross_entropy(logits, drawn).backward()
            optimizer.update_hessian(drawn.numel())
            optimizer.zero_grad()

        Args:
            batch_size: B, how many labels that mean is over: the tokens of a language model. The gradients are those of
                the loss itself, not scaled for mixed precision.

        Raises:
            ValueError: if it is not an integer above 0, or there is no gradient.
        """
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise bad_argument("batch_size", batch_size, "an integer above 0")
        params = [p for group in self.param_groups for p in group["params"]]
        if all(p.grad is None for p in params):
            raise bad_argument("grad", None, "gradients of the loss for drawn labels", "Call backward() on it first")
        self.take_hessian([None if p.grad is None else batch_size * _squares(p.grad.detach()) for p in params])

    def fuse_into_backward(self) -> None:
        """Refused: the gradients for drawn labels would be taken for a step."""
        raise bad_argument("optimizer", "SophiaG", "one whose gradients are all meant for a step", "Use SophiaH")
