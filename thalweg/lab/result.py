"""The shape of a finished race: what ``--json`` writes and what the report reads. Types only."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

#: of the search; of a finalist on a verdict seed; of the finalist that the other verdict seeds chose, which alone
#: counts; of a complete shorter run; of a short run that is made twice to be compared
Role = Literal["tune", "finalist", "verdict", "horizon", "repeat"]
Status = Literal["finished", "diverged"]
Verdict = Literal["better", "worse", "slightly better", "slightly worse", "no difference that matters", "not settled"]


class Ratio(TypedDict):
    """Challenger over baseline, below 1 when the challenger needs less; None where nothing can be stated."""

    value: float | None
    low: float | None
    high: float | None
    text: str  # "0.56 [0.54, 0.58]", "> 1.0 (not reached in 5 of 5)", "not measured", "not stated, …"


class Run(TypedDict):
    """One complete training run."""

    key: str  # content hash: same key, same result
    task: str
    optimizer: str  # the contestant's label in this race
    lr: float  # peak, of the hidden matrices
    multiplier: float  # lr of embeddings, head and vectors = lr * multiplier
    weight_decay: float  # decoupled, on the hidden matrices, as handed to the optimizer
    settings: dict[str, Any]  # every other hyperparameter that is not the default
    seed: int
    role: Role
    steps: int
    final_loss: float  # held-out, at the end; for a diverged run what it counts with: more than any that trained
    train_loss: float  # mean of the last tenth of the steps
    seconds: float  # in the worker, evaluation excluded; noisy, other runs beside it
    optimizer_seconds: float
    state_bytes: int
    status: Status
    curve: list[tuple[int, float]]  # (step, held-out loss), the same steps for everyone; starts at step 0
    conduct: Conduct
    parts: dict[str, float]  # of a loss of several parts: means over the last tenth of the batches
    metrics: dict[str, float]  # what else the task measures at the end; nothing is picked by it
    train_curve: list[tuple[int, float]]  # (step, mean training loss since the point before), twenty points a run


class Conduct(TypedDict):
    """What an optimizer did in one run, beside its updates."""

    steps: int
    changes: int  # of these, the steps that changed the weights
    passes: int  # forward and backward, that the race made or was asked for
    own_forward: int  # calls of a model that it made itself
    own_backward: int  # calls of backward that it made itself
    found: list[str]  # what else it did that an update is not; empty for nothing


class StepTime(TypedDict):
    """Milliseconds a step, from the quiet pass (one process, interleaved blocks, medians of blocks)."""

    forward: float
    backward: float
    optimizer: float
    total: float


class Finalist(TypedDict):
    """A setting that the noise between seeds could not tell from the best of the search."""

    lr: float
    multiplier: float
    weight_decay: float
    settings: dict[str, Any]
    mean_loss: float  # over all verdict seeds
    seeds: int  # how many verdict seeds are scored by it


class Why(TypedDict):
    """What the first part of one more run of a contestant has shown: its chosen setting, the first verdict seed."""

    steps: int  # of that part
    update: float | None  # median of ‖Δw‖ / ‖w‖ of the hidden matrices in the first five steps, at the peak rate
    tuned: list[float] | None  # the same in tuned runs: quantiles at 5, 50 and 95 %
    tuned_of: str  # of which optimizer these are; empty where none is known
    clipped: float | None  # share of the steps at which clipping made the gradients smaller; None if it was not seen
    spikes: int  # losses far above those before them
    dead: list[str]  # layers without gradients
    findings: list[dict[str, Any]]  # of the watch: cause, layer, evidence
    said: str  # all of it in words


class ContestantResult(TypedDict):
    """One optimizer with what its search found and cost."""

    label: str
    optimizer: str  # class name; FILE.py:CLASS or MODULE:CLASS of another's; WRAPPER(CLASS)
    settings: dict[str, Any]  # fixed hyperparameters
    own_step: bool  # whether its step is code of its own, not the engine's
    tuned: bool  # False for a present recipe, which runs as it was written, and for a setting found elsewhere
    transferred: str  # "tuned with 105 parameters and transferred by muP"; empty for all others
    decay: Literal["decoupled", "its own way", "none"]  # how its weight decay acts
    lr_centre: float
    chosen: dict[str, float]  # lr, multiplier, weight_decay: the best of the finalists over all verdict seeds
    trials: int
    trial_steps: int
    trial_seconds: float
    finalists: list[Finalist]  # the settings that ran on every verdict seed, the best of the search first
    at_limit: bool  # whether there are `edges`
    edges: list[str]  # "learning rate", "multiplier", "weight decay": where the chosen setting lies at an edge
    tuning_sd: list[float]  # how far below and above its expected loss repeated searches would end
    tuning_curve: list[float]  # expected best loss after 1, 2, … of its trials in random order
    lr_sensitivity: float | None  # mean excess loss within a decade of the best lr, over the whole decrease
    mean_loss: float  # over the verdict seeds, diverged ones capped
    sd_loss: float
    mean_train_loss: float
    metrics: dict[str, float]  # means over the verdict runs that trained
    diverged: int  # of the verdict runs
    state_bytes: int
    bytes_per_parameter: float
    step_ms: StepTime | None
    why: Why | None  # None where its runs cannot be watched
    script: str  # the lines to put into a training script


class Comparison(TypedDict):
    """A challenger against the declared baseline, paired by seed."""

    baseline: str
    challenger: str
    difference: float  # mean of paired differences of final losses, challenger - baseline
    low: float | None  # simultaneous interval over all comparisons; None where the runs give none
    high: float | None
    margin: float
    look: int  # which verdict on these two classes it is, of all that were drawn from this store on this task; from 1
    seeds: int
    verdict: Verdict
    p_sign_flip: float | None  # two-sided, exact up to 16 seeds; None below 6
    sd: float  # of the paired differences
    correlation: float | None  # between the two, over seeds
    tuning_share: float | None  # part of the variance towards zero that comes from tuning; None without an interval
    power: float | None  # chance that a true difference of twice the margin would have been called better or worse
    more_seeds: int | None  # about how many more would settle it; None if settled, or beyond 1000
    steps_ratio: Ratio
    inverse_steps_ratio: Ratio  # the baseline's steps to the challenger's final loss
    seconds_ratio: Ratio
    warnings: list[str]  # what qualifies the word: the texts of the warning flags that concern the two
    sentence: str


class Flag(TypedDict):
    """One item of the honesty check."""

    id: str
    level: Literal["ok", "note", "warning"]
    text: str
    labels: list[str]  # whom it concerns; empty: all
    short: str  # of a warning: what the headline adds to the word, such as "on an over-fitted task"; may be empty


class RaceResult(TypedDict):
    """Everything; the report is a function of this and of nothing else."""

    schema: int
    task: dict[str, Any]  # name, title, parameters, steps, batch_size, unit, good_for, data, initial_loss
    protocol: dict[str, Any]  # budget, seeds, grids, ..., and statements: the list of sentences that the report prints
    contestants: list[ContestantResult]
    runs: list[Run]
    comparisons: list[Comparison]
    flags: list[Flag]
    environment: dict[str, str]
    warnings: list[str]  # the texts of all flags that are warnings; they stand under the headline
    headline: str  # one line
    sentences: list[str]  # the verdict in full, then what was not tested


def runs_of(result: RaceResult, role: Role, label: str | None = None) -> list[Run]:
    """The runs of a role, of one contestant or of all, by seed; the order of verdict seeds is the pairing."""
    chosen = [run for run in result["runs"] if run["role"] == role and label in (None, run["optimizer"])]
    return sorted(chosen, key=lambda run: run["seed"])
