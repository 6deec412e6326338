"""Does each optimizer do what an optimizer does, and does the evaluation see what was not trained on?"""

from __future__ import annotations

from thalweg.lab.honesty.record import Record, note, ok, warn_of, warning
from thalweg.lab.result import Flag, Run

#: part of the held-out examples that may be training examples too before it is a warning; real data have duplicates
DUPLICATES = 0.01


def own_step(record: Record) -> Flag:
    """A step that is code of its own is not the engine's; that alone is no fault."""
    own = [c["label"] for c in record.result["contestants"] if c.get("own_step")]
    if own:
        return note("own-step", f"Steps are their own code, and were watched: {', '.join(own)}.")
    return ok("own-step", "All steps are the engine's.")


def conduct(record: Record) -> Flag:
    """Who trains more within a step, looks at held-out data or keeps something from run to run is named."""
    wrong = {label: said for label in record.labels if (said := _conduct(record, label))}
    fine = (
        "No optimizer was seen to do anything but update its parameters, once a step, with the gradients it was given."
    )
    short = "with an optimizer that does more than it should"
    return warn_of("conduct", (f"{label} {said}" for label, said in wrong.items()), fine, short, wrong)


def _conduct(record: Record, label: str) -> str:
    runs = [run for run in record.result["runs"] if run["optimizer"] == label and "conduct" in run]
    found = sorted({said for run in runs for said in run["conduct"]["found"]})
    counts = [
        f"{sum(run['conduct'][key] for run in runs)} {what} of its own"  # type: ignore[literal-required]
        for key, what in (("own_forward", "forward passes"), ("own_backward", "backward passes"))
        if any(run["conduct"][key] for run in runs)  # type: ignore[literal-required]
    ]
    if counts:
        found.append(f"made {' and '.join(counts)} in {sum(run['conduct']['steps'] for run in runs)} steps")
    return ", ".join(found)


def idle_steps(record: Record) -> Flag:
    """Steps are counted by what changes the weights."""
    idle = {label: n for label in record.labels if (n := sum(_idle(run) for run in record.runs("verdict", label)))}
    if idle:
        said = ", ".join(f"{n} of {label}" for label, n in idle.items())
        return note("idle-steps", f"Steps of verdict runs that changed no weight: {said}.")
    return ok("idle-steps", "Every step changed the weights.")


def _idle(run: Run) -> int:
    counts = run.get("conduct")
    return counts["steps"] - counts["changes"] if counts else 0


def held_out_apart(record: Record) -> Flag:
    """An evaluation on what was trained on measures memory."""
    found = record.protocol.get("held_out_seen")
    if not found or not found["of"]:
        return note("held-out-apart", "Whether the evaluation sees training examples could not be seen.")
    seen, of = found["seen"], found["of"]
    looked = (
        f"of {of} examples that the evaluation feeds to the model, {seen} are in the first {found['batches']} batches"
    )
    if seen > DUPLICATES * of:
        text = f"The evaluation sees training examples: {looked}."
        return warning("held-out-apart", text, "on a task whose evaluation sees training examples")
    return ok("held-out-apart", f"Held out: {looked}.")


CHECKS = (own_step, conduct, idle_steps, held_out_apart)
