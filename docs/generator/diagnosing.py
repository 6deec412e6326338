"""Parts of the page on runs that do not learn: every cause with its remedy, and what was found in the fault suite."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.generator.optimizer_pages import table
from thalweg.diagnosis.causes import PILLARS, Cause, causes

#: what `make faults` has written
FAULTS = Path(__file__).parents[1] / "data" / "faults.json"
HEADINGS = ["fault", "thalweg.check", "thalweg.watch", "layer", "norms", "rules"]
__all__ = ["PILLARS", "causes_of", "faults"]


def causes_of(pillar: str) -> str:
    """A heading for each cause of a pillar; below it what it means, what to do, and the line to write."""
    return "\n\n".join(_told(cause) for cause in causes().values() if cause.pillar == pillar)


def _told(cause: Cause) -> str:
    return "\n\n".join([f"### {cause.name}", cause.meaning, cause.remedy, *_patch(cause)])


def _patch(cause: Cause) -> Iterator[str]:
    """The line, with a layer in the place of the one that is found; none where the finding writes it all."""
    line = cause.patch.replace("{module}", "model.layer").replace("{{", "{").replace("}}", "}")
    line = re.sub(r"\{\w+\}", "…", line)
    if line.strip("…"):
        yield f"`{line}`"


def faults() -> str:
    """The table of the fault suite; a dash where nothing is said."""
    rows = json.loads(FAULTS.read_text(encoding="utf-8"))["faults"]
    return table(HEADINGS, [_cells(row) for row in rows])


def _cells(row: dict[str, Any]) -> list[str]:
    named, layer = (f"`{row[key]}`" if row[key] else "–" for key in ("check", "layer"))
    return [row["name"].replace("``", "`"), named, _watched(row), layer, row["norms"] or "–", row["traincheck"] or "–"]


def _watched(row: dict[str, Any]) -> str:
    """What was told while it ran, and after how many updates."""
    return f"`{row['watch']}` ({row['after']})" if row["watch"] else "–"
