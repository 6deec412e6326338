"""The sentences of a race, from its result alone: no word without its conditions, and none without its warnings.

`headline` (one line), `sentence` (of one comparison), `closing` (of the whole race), `qualify` (the warnings).
"""

from __future__ import annotations

from thalweg.lab.result import RaceResult
from thalweg.lab.wording import closing
from thalweg.lab.wording.headline import WORDS, headline
from thalweg.lab.wording.qualify import doubts
from thalweg.lab.wording.sentence import sentence

__all__ = ["WORDS", "tell"]


def tell(result: RaceResult) -> None:
    """Put the comparisons in order and fill in all that is said: warnings, sentences, headline.

    The order is that of the words, from *better* to *worse*, and among equal words that of the differences: who gains
    most comes first.

    Args:
        result: everything else, the flags included; a warning concerns the comparisons of the contestants that it
            names, or all.
    """
    result["comparisons"].sort(key=lambda c: (WORDS.index(c["verdict"]), c["difference"]))
    for c in result["comparisons"]:
        c["warnings"] = [flag["text"] for flag in doubts(result, c)]
        c["sentence"] = sentence(result, c)
    result["warnings"] = [flag["text"] for flag in result["flags"] if flag["level"] == "warning"]
    result["headline"] = headline(result)
    result["sentences"] = [*(c["sentence"] for c in result["comparisons"]), *closing.sentences(result)]
