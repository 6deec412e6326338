"""What ``help()`` says of a constructor's arguments, from their declarations."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Mapping

from thalweg.ir.fields import Hyper, Interval

WIDTH = 100
#: the section, with what is indented below it
SECTION = re.compile(r"^Args:\n((?:[ \t]+\S.*\n?|[ \t]*\n(?=[ \t]+\S))*)", re.MULTILINE)
#: the lines with which an optimizer's docstring ends
_LABELS = re.compile(r"^(?:Parent|Strength|Weakness|Source): ", re.MULTILINE)
PARAMS = "params: an iterable of parameters, of (name, parameter) pairs, or of dicts (param groups), as in torch."


def with_arguments(doc: str, first: str, arguments: Mapping[str, Hyper], common: Mapping[str, Hyper]) -> str:
    """A class's docstring with a line for each argument of its constructor; what it says of one already stays.

    Args:
        doc: as it was written.
        first: what is said of the first argument; may be empty.
        arguments: of the constructor.
        common: those of the base, which it describes.
    """
    doc = inspect.cleandoc(doc)
    section = SECTION.search(doc)
    said = inspect.cleandoc("\n" + section[1]).rstrip() if section else ""
    names = {name for names in re.findall(r"^([\w, ]+):", said, re.MULTILINE) for name in names.split(", ")}
    own = [h for h in arguments.values() if h.init and h != common.get(h.name)]
    lines = [first] if first and first.partition(":")[0] not in names else []
    lines += [said] if said else []
    lines += [_entry(h) for h in own if h.name not in names]
    if rest := [name for name, h in arguments.items() if h.init and h == common.get(name)]:
        lines.append(_wrapped(f"{', '.join(rest)}: as in every optimizer; see thalweg.engine.optimizer.Optimizer."))
    if not lines:
        return doc
    new = "Args:\n" + textwrap.indent("\n".join(lines), "    ")
    if section:
        return doc[: section.start()] + new + "\n" + doc[section.end() :]
    label = _LABELS.search(doc)
    return f"{doc[: label.start()].rstrip()}\n\n{new}\n\n{doc[label.start() :]}" if label else f"{doc}\n\n{new}"


def _entry(h: Hyper) -> str:
    """``lr: step size; in [0, ∞). Default: 0.001.``"""
    allowed = ""
    if isinstance(h.within, Interval):
        allowed = f"; {'each ' if 'tuple' in h.annotation else ''}in {h.within.text}"
    elif h.within is not None:
        allowed = f"; {h.choices}"
    return _wrapped(f"{h.name}: {(h.doc or h.name) + allowed}. Default: {h.default!r}.")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="    ", break_long_words=False)
