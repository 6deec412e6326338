"""The table of methods that are left out."""

from __future__ import annotations

from thalweg.explain.not_here import left_out

HEAD = "| method | what it is | why it is not here | use instead |\n| --- | --- | --- | --- |\n"


def table() -> str:
    """A row for each, in the order of the file."""
    rows = (f"| [{m.name}]({m.source}) | {m.what} | {m.why} | `{m.instead}` |" for m in left_out().values())
    return HEAD + "\n".join(rows)
