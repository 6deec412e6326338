"""Late errors for the packages of an extra: the library itself needs torch alone."""

from __future__ import annotations

import importlib.util

from thalweg._base.errors import ThalwegError

#: import name of each package that ``thalweg[lab]`` brings
LAB = ("click", "jinja2", "numpy", "PIL", "rich", "sklearn", "scipy", "sqlalchemy")


def require_lab() -> None:
    """Raise one :class:`ThalwegError` with the install command if a package of ``thalweg[lab]`` is missing."""
    missing = [name for name in LAB if importlib.util.find_spec(name) is None]
    if missing:
        raise ThalwegError(
            f"the lab needs packages that are not installed ({', '.join(missing)}); "
            "install them with: pip install 'thalweg[lab]'"
        )


def require_matplotlib(what: str) -> None:
    """Raise one :class:`ThalwegError` with the install command if ``what`` cannot draw for want of matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ThalwegError(f"{what} needs matplotlib; install it with: pip install 'thalweg[plot]'")
