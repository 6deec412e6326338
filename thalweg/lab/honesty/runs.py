"""Are the runs what they should be? Whole, counted at their end, none left out, and not over-fitted."""

from __future__ import annotations

import math

import numpy as np

from thalweg.lab.honesty.record import Record, note, ok, warn_of, warning
from thalweg.lab.result import Flag, Run

#: held-out loss that rises at the end by more than this part of its way down counts as over-fitting
RISE = 0.01


#: noise of the evaluation above this part of the spread between seeds is worth a warning
NOISE = 0.1
#: what a seed decides: by the name under which a task may declare it fixed
DECIDED = {"model": "initial weights", "batches": "data order", "": "dropout"}


def paired_seeds(record: Record) -> Flag:
    """The same seeds give everyone the same initial weights and data order; seeds that change nothing pair nothing."""
    if still := [label for label in record.labels if _equal_on_all_seeds(record, label)]:
        text = f"The losses of {', '.join(still)} are equal on all seeds: the seeds change nothing, and show no spread."
        return warning("paired-seeds", text, "where seeds change nothing", still)
    seeds = {tuple(run["seed"] for run in record.runs("verdict", label)) for label in record.labels}
    if len(seeds) > 1:
        return note("paired-seeds", "Optimizers did not meet the same verdict seeds: pairs share no weights or order.")
    fixed = record.protocol.get("fixed", [])
    *most, last = [what for name, what in DECIDED.items() if name not in fixed]
    same = f"{', '.join(most)} and {last}" if most else last
    kept = "".join(
        f" The {DECIDED[name]} {'are' if name == 'model' else 'is'} the same for all seeds." for name in fixed
    )
    return ok("paired-seeds", f"All optimizers met the same verdict seeds: the same {same}.{kept}")


def _equal_on_all_seeds(record: Record, label: str) -> bool:
    losses = [run["final_loss"] for run in record.runs("verdict", label) if run["status"] == "finished"]
    return len(losses) > 1 and len(set(losses)) == 1


def repeats(record: Record) -> Flag:
    """A run that is made again must be equal to the last bit, where sums always come in one order."""
    found = record.protocol.get("repeats")
    if found is None:
        return note("repeats", "It was not recorded whether a run that is made again is the same.")
    other = {label: said for label, said in found.items() if said != "equal"}
    if other:
        text = "; ".join(f"the run of {label}, made again, {said}" for label, said in other.items())
        return warning(
            "repeats", f"{text[0].upper()}{text[1:]}.", "with runs that do not repeat to the last bit", other
        )
    return ok("repeats", "Runs of each contestant were made again, and were the same to the last bit.")


def evaluation_noise(record: Record) -> Flag:
    """Noise of the evaluation is in every difference, so the interval holds; large noise hides what there is."""
    noise = record.protocol.get("evaluation_noise", 0.0)
    if not noise:
        return ok("evaluation-noise", "Two evaluations of one model give the same loss.")
    spread = min((c["sd"] for c in record.result["comparisons"] if c["sd"]), default=0.0)
    share = f", {noise / spread:.0%} of the standard deviation of the paired differences" if spread else ""
    text = f"Two evaluations of one model differ by {noise:.2g}{share}; that is part of every interval."
    if noise <= NOISE * spread:
        return note("evaluation-noise", text)
    return warning("evaluation-noise", text, "with an evaluation that does not repeat")


def whole_schedules(record: Record) -> Flag:
    """A run cut off before its learning rate has come down, or with the schedule of another length, is no evidence."""
    full = record.result["task"]["steps"]
    cut = [run for role in ("tune", "verdict") for run in record.runs(role) if run["steps"] != full]
    unfinished = [run for run in record.result["runs"] if run["status"] == "finished" and not _whole(run)]
    wrong = [
        f"{run['role']} run of {run['optimizer']}, seed {run['seed']}: {run['steps']} of {full} steps" for run in cut
    ]
    if record.protocol.get("schedule_steps", full) != full:
        wrong.append(f"the schedule has {record.protocol['schedule_steps']} steps, a run {full}")
    wrong += [
        f"{r['role']} run of {r['optimizer']}, seed {r['seed']}: its schedule has another length" for r in unfinished
    ]
    fine = "Every run went through its own whole schedule."
    return warn_of("whole-schedules", wrong, fine, "with runs that were not whole")


def _whole(run: Run) -> bool:
    ends = run["curve"][-1][0] if run["curve"] else None
    return ends == run["steps"] == run.get("schedule_steps", run["steps"])


def end_of_run(record: Record) -> Flag:
    """The lowest point of a noisy curve flatters whoever has the noisier one."""
    finished = [run for run in record.result["runs"] if run["status"] == "finished" and run["curve"]]
    other = [run for run in finished if not math.isclose(run["final_loss"], run["curve"][-1][1], rel_tol=1e-12)]
    wrong = [f"{r['role']} run of {r['optimizer']}, seed {r['seed']}: not the loss at its end" for r in other]
    fine = "Every final loss is the held-out loss at the end of its run."
    return warn_of("end-of-run", wrong, fine, "with losses that are not those at the end")


def none_dropped(record: Record) -> Flag:
    """A mean over survivors rewards divergence."""
    wrong = []
    counts = {label: len(record.runs("verdict", label)) for label in record.labels}
    if len(set(counts.values())) > 1:
        wrong.append("unequal numbers of verdict runs: " + ", ".join(f"{label} {n}" for label, n in counts.items()))
    for contestant in record.result["contestants"]:
        losses = [run["final_loss"] for run in record.runs("verdict", contestant["label"])]
        if losses and not math.isclose(
            contestant["mean_loss"], sum(losses) / len(losses), rel_tol=1e-9, abs_tol=1e-300
        ):
            wrong.append(f"the mean loss of {contestant['label']} is not the mean of all its verdict runs")
    fine = "Every verdict run counts; one that diverged counts as worse than any that trained."
    return warn_of("none-dropped", wrong, fine, "with runs left out")


def divergences(record: Record) -> Flag:
    """What diverged on fresh seeds will diverge for the user too."""
    wrong = {}
    for label in record.labels:
        runs = record.runs("verdict", label) + record.runs("horizon", label)
        if diverged := sum(run["status"] == "diverged" for run in runs):
            wrong[label] = f"{diverged} of {len(runs)} fresh runs of {label} diverged"
    return warn_of("divergences", wrong.values(), "No run on a fresh seed diverged.", "with runs that diverged", wrong)


def over_fitting(record: Record) -> Flag:
    """A race on an over-fitted task measures regularization: held-out loss rises at the end, train loss is below it."""
    found = [label for label in record.labels if _over_fitted(record, label)]
    if found:
        return warning(
            "over-fitting",
            f"Over-fitted: the held-out loss of {', '.join(found)} rises at the end of the run while the training loss "
            "lies below it; this race measures regularization more than optimization.",
            "on an over-fitted task",
            found,
        )
    return ok("over-fitting", "No held-out loss rises at the end of the runs while the training loss falls.")


def _over_fitted(record: Record, label: str) -> bool:
    runs = [run for run in record.runs("verdict", label) if run["status"] == "finished" and run["curve"]]
    if not runs or len({len(run["curve"]) for run in runs}) > 1:
        return False
    curve = np.mean([[loss for _, loss in run["curve"]] for run in runs], axis=0)
    lowest = curve.min()
    rises = curve[-1] - lowest > RISE * (curve[0] - lowest)
    return bool(rises and np.mean([run["train_loss"] for run in runs]) < lowest)


def learned(record: Record) -> Flag:
    """Where training has not lowered the held-out loss, the lowest is that of who changed the least."""
    idle = [label for label in record.labels if _learned_nothing(record, label)]
    if idle:
        text = (
            f"The held-out loss of {', '.join(idle)} is not lower after training than before it. If what `evaluate` "
            "returns should rise, as an accuracy does, let it return its negative: the lowest value wins a race."
        )
        return warning("learned", text, "where a contestant does not lower the held-out loss", idle)
    return ok("learned", "Training has lowered the held-out loss of every contestant.")


def _learned_nothing(record: Record, label: str) -> bool:
    """Whether its verdict runs that trained end at or above their beginning, in the mean."""
    runs = [run for run in record.runs("verdict", label) if run["status"] == "finished" and run["curve"]]
    return bool(runs) and sum(run["final_loss"] - run["curve"][0][1] for run in runs) >= 0.0


def held_out_shown(record: Record) -> Flag:
    """Where the data are passed over several times, a training loss alone says little."""
    bare = {run["optimizer"] for run in record.runs("verdict") if not run["curve"]}
    if bare:
        text = f"Without a held-out curve, the training loss alone: {', '.join(sorted(bare))}."
        return warning("held-out-shown", text, labels=sorted(bare))
    epochs = record.protocol.get("epochs")
    if epochs is not None and epochs > 1:
        return note(
            "held-out-shown", f"{epochs:.3g} passes over the training data; held-out loss and training loss are shown."
        )
    return ok("held-out-shown", "The held-out loss decides; the training loss is shown beside it.")


CHECKS = (
    paired_seeds,
    repeats,
    evaluation_noise,
    whole_schedules,
    end_of_run,
    none_dropped,
    divergences,
    over_fitting,
    learned,
    held_out_shown,
)
