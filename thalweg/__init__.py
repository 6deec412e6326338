"""Thalweg: optimizers and schedules for PyTorch, and a fair race between them."""

from typing import TYPE_CHECKING

from thalweg._base.version import __version__ as __version__

if TYPE_CHECKING:
    from thalweg import groups as groups
    from thalweg import optim as optim
    from thalweg import schedule as schedule
    from thalweg import train as train
    from thalweg import transforms as transforms
    from thalweg import wrap as wrap
    from thalweg.diagnosis import check as check
    from thalweg.diagnosis import watch as watch
    from thalweg.optim import *  # noqa: F403 - the list of optimizers stands in thalweg/optim/__init__.py
    from thalweg.registry import create as create
    from thalweg.registry import optimizers as optimizers
    from thalweg.wrap import *  # noqa: F403
else:
    # torch takes seconds to import, and the command's help, its list and whoever asks for the version need none of it
    from thalweg._base import lazy as _lazy

    _HOMES = {
        **dict.fromkeys(("groups", "optim", "schedule", "train", "transforms", "wrap")),
        **dict.fromkeys(("create", "optimizers"), "registry"),
        **dict.fromkeys(("check", "watch"), "diagnosis"),
    }
    #: what those are made of
    _INNER = dict.fromkeys(("diagnosis", "engine", "ir", "linalg", "native", "registry", "rule", "runtime"))

    #: what `torch.optim` has in addition to optimizers, for a script that has put this package in its place
    _TORCHS = dict.fromkeys(("Optimizer", "lr_scheduler", "swa_utils"), "optim")

    def _homes():
        """Of every name; what optimizers and wrappers there are, their packages say."""
        lists = {package: _lazy.attribute(__name__, package, _HOMES).__all__ for package in ("optim", "wrap")}
        return {**_HOMES, **{name: package for package, names in lists.items() for name in names}}

    def __getattr__(name):
        if name == "__all__":
            return sorted(["__version__", *_homes()])
        near = {**_HOMES, **_INNER, **_TORCHS}
        return _lazy.attribute(__name__, name, near if name in near or name.startswith("_") else _homes())

    def __dir__():
        return sorted({*globals(), *_homes()})
