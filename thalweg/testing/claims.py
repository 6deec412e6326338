r"""Properties that papers claim for their rules, each as a test that another rule fails.

A claim holds with some hyperparameters, which it names: ``blind_to_scale("weight", eps=0.0)``. Write $u_t(g_1, …, g_t)$
for the sum of the first t steps along given gradients, from a given place.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.testing.case import Case, Claim
from thalweg.testing.verdicts import expect, same
from thalweg.testing.walks import copies, distance, gradients

STEPS = 12
#: float64 does not round when it multiplies by these
POWERS = (0.25, 0.5, 2.0, 4.0)


def _path(case: Case, given: Mapping[str, Any], change: Any = None, at: Any = None, shapes: Any = None) -> list[Tensor]:
    """Where ``STEPS`` steps lead, from what ``at`` makes of the start, along what ``change`` makes of the gradients."""
    params = case.start(_tried(case) if shapes is None else shapes)
    if at is not None:
        with torch.no_grad():
            for i, p in enumerate(params):
                p.data = at(i, p.detach())
    optimizer = case.make(params, **given)
    for step in range(STEPS):
        for i, (p, g) in enumerate(zip(params, gradients(params, step), strict=True)):
            p.grad = g if change is None else change(i, g)
        case.advance(optimizer, step)
    return [p.detach() for p in params]


def _tried(case: Case) -> list[Sequence[int]]:
    """Shapes in which there is something to be scaled and turned."""
    return [shape for shape in case.shapes if len(shape) > 1 and 0 not in shape] or [(7, 5)]


def blind_to_scale(of: str = "weight", **options: Any) -> Claim:
    r"""A gradient's scale plays no part: $u(c\,g) = u(g)$ for $c > 0$.

    Args:
        of: what has a scale of its own, c: each ``"weight"`` (invariant to diagonal rescaling, as Adam), each
            ``"tensor"`` (as LARS), or ``"all"`` of them together.
        options: hyperparameters with which it holds, such as ``eps=0.0``.
    """
    if of not in ("weight", "tensor", "all"):
        raise bad_argument("of", of, "'weight', 'tensor' or 'all'")

    def scaled(i: int, g: Tensor) -> Tensor:
        if of == "all":
            return 4 * g
        if of == "tensor":
            return POWERS[i % 4] * g
        each = torch.tensor(POWERS, dtype=g.dtype, device=g.device)
        return g * each[torch.arange(g.numel(), device=g.device) % 4].view(g.shape)

    def test(case: Case, given: Mapping[str, Any]) -> None:
        plain = _path(case, given)
        _moved(case, plain)
        what = "all gradients are" if of == "all" else f"the gradient of each {of} is"
        same(plain, _path(case, given, scaled), f"the path is another one where {what} multiplied by a number", 1e-12)

    whose = "the whole" if of == "all" else f"each {of}'s"
    return Claim(f"blind to the scale of {whose} gradient", test, options)


def _moved(case: Case, end: list[Tensor]) -> float:
    """How far it went: a rule that stands still has every invariance."""
    way = distance(end, case.start(_tried(case)))
    expect(way > 0, "it does not move at all")
    return way


def linear(**options: Any) -> Claim:
    r"""A step is linear in the gradients: $u(a\,g + b\,g') = a\,u(g) + b\,u(g')$, without decay."""

    def test(case: Case, given: Mapping[str, Any]) -> None:
        start = case.start(_tried(case))
        other = functools.partial(_reversed_signs, case)
        a, b, both = (_path(case, given, change) for change in (None, other, lambda i, g: 2 * g - 3 * other(i, g)))
        _moved(case, a)
        expected = [p.detach() + 2 * (x - p) - 3 * (y - p) for p, x, y in zip(start, a, b, strict=True)]
        same(both, expected, "2 g − 3 g' does not lead where 2 u(g) − 3 u(g') does", 1e-12)

    return Claim("linear in the gradient", test, options)


def in_units_of_gradients(**options: Any) -> Claim:
    r"""A step is in units of the gradient: four times the gradient leads where four times the learning rate does."""

    def test(case: Case, given: Mapping[str, Any]) -> None:
        rate = {"lr": 4 * (case.lr or 0)}
        faster, steeper = _path(case, {**given, **rate}), _path(case, given, lambda i, g: 4 * g)
        _moved(case, faster)
        same(faster, steeper, "four times the gradient leads elsewhere than four times the learning rate", 1e-12)

    return Claim("in units of the gradient", test, options)


def _reversed_signs(case: Case, i: int, g: Tensor) -> Tensor:
    """Another gradient, made of one."""
    return g.flip(0) * torch.arange(1, g.numel() + 1, dtype=g.dtype, device=g.device).view(g.shape).cos()


def blind_to_place(**options: Any) -> Claim:
    r"""Where the weights are plays no part: from $p + c$ the same gradients lead to the same place, plus c."""

    def test(case: Case, given: Mapping[str, Any]) -> None:
        plain, shifted = _path(case, given), _path(case, given, at=lambda i, p: p + 3.0)
        _moved(case, plain)
        same([p + 3.0 for p in plain], shifted, "steps along the same gradients differ from another place", 1e-12)

    return Claim("blind to where the weights are", test, options)


def in_units_of_weights(**options: Any) -> Claim:
    """A step is in units of the weights: from a start twice as far from 0 the same gradients lead twice as far."""

    def test(case: Case, given: Mapping[str, Any]) -> None:
        plain, twice = _path(case, given), _path(case, given, at=lambda i, p: 2 * p)
        _moved(case, plain)
        same([2 * p for p in plain], twice, "steps from a start twice as large are not twice as large", 1e-12)

    return Claim("in units of the weights", test, options)


def each_weight_alone(**options: Any) -> Claim:
    """A weight's path depends on its own gradients only: a tensor's rows, each by itself, go the same way."""

    def test(case: Case, given: Mapping[str, Any]) -> None:
        whole = case.start([(6, 4)])
        rows = [torch.nn.Parameter(row.clone()) for row in whole[0].detach()]
        a, others = case.make(whole, **given), [case.make([row], **given) for row in rows]
        for step in range(STEPS):
            (whole[0].grad,) = gradients(whole, step)
            for row, g in zip(rows, whole[0].grad, strict=True):
                row.grad = g.clone()
            for optimizer in (a, *others):
                case.advance(optimizer, step)
        same(whole[0], torch.stack([r.detach() for r in rows]), "weights depend on others of their tensor", 1e-12)

    return Claim("each weight by itself", test, options)


def blind_to_order(of: str = "weights", rounding: float = 1e-12, **options: Any) -> Claim:
    """The order of the weights of a tensor plays no part: permuted gradients from a permuted start, a permuted end.

    Args:
        of: ``"weights"``, in any order; or ``"rows"``, rows and columns, each in any order.
        rounding: how far the ends may be apart, as a share of the way: more where a rule computes in few bits.
        options: hyperparameters with which it holds.
    """
    if of not in ("weights", "rows"):
        raise bad_argument("of", of, "'weights' or 'rows'")

    def moved(i: int, x: Tensor) -> Tensor:
        if of == "weights":
            return x.flatten()[_permutation(x.numel())].view(x.shape)
        return x[_permutation(x.shape[0])][:, _permutation(x.shape[1])]

    words = f"blind to the order of {of if of == 'weights' else 'rows and columns'}"
    return _equivariant(words, moved, options, rounding)


def _permutation(n: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(n))


def keeps_rotations(of: str = "matrix", rounding: float = 1e-9, **options: Any) -> Claim:
    r"""No direction is special: turned gradients from a turned start lead to the turned end.

    Args:
        of: ``"matrix"``, $Q G R$ for orthogonal Q and R, as Muon; or ``"space"``, all weights of a tensor as one
            vector, as SGD.
        rounding: how far the ends may be apart, as a share of the way: more where a rule computes in few bits.
        options: hyperparameters with which it holds.
    """
    if of not in ("matrix", "space"):
        raise bad_argument("of", of, "'matrix' or 'space'")

    def turned(i: int, x: Tensor) -> Tensor:
        if of == "space":
            return (_rotation(x.numel()) @ x.flatten().cpu()).view(x.shape).to(x.device)
        flat = _rotation(x.shape[0]) @ x.flatten(1).cpu() @ _rotation(x.shape[1:].numel())
        return flat.view(x.shape).to(x.device)

    where = "its rows' and columns' spaces" if of == "matrix" else "the space of its weights"
    return _equivariant(f"turning with {where}", turned, options, rounding)


def _rotation(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(n)
    turn: Tensor = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
    return turn


def _equivariant(words: str, change: Any, options: Mapping[str, Any], rounding: float = 1e-12) -> Claim:
    def test(case: Case, given: Mapping[str, Any]) -> None:
        plain, other = _path(case, given), _path(case, given, change, change)
        way = _moved(case, plain)
        expected = [change(i, p) for i, p in enumerate(plain)]
        same(other, expected, f"it is not {words}: the changed path is not the path, changed", rounding * way)

    return Claim(words, test, options)


def equal_steps(**options: Any) -> Claim:
    """Every weight moves by the learning rate at every step, up or down: there is nothing in a step but a sign."""

    def test(case: Case, given: Mapping[str, Any]) -> None:
        for before, after in _steps(case, given):
            same([(after - before).abs()], [torch.full_like(before, case.lr or 0)], "steps are not lr long", 1e-12)

    return Claim("steps of one length", test, options)


def bounded(by: float, **options: Any) -> Claim:
    r"""No weight moves further than ``by`` learning rates in a step, however rare and large gradients are.

    Tried on gradients that are 0 for a while and then of any size, which is where a mean over a root mean square is
    largest.
    """

    def test(case: Case, given: Mapping[str, Any]) -> None:
        longest = max((after - before).abs().max().item() for before, after in _steps(case, given, 60, _rare))
        most = by * (case.lr or 0)
        expect(0 < longest <= most * (1 + 1e-9), f"a weight moved by {longest:.3g}, more than {most:.3g} (or not)")

    return Claim(f"no step longer than {by:.4g} lr", test, options)


def _rare(step: int, g: Tensor) -> Tensor:
    """From every fourth step at first to every tenth: gradients that are ever larger, and 0 between."""
    seldom = torch.arange(g.numel(), dtype=g.dtype, device=g.device).view(g.shape) % 7 + 4
    return torch.where(step % seldom == seldom - 1, g.abs() * 1.5**step + 1e-3, 0.0)


def _steps(case: Case, given: Mapping[str, Any], steps: int = STEPS, change: Any = None) -> Any:
    """Each tensor before and after each step."""
    params = case.start(_tried(case))
    optimizer = case.make(params, **given)
    for step in range(steps):
        for p, g in zip(params, gradients(params, step), strict=True):
            p.grad = g if change is None else change(step, g)
        before = copies(params)
        case.advance(optimizer, step)
        yield from zip(before, copies(params), strict=True)


def signs_only(**options: Any) -> Claim:
    """Nothing of a gradient matters but its signs: other sizes at every step, the same path."""

    def test(case: Case, given: Mapping[str, Any]) -> None:
        plain = _path(case, given)
        _moved(case, plain)
        same(plain, _path(case, given, lambda i, g: g.sign() * (1 + (1000 * g).sin() / 2)), "sizes matter", 1e-12)

    return Claim("signs are all that it sees", test, options)


def memory(most: float, shape: tuple[int, int] = (64, 48), **options: Any) -> Claim:
    """It keeps at most so many numbers for each weight of a matrix of this shape; single numbers do not count."""

    def test(case: Case, given: Mapping[str, Any]) -> None:
        params = case.start([shape])
        optimizer = case.make(params, **given)
        case.walk(optimizer, params, 3)
        kept = [x for x in optimizer.state_dict()["state"].get(0, {}).values() if isinstance(x, Tensor)]
        share = sum(x.numel() for x in kept if x.numel() > 1) / params[0].numel()
        expect(share <= most, f"it keeps {share:.3g} numbers for each weight of a {shape[0]} × {shape[1]} matrix")

    return Claim(f"at most {most:.3g} numbers a weight", test, options)


def right_where_adam_is_wrong(**options: Any) -> Claim:
    r"""It goes down where large gradients are rare: the slopes are $C, -1, -1, C, -1, -1, …$, on the whole upward.

    Adam with $\beta_2 = 1/(1 + C^2)$ divides each large slope by itself, so that it counts less than the two small ones
    (Reddi, Kale & Kumar 2018, theorem 1).
    """

    def test(case: Case, given: Mapping[str, Any]) -> None:
        params = case.start([(1, 1)])
        optimizer, slopes, start = case.make(params, **given), (3.0, -1.0, -1.0), params[0].item()
        for step in range(300):
            params[0].grad = torch.full_like(params[0], slopes[step % 3])
            case.advance(optimizer, step)
        end = params[0].item()
        expect(end < start, f"it went up, from {start:.3g} to {end:.3g}, along slopes whose mean points down")

    return Claim("right where Adam is wrong", test, options)
