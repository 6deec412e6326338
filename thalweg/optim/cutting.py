"""Which matrices the parameters of a group hold, from what the group says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from thalweg._base.errors import bad_argument
from thalweg.ir.fields import Each
from thalweg.linalg.blocks import WHOLE, Blocks, blocks_given
from thalweg.runtime.tensors import oriented


def resolved(group: Mapping[str, Any], names: Sequence[str]) -> Any:
    """The blocks of each parameter of a group, checked against its shape; one value where all have the same.

    Args:
        group: with ``params``, ``use_muon``, ``transposed``, and as ``blocks`` a number of equal parts, sizes, Blocks,
            None, a function of a parameter that gives one of these, or the result of this function.
        names: of the parameters.

    Raises:
        ValueError: for anything else, and for blocks that do not make up a parameter.
    """
    if not (group["use_muon"] and group["params"]):
        return None
    given = group["blocks"]
    check_alone(given, "Muon")
    given = None if given == "none" else given
    values = given if isinstance(given, Each) else [given] * len(group["params"])
    pairs = zip(values, group["params"], names, strict=True)
    return Each.of([_fitted(value, p, name, group["transposed"]) for value, p, name in pairs])


def check_alone(given: Any, rule: str) -> None:
    """Refuse what only a model can tell, where the constructor is given parameters.

    Raises:
        ValueError: for a word or rules.
    """
    if _has_rules(given) or (isinstance(given, str) and given != "none"):
        raise bad_argument(
            "blocks", given, "a number of parts, sizes, Blocks(…) or None, where params is no model",
            f"Pass the model itself, {rule}(model, blocks={given!r}): parameters do not say how they are used",
        )  # fmt: skip


def _has_rules(given: Any) -> bool:
    if given is None:
        return False
    from thalweg.groups.rules import Rule  # groups take long to import

    return isinstance(given, Rule) or (isinstance(given, list) and any(isinstance(one, Rule) for one in given))


def of_group(group: Mapping[str, Any]) -> list[Blocks | None]:
    """The blocks of each parameter of a group in which they are :func:`resolved`."""
    given = group["blocks"]
    return list(given) if isinstance(given, Each) else [given] * len(group["params"])


def shapes(group: Mapping[str, Any]) -> list[list[tuple[int, int]]]:
    """(out, in) of the matrices that each parameter of such a group holds; none of one without elements."""
    pairs = zip(group["params"], of_group(group), strict=True)
    return [
        (blocks or WHOLE).shapes(oriented(p, p, group["transposed"]).shape) if p.numel() else [] for p, blocks in pairs
    ]


def _fitted(value: Any, p: Tensor, name: str, transposed: bool) -> Blocks | None:
    """The blocks that a value says a parameter has, in lowest terms; None for one matrix."""
    blocks = blocks_given(value, p, name)
    if blocks is None or blocks.one:
        return None
    return blocks.fitted(oriented(p, p, transposed).shape, name)
