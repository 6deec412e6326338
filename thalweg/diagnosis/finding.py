"""A finding: what is wrong, where, since when, the number that shows it, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from thalweg.diagnosis.causes import cause_of

#: layers that one finding names; of more, the number of the others is told
LAYERS = 4


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a run.

    Attributes:
        cause: its stable name, one of :func:`thalweg.diagnosis.causes.causes`.
        layer: the module or parameter by its dotted name in the model, several joined by commas; empty where the cause
            lies in no layer.
        evidence: a measured number against what is expected, as a sentence.
        remedy: what to do, as a sentence.
        patch: the line or lines to write; empty where there is no one line.
        step: the update at which it began, counted from 0; None for what is wrong before the first one.
        numbers: what the evidence measures, by name, for programs.
        pillar: ``loss``, ``gradients``, ``optimizer``, ``schedule`` or ``step``.
        link: where the cause is explained.
    """

    cause: str
    layer: str
    evidence: str
    remedy: str
    patch: str = ""
    step: int | None = None
    numbers: dict[str, Any] = field(default_factory=dict, hash=False)
    pillar: str = ""
    link: str = ""

    def __str__(self) -> str:
        """What is wrong and where, what shows it, and what to do: a line each."""
        where = f" in {self.layer}" if self.layer else ""
        since = f", since step {self.step}" if self.step is not None else ""
        lines = [f"{self.cause}{where}{since}", f"  {self.evidence}", f"  {self.remedy}"]
        lines += [f"    {line}" for line in self.patch.splitlines()]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def finding(
    cause: str,
    evidence: str,
    layer: str | Iterable[str] = "",
    *,
    step: int | None = None,
    numbers: dict[str, Any] | None = None,
    **words: Any,
) -> Finding:
    """The finding of a cause, with the remedy and the patch that the table of causes has for it.

    Args:
        cause: its name in the table.
        evidence: a sentence with the measured number and what is expected.
        layer: a name, or the names of several layers or parameters.
        step: as of :class:`Finding`.
        numbers: as of :class:`Finding`.
        words: what stands in the braces of the table's remedy and patch. Known are ``cause``, ``layer``, and of the
            first layer ``first``, its name, and ``module``, how a script gets at the module.

    Raises:
        KeyError: for a cause that the table does not have, or a word that its texts need.
    """
    about = cause_of(cause)
    layer = layer if isinstance(layer, str) else tuple(layer)
    where = layer if isinstance(layer, str) else layers(layer)
    first = where.partition(",")[0].partition(" and ")[0]
    names = [] if isinstance(layer, str) else list(layer)
    owner = names[0].rpartition(".")[0] if names and names[0].startswith(first) else first
    known = {"cause": cause, "layer": where, "first": first, "module": spelt(owner), **words}
    return Finding(
        cause,
        where,
        evidence,
        about.remedy.format_map(known),
        about.patch.format_map(known),
        step,
        dict(numbers or {}),
        about.pillar,
        about.link,
    )


def spelt(name: str) -> str:
    """A module's dotted name as Python: ``blocks.0.up`` as ``model.blocks[0].up``."""
    return "model" + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in name.split(".") if part)


def layers(names: Iterable[str], most: int = LAYERS) -> str:
    """Names of parameters as the layers they belong to: each once, the first few by name.

    A layer that has one parameter among them is named by that parameter.
    """
    owned: dict[str, list[str]] = {}
    for name in names:
        owned.setdefault(name.rpartition(".")[0] or name, []).append(name)
    shown = [owner if len(its) > 1 else its[0] for owner, its in owned.items()]
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more
