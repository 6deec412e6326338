"""Late errors for the packages of an extra: the library itself needs torch alone."""

from __future__ import annotations

import importlib.util

from thalweg._base.errors import ThalwegError

#: of each package that ``thalweg[lab]`` brings, its name for import and its name for pip
LAB = {
    "click": "click",
    "jinja2": "jinja2",
    "numpy": "numpy",
    "PIL": "pillow",
    "rich": "rich",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "sqlalchemy": "sqlalchemy",
}


def require_lab() -> None:
    """Raise one :class:`ThalwegError` with the install command if a package of ``thalweg[lab]`` is missing."""
    missing = [package for name, package in LAB.items() if importlib.util.find_spec(name) is None]
    if missing:
        raise ThalwegError(
            f"the command needs packages of thalweg[lab] that are not installed: pip install {' '.join(missing)}"
        )


def require_matplotlib(what: str) -> None:
    """Raise one :class:`ThalwegError` with the install command if ``what`` cannot draw for want of matplotlib."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ThalwegError(f"{what} needs matplotlib of thalweg[plot], which is not installed: pip install matplotlib")
