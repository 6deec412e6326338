"""Parameter groups, and the table that shows them before training."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from torch import Tensor

from thalweg._base.errors import bad_argument

#: from how many parameters on, like names are written as one line
MANY = 40
#: how many lines a group has at most, then
LINES = 12


@dataclass(frozen=True)
class Row:
    """One parameter in the table.

    Attributes:
        group: index of its group; None for a frozen one, which is in none.
        name: as in ``model.named_parameters()``.
        aliases: further names, where it is tied.
        shape: of the tensor.
        numel: how many numbers it holds.
        settings: the hyperparameters that it gets, factors multiplied in.
        factors: what was multiplied in, by hyperparameter.
        why: the rules that decided.
        transposed: whether it is a matrix or kernel that is kept as (in, out, …).
        blocks: which matrices it holds, in words; empty where it is one.
    """

    group: int | None
    name: str
    aliases: tuple[str, ...]
    shape: tuple[int, ...]
    numel: int
    settings: Mapping[str, Any]
    factors: Mapping[str, float]
    why: str
    transposed: bool = False
    blocks: str = ""


class Groups(list[dict[str, Any]]):
    """Parameter groups as ``torch.optim`` takes them: a list of dicts, that prints as a table.

    Parameters stand in it as (name, parameter) pairs, so that ``optimizer.state_dict()`` has their names
    (``param_names``). An optimizer makes the dicts its own; build the groups again for a second one.

    Attributes:
        rows: one :class:`Row` for each parameter of the model, frozen ones too, in the model's order: the outcome as
            data, as it was when the groups were built.
        notes: what was guessed of the model, and which parameters no forward pass was seen to meet, in words.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]] = (), rows: Iterable[Row] = (), notes: Iterable[str] = ()
    ) -> None:
        super().__init__(groups)
        self.rows, self.notes = tuple(rows), tuple(notes)

    def by(self, key: str) -> dict[Any, Groups]:
        """The groups apart, by their value of ``key``, for several optimizers; ``key`` itself is taken out.

        Raises:
            ValueError: where a group has no such key.
        """
        parts: dict[Any, Groups] = {}
        for index, group in enumerate(self):
            if key not in group:
                names = ", ".join(row.name for row in self.rows if row.group == index)
                raise bad_argument("key", key, f"a setting of every group, but these have none: {names}")
            part = parts.setdefault(group[key], Groups(notes=self.notes))
            part.rows += tuple(
                replace(row, group=len(part), settings={k: v for k, v in row.settings.items() if k != key})
                for row in self.rows
                if row.group == index
            )
            part.append({k: v for k, v in group.items() if k != key})
        return parts

    def __str__(self) -> str:
        trained = [row for row in self.rows if row.group is not None]
        lines = [f"{_size(trained)} in {len(self)} group{'s' * (len(self) != 1)}"]
        for alike in self._blocks(trained):
            indices = ", ".join(map(str, alike))
            rows = [row for row in trained if row.group in alike]
            lines.append(f"group{'s' * (len(alike) > 1)} {indices}: {_size(rows)}")
            for index, members in alike.items():
                lines.append(f"  {f'group {index}: ' * (len(alike) > 1)}{_settings(members[0])}")
            lines += _body(rows, len(trained) > MANY)
        if frozen := [row for row in self.rows if row.group is None]:
            lines += [f"frozen, in no group: {_size(frozen)}", *_body(frozen, len(self.rows) > MANY)]
        return "\n".join([*lines, *self.notes])

    def _blocks(self, trained: list[Row]) -> list[dict[int, list[Row]]]:
        """The groups, by index; of a large model those together whose names differ in their numbers alone."""
        blocks: dict[Any, dict[int, list[Row]]] = {}
        for index in range(len(self)):
            rows = [row for row in trained if row.group == index]
            key = frozenset(Counter(map(_like, rows)).items()) if len(trained) > MANY else index
            blocks.setdefault(key, {})[index] = rows
        return list(blocks.values())

    __repr__ = __str__


def _size(rows: list[Row]) -> str:
    tensors = f"{len(rows)} tensor{'s' * (len(rows) != 1)}"
    return f"{tensors}, {sum(row.numel for row in rows):,} parameters"


def _settings(row: Row) -> str:
    """``lr=0.0005 (0.001 × 0.5), weight_decay=0.1``."""
    return ", ".join(_setting(key, value, row.factors.get(key)) for key, value in row.settings.items()) or "defaults"


def _setting(key: str, value: Any, factor: float | None) -> str:
    if factor is None:
        return f"{key}={_number(value)}"
    base = f"{_number(value / factor)} × " if factor else "× "
    return f"{key}={_number(value)} ({base}{_number(factor)})"


def _number(value: Any) -> str:
    value = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _body(rows: list[Row], summarised: bool) -> Iterator[str]:
    cells = list(_summary(rows) if summarised else ((_name(row), _shape(row), row.why) for row in rows))
    widths = [max(len(cell[i]) for cell in cells) for i in range(2)]
    shown = cells[:LINES] if summarised else cells
    for name, shape, why in shown:
        yield f"    {name.ljust(widths[0])}  {shape.ljust(widths[1])}  {why}".rstrip()
    if len(cells) > len(shown):
        yield f"    … and {len(cells) - len(shown)} more"


def _summary(rows: list[Row]) -> Iterator[tuple[str, str, str]]:
    """Names that differ in their numbers alone as one line: ``layers.{0…11}.weight  12 × (8, 8)``."""

    order = {key: i for i, key in reversed(list(enumerate(map(_like, rows))))}
    for _, same in groupby(sorted(rows, key=lambda row: order[_like(row)]), key=_like):
        members = list(same)
        if len(members) == 1:
            yield _name(members[0]), _shape(members[0]), members[0].why
        else:
            names, whys = [_name(row) for row in members], [row.why for row in members]
            yield _merged(names), f"{len(members)} × {_shape(members[0])}", _merged(whys)


def _like(row: Row) -> tuple[str, str, str]:
    return re.sub(r"\d+", "#", _name(row)), _shape(row), re.sub(r"\d+", "#", row.why)


def _merged(texts: list[str]) -> str:
    """Texts that differ in their numbers alone as one, with the first and the last of each number."""
    pieces = [re.split(r"(\d+)", text) for text in texts]
    return "".join(
        column[0] if len(set(column)) == 1 else f"{{{column[0]}…{column[-1]}}}" for column in zip(*pieces, strict=True)
    )


def _name(row: Row) -> str:
    return " = ".join((row.name, *row.aliases))


def _shape(row: Row) -> str:
    sizes = list(map(str, row.shape))
    if row.transposed:  # the way that most are kept, (out, in, …), goes without saying
        sizes[:2] = [f"in {sizes[0]}", f"out {sizes[1]}"]
    return (f"({', '.join(sizes)})" if sizes else "scalar") + (f", {row.blocks}" if row.blocks else "")
