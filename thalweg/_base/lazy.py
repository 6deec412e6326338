"""Names that a package has without importing them: each is imported when it is first asked for (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from thalweg._base.errors import nearest


def attribute(package: str, name: str, homes: Mapping[str, str | None]) -> Any:
    """What a package's ``__getattr__`` answers; it is asked once for each name, since the package then has it.

    Args:
        package: the package's name.
        name: what was asked for.
        homes: for each name the submodule that defines it; None where it is itself the name of a submodule.

    Raises:
        AttributeError: for a name that the package does not have.
    """
    if name not in homes:
        near = nearest(name, (known for known in homes if not known.startswith("_")))
        hint = f"; did you mean {' or '.join(near)}?" if near and not name.startswith("_") else ""
        raise AttributeError(f"module {package!r} has no attribute {name!r}{hint}")
    home = homes[name]
    if home is None:
        return import_module(f"{package}.{name}")  # which puts it into the package
    value = getattr(import_module(f"{package}.{home}"), name)
    setattr(sys.modules[package], name, value)
    return value
