"""What each optimizer is, told from its class: the formula from its graph, the rest from its docstring and plan."""

from typing import TYPE_CHECKING

__all__ = ["ENGLISH", "Branch", "Explanation", "Formula", "Language", "chinese", "explain", "formula", "tree"]

if TYPE_CHECKING:
    from thalweg.explain.about import Explanation, explain
    from thalweg.explain.branches import Branch
    from thalweg.explain.equations import Formula, formula
    from thalweg.explain.language import ENGLISH, Language, chinese
    from thalweg.explain.lineage import tree
else:
    # the list of all optimizers is shown from what is kept of it, without torch
    from thalweg._base import lazy as _lazy

    _HOMES = {
        **dict.fromkeys(("Explanation", "explain"), "about"),
        **dict.fromkeys(("Formula", "formula"), "equations"),
        **dict.fromkeys(("ENGLISH", "Language", "chinese"), "language"),
        "Branch": "branches",
        "tree": "lineage",
    }

    def __getattr__(name):
        return _lazy.attribute(__name__, name, _HOMES)
