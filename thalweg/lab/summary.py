"""From the runs of a race to its result: who found what, how they compare, what must be said with it."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import thalweg
from thalweg.engine.optimizer import Optimizer
from thalweg.lab import diverged, finals, honesty, script, stats, wording
from thalweg.lab.contestant import Contestant
from thalweg.lab.evidence import Evidence, Rules
from thalweg.lab.looks import Ledger, Side
from thalweg.lab.plan import RacePlan
from thalweg.lab.protocol import FIRST_VERDICT_SEED, WARMUP, statements, verdict_seeds, warmup_steps
from thalweg.lab.result import ContestantResult, RaceResult, Run, Why
from thalweg.lab.run import set_up
from thalweg.lab.search import Found, Setting
from thalweg.lab.tasks import training
from thalweg.lab.tasks.printing import unshown
from thalweg.lab.terms import terms
from thalweg.lab.timing import QuietPass, step_time, total
from thalweg.lab.verdict import compare
from thalweg.lab.why import Reasons
from thalweg.wrap.wrapper import layers

#: version of the result; 2: warnings, edges, training curves
SCHEMA = 2
Blocks = Mapping[str, list[dict[str, float]]]


@dataclass
class Campaign:
    """What one contestant has run."""

    contestant: Contestant
    found: Found
    chosen: Setting  # the best of the finalists over all seeds
    tune: list[Run]
    finals: list[Run]  # every finalist on every verdict seed
    verdict: dict[int, Run]  # of these, by index in the list of seeds, the run of the setting that the others chose
    horizon: dict[int, dict[int, Run]] = field(default_factory=dict)  # steps → index → run

    @property
    def runs(self) -> list[Run]:
        """All of them."""
        return [*self.tune, *self.finals, *(r for runs in self.horizon.values() for r in runs.values())]

    @property
    def final(self) -> list[float]:
        """Final losses of the verdict runs."""
        return [run["final_loss"] for run in self.verdict.values()]


def summarise(
    plan: RacePlan,
    campaigns: Sequence[Campaign],
    timing: QuietPass,
    why: Reasons,
    ledger: Ledger,
    proof: Mapping[str, Any],
    abroad: Mapping[str, str],
) -> RaceResult:
    """The whole result; the baseline's campaign comes first, and the ledger is told what is compared.

    Args:
        why: what was seen of each.
        proof: that the runs are of one thing: what was ``reused``, and what the ``repeats`` gave.
        abroad: which nodes made the runs, for the record.
    """
    diverged.count(run for c in campaigns for run in c.runs)
    baseline, *challengers = campaigns
    blocks = timing.blocks
    margin, source = _margin(plan, baseline)
    rules = Rules(margin=margin, comparisons=max(1, len(challengers)))
    base_side, *sides = (Side(c.contestant, c.runs) for c in campaigns)
    looks = ledger.open(base_side, sides, margin, plan.steps, len(sides))
    task = _task(plan, baseline)
    evidence = {c.contestant.label: _evidence(c, timing) for c in campaigns}
    base = evidence[baseline.contestant.label]
    comparisons = [compare(base, evidence[label], task, replace(rules, look=look)) for label, look in looks.items()]
    result = RaceResult(
        schema=SCHEMA,
        task=task,
        protocol={
            **_protocol(plan, replace(rules, look=max(looks.values(), default=1)), source, campaigns, timing),
            "looks": ledger.others(),
            "watched": _watched(campaigns, why),
            **proof,
        },
        contestants=[_entry(plan, c, blocks, why.of.get(c.contestant.label)) for c in campaigns],
        runs=[run for c in campaigns for run in c.runs],
        comparisons=comparisons,
        flags=[],
        environment={**environment(plan), **abroad},
        warnings=[],
        headline="",
        sentences=[],
    )
    result["flags"] = honesty.flags(result)
    wording.tell(result)
    return finite(result)


def finite(result: RaceResult) -> RaceResult:
    """The same with None for what is not a finite number: JSON has no other word for it."""

    def clean(value: object) -> object:
        if isinstance(value, float) and not math.isfinite(value):
            return None
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [clean(v) for v in value]
        return value

    return clean(result)  # type: ignore[return-value]


def environment(plan: RacePlan) -> dict[str, str]:
    """The machine and the versions, for the record."""
    return {
        "thalweg": thalweg.__version__,
        **plan.on,
        "system": platform.platform(),
        "cores": str(os.cpu_count()),
        "load": f"{os.getloadavg()[0]:.1f} when the race ended" if hasattr(os, "getloadavg") else "not known",
    }


def _margin(plan: RacePlan, baseline: Campaign) -> tuple[float, str]:
    """The margin and where it comes from."""
    if plan.margin is not None:
        return plan.margin, "given by hand"
    shorter = [run for runs in baseline.horizon.values() for run in runs.values()]
    margin = stats.margin(*diverged.trained_losses([*baseline.verdict.values(), *shorter]))
    return margin.value, margin.note


def _evidence(campaign: Campaign, timing: QuietPass) -> Evidence:
    label = campaign.contestant.label
    return Evidence(
        label=label,
        losses=dict(enumerate(campaign.final)),
        horizons={h: {i: r["final_loss"] for i, r in runs.items()} for h, runs in campaign.horizon.items()},
        block_seconds=[total(block) / 1e3 for block in timing.blocks.get(label, [])],
        quiet=timing.quiet,
        diverged=_diverged(campaign.verdict),
        diverged_shorter=sum(_diverged(runs) for runs in campaign.horizon.values()),
        state_bytes=campaign.verdict[0]["state_bytes"],
        tuning=finals.tuning_luck(campaign.runs),
    )


def _diverged(runs: Mapping[int, Run]) -> int:
    return sum(run["status"] == "diverged" for run in runs.values())


def _task(plan: RacePlan, baseline: Campaign) -> dict[str, object]:
    task = plan.task
    return {
        "name": task.name,
        "title": task.title,
        "parameters": plan.probe.parameters,
        "steps": plan.steps,
        "batch_size": task.batch_size,
        "unit": task.unit,
        "good_for": task.good_for,
        "data": dict(task.data()),
        "files": {file.path: file.content for file in plan.probe.files},
        "fingerprint": plan.probe.fingerprint,
        "initial_loss": plan.probe.initial_loss,
    }


def _protocol(
    plan: RacePlan, rules: Rules, margin_source: str, campaigns: Sequence[Campaign], timing: QuietPass
) -> dict[str, object]:
    budget = plan.budget
    label = plan.baseline
    return {
        "budget": budget.name,
        "baseline": label,
        "steps": plan.steps,
        "schedule_steps": plan.steps,
        "batch_size": plan.task.batch_size,
        "precision": training.precision_in_words(plan.task),
        "threads": 1,
        "warmup_steps": warmup_steps(plan.steps),
        "warmup": WARMUP,
        "schedule": "linear to zero" if plan.task.schedule(plan.steps) is None else "the task's own",
        "clip": plan.task.clip,
        "accumulate": plan.task.accumulate,
        "device": plan.task.device,
        "compile": plan.task.compile,
        "fixed": sorted(plan.task.fixed),
        "evaluation_noise": plan.probe.evaluation_noise,
        "held_out_seen": dict(zip(("seen", "of", "batches"), plan.probe.seen, strict=True)),
        "parameter_groups": "hidden matrices at lr; embeddings, output head and vectors at lr × multiplier"
        + "".join(f"; above them {rule!r}" for rule in plan.task.groups()),
        "seeds": {
            "tune": list(budget.tune_seeds),
            "verdict": verdict_seeds(plan.seeds, 0),
        },
        "lr_grid": {c.contestant.label: sorted({run["lr"] for run in c.tune}) for c in campaigns},
        "lr_points": budget.lr_points,
        "allowance": budget.allowance,
        "multipliers": list(budget.multipliers),
        "weight_decays": list(budget.decays),
        "trials": budget.trials,
        "horizons": plan.horizons,
        "alpha": rules.alpha,
        "level": rules.level,
        "look": rules.look,
        "margin": rules.margin,
        "margin_source": margin_source,
        "margin_by_hand": plan.margin is not None,
        "quiet": timing.quiet,
        "quiet_cpu_share": timing.cpu_share,
        "backends": {c.contestant.label: _backends(plan, c) for c in campaigns},
        "jobs": plan.jobs,
        "statements": [
            *statements(
                budget,
                label,
                len(campaigns) - 1,
                plan.seeds,
                f"{rules.margin:.3g}, {margin_source}",
                training.in_words(plan.task, f"{WARMUP:.0%} linear warmup and linear decay to zero"),
            ),
            *terms(plan.contestants),
        ],
    }


def _backends(plan: RacePlan, campaign: Campaign) -> str:
    """What runs the steps of a contestant."""
    spec = plan.spec(campaign.contestant, campaign.chosen, seed=FIRST_VERDICT_SEED, steps=plan.steps)
    with unshown():
        _, optimizer = set_up(spec, plan.task)
    innermost = layers(optimizer)[-1]
    if not isinstance(innermost, Optimizer):
        return "its own step"
    return ", ".join(sorted({part.backend for part in innermost.plan().parts}))


def _watched(campaigns: Sequence[Campaign], why: Reasons) -> dict[str, Any]:
    """What the watched runs took, as a share of what all others did, and who was left out."""
    seconds = sum(run["seconds"] for c in campaigns for run in c.runs)
    return {"share": why.seconds / seconds if seconds else math.nan, "left_out": dict(why.left_out)}


def _entry(plan: RacePlan, campaign: Campaign, blocks: Blocks, why: Why | None) -> ContestantResult:
    contestant, found = campaign.contestant, campaign.found
    spec = plan.spec(contestant, campaign.chosen, seed=FIRST_VERDICT_SEED, steps=plan.steps)
    runs = list(campaign.verdict.values())
    mine = blocks.get(contestant.label)
    losses = [run["final_loss"] for run in _first_seed(campaign)]
    edges = found.edges(campaign.chosen)
    return ContestantResult(
        label=contestant.label,
        optimizer=contestant.shown,
        settings={**contestant.given, **dict(campaign.chosen.extra)},
        own_step=contestant.own_step,
        tuned=contestant.searches,
        transferred=contestant.transferred,
        decay=contestant.traits.decay,
        lr_centre=contestant.centre,
        chosen={"lr": spec.lr, "multiplier": spec.multiplier, "weight_decay": spec.weight_decay},
        trials=len(campaign.tune),
        trial_steps=sum(run["steps"] for run in campaign.tune),
        trial_seconds=sum(run["seconds"] for run in campaign.tune),
        finalists=finals.finalists(campaign.finals),
        at_limit=bool(edges),
        edges=edges,
        tuning_sd=[math.sqrt(v) for v in finals.tuning_luck(campaign.runs)],
        tuning_curve=[stats.expected_best(losses, k) for k in range(1, len(losses) + 1)],
        lr_sensitivity=_lr_sensitivity(campaign, plan.probe.initial_loss),
        mean_loss=statistics.fmean(campaign.final),
        sd_loss=statistics.stdev(campaign.final) if len(runs) > 1 else math.nan,
        mean_train_loss=statistics.fmean(run["train_loss"] for run in runs),
        metrics=_metrics(runs),
        diverged=_diverged(campaign.verdict),
        state_bytes=runs[0]["state_bytes"],
        bytes_per_parameter=runs[0]["state_bytes"] / plan.probe.parameters,
        step_ms=step_time(mine) if mine else None,
        why=why,
        script=script.lines(spec),
    )


def _metrics(runs: Sequence[Run]) -> dict[str, float]:
    """Means over the runs that trained."""
    trained = [run["metrics"] for run in runs if run["status"] == "finished"]
    return {name: statistics.fmean(one[name] for one in trained) for name in (trained[0] if trained else ())}


def _first_seed(campaign: Campaign) -> list[Run]:
    """The trials of the search proper, before the finalists met on other seeds."""
    return [run for run in campaign.tune if run["seed"] == campaign.tune[0]["seed"]]


def _lr_sensitivity(campaign: Campaign, initial_loss: float) -> float | None:
    """Over the trials that differ from the first ones in the learning rate alone."""
    if not campaign.tune:  # a recipe is not tuned
        return None
    first = campaign.tune[0]
    same = ("multiplier", "weight_decay", "settings")
    runs = [run for run in _first_seed(campaign) if all(run[k] == first[k] for k in same)]  # type: ignore[literal-required]
    return stats.lr_sensitivity([run["lr"] for run in runs], [run["final_loss"] for run in runs], initial_loss)
