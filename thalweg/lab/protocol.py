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
        allowance: trials beyond the declared ones: to extend a grid whose best lies at an edge, else to refine.
        multipliers: of the learning rate of embeddings, head and vectors.
        decays: strengths of decoupled weight decay, on the hidden matrices.
        knobs: how many further hyperparameters are searched (β₂, ε, …), with one more value each.
        tune_seeds: of the search; the first for every trial, the others for the two best settings.
        verdict_seeds: how many fresh seeds the verdict rests on.
        horizons: shorter complete runs, as fractions of the horizon.
        evaluations: points of a verdict run's curve.
        shorten: the horizon is the task's over this.
        optimizers: who races unless the user says otherwise.
    """

    name: str
    lr_points: int
    allowance: int
    decays: tuple[float, ...]
    knobs: int
    tune_seeds: tuple[int, ...]
    verdict_seeds: int
    horizons: tuple[float, ...]
    evaluations: int
    shorten: int
    optimizers: tuple[str, ...]
    multipliers: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0)

    @property
    def trials_on_one_seed(self) -> int:
        """Trials of the search proper."""
        return self.lr_points + self.allowance + len(self.multipliers) + len(self.decays) - 2 + self.knobs

    @property
    def trials(self) -> int:
        """All trials of one contestant: the search, and the two finalists on the other tuning seeds."""
        return self.trials_on_one_seed + 2 * (len(self.tune_seeds) - 1)


_FIELD = ("adamw", "sgd", "momentum", "rmsprop", "muon")

BUDGETS: dict[str, Budget] = {
    b.name: b
    for b in (
        Budget("quick", 5, 2, (0.0,), 0, (0,), 5, (0.25, 0.5), 10, 2, ("adamw", "momentum", "muon")),
        Budget("standard", 7, 4, (0.0, 0.1), 0, (0, 1), 8, (0.25, 0.5, 0.75), 20, 1, _FIELD),
        Budget("thorough", 7, 6, (0.0, 0.01, 0.1, 0.3), 2, (0, 1, 2), 10, (0.2, 0.3, 0.4, 0.6, 0.8), 20, 1, _FIELD),
    )
}

#: part of the horizon over which the learning rate rises linearly
WARMUP = 0.05
#: the first verdict seed; tuning seeds are far below
FIRST_VERDICT_SEED = 100


def get_budget(name: str) -> Budget:
    """A budget by name.

    Raises:
        ThalwegError: if there is none; the nearest names are offered.
    """
    if name not in BUDGETS:
        raise unknown_name("budget", name, BUDGETS)
    return BUDGETS[name]


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
        f"lr × multiplier, the multiplier tuned for everyone from {_set(budget.multipliers)}.",
        f"Weight decay: decoupled, on the hidden matrices, strength from {_set(budget.decays)}, stated at AdamW's "
        "centre: at its own centre each contestant's weights shrink by the same part a step.",
        f"Search: {budget.trials} trials each. Learning rates: {budget.lr_points} points, factor √10, around the "
        "declared centre, extended while the best lies at an edge; then the multiplier, then the rest. Of "
        f"{budget.allowance} spare trials, what is not needed for extending refines the best.",
        f"Tuning seeds {_set(budget.tune_seeds)}; verdict seeds {first} to {last}, which no search has seen.",
        "Only diverged runs are stopped: a loss that is not finite, or above twice that of the untrained model "
        f"after warmup. A diverged run counts with a loss {diverged.RULE}, and is reported.",
        f"Steps to the same loss: complete runs at {horizons} of the horizon, each with its own whole schedule and "
        "the settings of the full horizon, interpolated for each seed in the logarithm of the horizon; never from "
        "within a long run.",
        "Seconds: from a quiet pass after all runs: one process, one thread, contestants in turn in blocks of 20 "
        "steps, medians.",
        f"Intervals: Student-t on differences paired by seed, 95 % for all {challengers} comparison{plural} with "
        f"{baseline} together (Bonferroni).",
        f"Margin of what matters: {margin}.",
    ]


def _set(values: tuple[float, ...]) -> str:
    return "{" + ", ".join(f"{v:g}" for v in values) + "}"
