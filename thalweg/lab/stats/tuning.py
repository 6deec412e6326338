"""What tuning costs, and how much it matters: the tuning curve and the sensitivity to the learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from thalweg._base.errors import bad_argument
from thalweg.lab.stats._check import Array


def expected_best(losses: Iterable[float], k: int) -> float:
    """The expected lowest loss of ``k`` trials drawn from these n without replacement; unbiased.

    ``Σᵢ C(n − i, k − 1) / C(n, k) · l₍ᵢ₎`` over the losses in rising order, i = 1 … n: the share of the k-subsets whose
    lowest is the i-th. Tang et al., *Showing Your Work Doesn't Always Work* (ACL 2020); the plug-in estimator, with
    replacement, is biased. Below some 8 trials such a curve has no useful band: draw it without one.

    Args:
        losses: one a trial; a diverged trial capped, or infinite.
        k: 1 … n.

    Raises:
        ValueError: for ``k`` outside 1 … n, or a loss that is NaN.
    """
    rising = np.sort(np.asarray(list(losses), dtype=np.float64))
    n = rising.size
    if not 1 <= k <= n:
        raise bad_argument("k", k, f"1 … {n}, the number of losses")
    if np.isnan(rising).any():
        raise bad_argument("losses", rising.tolist(), "numbers", "Cap the loss of a diverged trial first.")
    shares = [math.comb(n - i, k - 1) / math.comb(n, k) for i in range(1, n + 1)]
    return float(sum(share * loss for share, loss in zip(shares, rising.tolist(), strict=True) if share))


def lr_sensitivity(lrs: Sequence[float], losses: Sequence[float], initial_loss: float) -> float | None:
    """How much of the way down is lost by missing the best learning rate by up to a factor 10.

    The mean of ``min(loss(lr), initial) − best`` over one decade to either side of the best lr, divided by
    ``initial − best``: 0 is flat, towards 1 only the best lr trains at all. After Wortsman et al., *Small-scale proxies
    for large-scale Transformer training instabilities* (2023), whose range is the same for all; here it is
    centred on each optimizer's own best, since a learning rate of one is not that of another. The mean is an integral
    over log lr (trapezoids), so that the points of a refined search do not weigh more where they lie closer.

    Args:
        lrs: positive; of several losses at one lr the lowest counts.
        losses: one an lr; not finite where the run diverged.
        initial_loss: before training, finite.

    Returns:
        A number in [0, 1); None with fewer than two learning rates in the range, or if nothing was learned.

    Raises:
        ValueError: for lists of different length, or an lr that is not positive.
    """
    if len(lrs) != len(losses):
        raise bad_argument("losses", list(losses), f"{len(lrs)} losses, one for each lr")
    if not all(0.0 < lr < math.inf for lr in lrs):
        raise bad_argument("lrs", list(lrs), "positive numbers")
    x, y = _lowest_at_each(lrs, losses, initial_loss)
    centre = x[y.argmin()] if x.size else 0.0
    near = np.abs(x - centre) <= 1.0 + 1e-9
    x, y = x[near], y[near]
    if x.size < 2 or not y.min() < initial_loss:
        return None
    areas = (y[1:] + y[:-1]) / 2 * np.diff(x)
    mean = areas.sum() / (x[-1] - x[0])
    return float((mean - y.min()) / (initial_loss - y.min()))


def _lowest_at_each(lrs: Sequence[float], losses: Sequence[float], cap: float) -> tuple[Array, Array]:
    """Decimal logarithms of the distinct learning rates, rising, and the lowest capped loss at each."""
    lowest: dict[float, float] = {}
    for lr, loss in zip(lrs, losses, strict=True):
        x = round(math.log10(lr), 9)
        lowest[x] = min(lowest.get(x, cap), loss if math.isfinite(loss) else cap)
    rising = sorted(lowest)
    return np.array(rising), np.array([lowest[x] for x in rising])
