"""The protocol: everything that is fixed before the first run, and the sentences that state it."""

from __future__ import annotations

from dataclasses import dataclass

from thalweg._base.errors import unknown_name
from thalweg.lab import diverged


@dataclass(frozen=True)
class Budget:
    """How much a race spends; the same for every contestant.

    Attributes:
        lr_points: points of the learning-rate grid (odd).
        allowance: trials beyond the declared ones: to go on beyond an edge where the best lies, else to refine it.
        decays: strengths of decoupled weight decay, on the hidden matrices.
        knobs: how many further hyperparameters are searched (β₂, ε, …), with one more value each.
        tune_seeds: of the search; the first for every trial, the others for the best ones.
        semifinalists: how many of the best of the first tuning seed meet on the others.
        finalists: how many settings run on every verdict seed at most; at least two.
        verdict_seeds: how many fresh seeds the verdict rests on.
        horizons: shorter complete runs, as fractions of the horizon.
        horizon_seeds: on how many of the verdict seeds the shorter runs are made, at most.
        evaluations: points of a verdict run's held-out curve; one costs as much as some five steps.
        shorten: the horizon is the task's over this.
        optimizers: who races unless the user says otherwise.
        multipliers: of the learning rate of embeddings, head and vectors; the search starts at the middle one.
    """

    name: str
    lr_points: int
    allowance: int
    decays: tuple[float, ...]
    knobs: int
    tune_seeds: tuple[int, ...]
    semifinalists: int
    finalists: int
    verdict_seeds: int
    horizons: tuple[float, ...]
    horizon_seeds: int
    evaluations: int
    shorten: int
    optimizers: tuple[str, ...]
    multipliers: tuple[float, ...] = (1.0, 3.0, 10.0)

    @property
    def start(self) -> float:
        """The multiplier that the first learning rates are tried with."""
        return self.multipliers[len(self.multipliers) // 2]

    @property
    def trials_on_one_seed(self) -> int:
        """Trials of the search proper."""
        return self.lr_points + self.allowance + len(self.multipliers) + len(self.decays) - 2 + self.knobs

    @property
    def trials(self) -> int:
        """All trials of one contestant: the search, and its best on the other tuning seeds."""
        return self.trials_on_one_seed + self.semifinalists * (len(self.tune_seeds) - 1)

    @property
    def likely_finalists(self) -> float:
        """About how many settings go to the verdict seeds, for the plan: two, and at times one more."""
        return min(self.finalists, LIKELY_FINALISTS)


_FIELD = ("adamw", "sgd", "momentum", "rmsprop", "muon")
#: mean number of finalists, between the 2.1 and 2.4 of simulated searches
LIKELY_FINALISTS = 2.3

BUDGETS: dict[str, Budget] = {
    b.name: b
    for b in (
        Budget(
            name="quick", lr_points=5, allowance=8, decays=(0.0,), knobs=0, tune_seeds=(0, 1), semifinalists=3,
            finalists=3, verdict_seeds=7, horizons=(0.25, 0.5), horizon_seeds=5, evaluations=2, shorten=2,
            optimizers=("adamw", "momentum", "muon"),
        ),
        Budget(
            name="standard", lr_points=7, allowance=8, decays=(0.0, 0.1), knobs=0, tune_seeds=(0, 1, 2),
            semifinalists=4, finalists=4, verdict_seeds=8, horizons=(0.25, 0.5, 0.75), horizon_seeds=8,
            evaluations=20, shorten=1, optimizers=_FIELD,
        ),
        Budget(
            name="thorough", lr_points=7, allowance=10, decays=(0.0, 0.01, 0.1, 0.3), knobs=2, tune_seeds=(0, 1, 2),
            semifinalists=5, finalists=5, verdict_seeds=10, horizons=(0.2, 0.3, 0.4, 0.6, 0.8), horizon_seeds=10,
            evaluations=20, shorten=1, optimizers=_FIELD,
        ),
    )
}  # fmt: skip

#: steps of a block of the quiet pass; blocks of the contestants take turns
BLOCK = 5
#: blocks of each contestant: as many as there are seeds, and no more than these, since nothing else is done meanwhile
MOST_BLOCKS = 20
#: part of the horizon over which the learning rate rises linearly
WARMUP = 0.05
#: the first verdict seed; tuning seeds are far below
FIRST_VERDICT_SEED = 1000
#: of a contestant's seeds, so that its tuning seeds stay below every verdict seed
LARGEST_OFFSET = 900


def get_budget(name: str) -> Budget:
    """A budget by name.

    Raises:
        ThalwegError: if there is none; the nearest names are offered.
    """
    if name not in BUDGETS:
        raise unknown_name("budget", name, BUDGETS)
    return BUDGETS[name]


def tuning_seeds(budget: Budget, offset: int) -> list[int]:
    """The seeds of a contestant's search."""
    return [offset + seed for seed in budget.tune_seeds]


def verdict_seeds(count: int, offset: int) -> list[int]:
    """The ``count`` seeds of a contestant's verdict, which no search of the race has."""
    return [FIRST_VERDICT_SEED + offset + i for i in range(count)]


def warmup_steps(steps: int) -> int:
    """Updates of the warmup of a run of ``steps``."""
    return round(WARMUP * steps)


def statements(budget: Budget, baseline: str, challengers: int, seeds: int, margin: str, same: str) -> list[str]:
    """The rules of this race in sentences, as the report prints them; ``same`` is what is the same for all."""
    first, last = FIRST_VERDICT_SEED, FIRST_VERDICT_SEED + seeds - 1
    horizons = ", ".join(f"{h:g}" for h in budget.horizons)
    plural = "s" * (challengers != 1)
    return [
        "Question: the held-out loss at the end of the horizon. Steps, seconds and bytes to the same loss are "
        "secondary; nothing else picks a winner.",
        f"Same for all: initial weights, data order and dropout of each seed, horizon, batch, {same}.",
        "Parameter groups: hidden matrices at the learning rate lr; embeddings, output head and vectors at "
        f"lr × multiplier, the multiplier tuned for each contestant from {_set(budget.multipliers)} and beyond.",
        _decay(budget),
        f"Search: {budget.trials} trials for each contestant. Learning rates: {budget.lr_points} points, factor √10, "
        f"around the declared centre, with the multiplier {budget.start:g}; then the multiplier, then the rest. "
        f"{budget.allowance} more go on beyond an edge where the best lies; those that are left refine the best.",
        f"Tuning seeds {_set(budget.tune_seeds)}: all of the search is on the first; the best {budget.semifinalists} "
        "meet on the others. Of these the finalists are the two best and those that lie within one standard error of "
        f"the best, at most {budget.finalists}.",
        f"Verdict seeds {first} to {last}, which no search has seen: every finalist runs on all of them, and each seed "
        "is scored by the finalist with the lowest mean loss on the other seeds (cross-fitting).",
        "Only diverged runs are stopped: a loss that is not finite, or above twice that of the untrained model "
        f"after warmup. A diverged run counts with a loss {diverged.RULE}, and is reported.",
        f"Steps to the same loss: complete runs at {horizons} of the horizon on {min(seeds, budget.horizon_seeds)} "
        "verdict seeds, each with its own whole schedule and the settings of the full horizon, interpolated for each "
        "seed in the logarithm of the horizon; never from within a long run.",
        f"Seconds: from a quiet pass after all runs: one process, one thread, contestants in turn in blocks of {BLOCK} "
        "steps, medians.",
        f"Intervals: Student-t on differences paired by seed, 95 % for all {challengers} comparison{plural} with "
        f"{baseline} together (Bonferroni). The variance of the mean is that between seeds and that which repeated "
        "searches would add, as simulated from the losses of the search and the noise between seeds.",
        f"Margin of what matters: {margin}.",
    ]


def _decay(budget: Budget) -> str:
    """What is said of weight decay; that it is not tuned, where it is not."""
    if len(budget.decays) == 1:
        return f"Weight decay: {budget.decays[0]:g} for all; this budget does not tune it."
    return (
        f"Weight decay: decoupled, on the hidden matrices, strength from {_set(budget.decays)} and beyond, stated at "
        "AdamW's centre: at its own centre each contestant's weights shrink by the same part a step."
    )


def _set(values: tuple[float, ...]) -> str:
    return "{" + ", ".join(f"{v:g}" for v in values) + "}"
