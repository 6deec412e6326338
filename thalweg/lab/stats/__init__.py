"""Statistics of a race: arrays in, numbers out. No run, no file, no wording of a verdict.

`interval` (Student-t, paired), `permutation` (sign flips), `power` (what n seeds can show), `ratios` (steps and seconds
to the same loss), `margin` (what matters), `tuning` (what a search cost and how wide its valley is), `tuned` (which
setting each seed is scored by, and what another search would have changed).
"""

from thalweg.lab.stats.interval import NO_LUCK, Luck, MeanInterval, log_ratio, paired, t_quantile
from thalweg.lab.stats.margin import Margin, margin
from thalweg.lab.stats.permutation import sign_flip_p
from thalweg.lab.stats.power import alpha_at_look, chi2_quantile, detectable, more_seeds, power, unbiased_sd
from thalweg.lab.stats.ratios import (
    NOT_MEASURED,
    Sign,
    StepRatios,
    across,
    horizon_ratio,
    is_stated,
    not_stated,
    seconds_ratio,
)
from thalweg.lab.stats.trend import LEAST, Trend, trend
from thalweg.lab.stats.tuned import best, cross_fit, residual_sd, tuning_luck
from thalweg.lab.stats.tuning import expected_best, lr_sensitivity

__all__ = [
    "LEAST",
    "NOT_MEASURED",
    "NO_LUCK",
    "Luck",
    "Margin",
    "MeanInterval",
    "Sign",
    "StepRatios",
    "Trend",
    "across",
    "alpha_at_look",
    "best",
    "chi2_quantile",
    "cross_fit",
    "detectable",
    "expected_best",
    "horizon_ratio",
    "is_stated",
    "log_ratio",
    "lr_sensitivity",
    "margin",
    "more_seeds",
    "not_stated",
    "paired",
    "power",
    "residual_sd",
    "seconds_ratio",
    "sign_flip_p",
    "t_quantile",
    "trend",
    "tuning_luck",
    "unbiased_sd",
]
