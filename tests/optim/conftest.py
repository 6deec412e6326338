"""Every optimizer passes one suite; what no rule can change is tried with a part of it, another from rule to rule."""

import os
import zlib

#: of their variants, which are kept for every rule; of the others one is, in turn
ALWAYS = {
    "follows_full_precision_in_every_format": ("states in bfloat16", "states in int8"),
    "resumes_in_every_format": ("states in int8, rounded at random",),
    "follows_float64_in_fewer_bits": ("float32",),
    "a_copy_goes_on_training_the_same": (),
}
#: tried with the defaults on each backend; here on the last and on one of the others
ON_ALL = ("equals_its_reference_for_100_steps", "resume_equals_no_interruption")
OTHERS = ("eager", "foreach")


def pytest_collection_modifyitems(config, items):
    """Leave the rest of the suite to each night."""
    if os.environ.get("HYPOTHESIS_PROFILE") == "nightly":
        return
    left_out = [item for item in items if item.originalname == "test_every_optimizer" and not _kept(_trial(item))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = {id(item) for item in left_out}
        items[:] = [item for item in items if id(item) not in gone]


def _trial(item):
    return item.callspec.params["trial"]


def _kept(trial):
    if trial.reason:
        return True
    name, (variant, _), backend = trial.check.name, trial.variant, trial.backend[0]
    turn = zlib.crc32(f"{trial.case.name} {name}".encode()) >> 4
    if name in ALWAYS and variant not in ALWAYS[name]:
        left = [word for word, _ in trial.check.variants(trial.case, trial.flags) if word not in ALWAYS[name]]
        return variant == left[turn % len(left)]
    if name == "every_backend_takes_the_same_path":  # flags in another dtype than float64: every second set of them
        return not trial.flags or variant == "float64" or list(trial.case.flags).index(trial.flags) % 2 == turn % 2
    if trial.check.on == "in turn":  # on the last, and for every second rule on another
        return backend not in OTHERS or turn % 2 == 0
    if name in ON_ALL and not trial.flags:
        return backend not in OTHERS or backend == OTHERS[turn % 2]
    return True
