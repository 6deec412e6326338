"""The one line of a race."""

from __future__ import annotations

from thalweg.lab.names import join, named
from thalweg.lab.result import Comparison, RaceResult, Verdict
from thalweg.lab.wording.qualify import entry, qualified, told, untrained

#: in the order in which a race tells what it found
_HEADLINES: dict[Verdict, str] = {
    "better": "better than {b}",
    "slightly better": "slightly better than {b}",
    "no difference that matters": "not different from {b} by anything that matters",
    "not settled": "not settled against {b}",
    "slightly worse": "slightly worse than {b}",
    "worse": "worse than {b}",
}
WORDS = list(_HEADLINES)
IDLE = "did not train"


def headline(result: RaceResult) -> str:
    """One line: who is better than the baseline here, or that nobody is, or that it is not settled; and its warnings.

    Challengers are compared with the baseline alone, so no order among them is claimed.
    """
    task, comparisons = result["task"], result["comparisons"]
    where = f"{task['name']}, {task['steps']} steps"
    if not comparisons:
        return f"{where}: nothing was compared"
    claims: dict[str, list[str]] = {}
    for c in comparisons:
        claims.setdefault(_short_claim(result, c), []).append(_in_short(result, c))
    parts = [f"{join(names)} {'is' if len(names) == 1 else 'are'} {claim}" for claim, names in claims.items()]
    return f"{where}: {'; '.join(parts)}"


def _short_claim(result: RaceResult, c: Comparison) -> str:
    """``better than adamw, at an edge of what was tried``."""
    idle = IDLE if c["baseline"] in untrained(result, c) else ""
    word = _HEADLINES[c["verdict"]].format(b=named(entry(result, c["baseline"]), idle))
    return word + qualified(flag["short"] for flag in told(result, c))


def _in_short(result: RaceResult, c: Comparison) -> str:
    """The name, with the steps and seconds that it takes where they are stated."""
    steps, seconds = c["steps_ratio"]["value"], c["seconds_ratio"]["value"]
    more = IDLE if c["challenger"] in untrained(result, c) else ""
    if c["verdict"] in ("better", "slightly better") and steps is not None:
        also = "" if seconds is None else f", {seconds:.2f} × the seconds"
        more = f"{steps:.2f} × the steps{also} to the same loss"
    return named(entry(result, c["challenger"]), more)
