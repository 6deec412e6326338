"""What each optimizer is, told from its class: the formula from its graph, the rest from its docstring and plan."""

from thalweg.explain.about import Explanation, explain
from thalweg.explain.equations import Formula, formula
from thalweg.explain.language import ENGLISH, Language, chinese
from thalweg.explain.lineage import Branch, tree

__all__ = ["ENGLISH", "Branch", "Explanation", "Formula", "Language", "chinese", "explain", "formula", "tree"]
