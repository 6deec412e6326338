"""Schedules as a `torch.optim.lr_scheduler.LRScheduler`."""

from __future__ import annotations

import copy
import warnings
from dataclasses import asdict
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from thalweg._base.errors import bad_argument
from thalweg.schedule.compose import Constant
from thalweg.schedule.per_group import Asked, Track, assign, put
from thalweg.schedule.plateau import Plateau, PlateauState

#: what of LRScheduler's attributes makes its place
_PLACE = ("base_lrs", "last_epoch", "_step_count", "_last_lr")
#: before a hyperparameter's name: what a group began with, as torch spells it
_INITIAL = "initial_"


def _not_first(given: Any) -> ValueError:
    remedy = "Give the optimizer first, then the schedule"
    return bad_argument("optimizer", type(given).__name__, "a torch.optim.Optimizer", remedy)


class Scheduler(LRScheduler):
    """Each group's learning rate is its own peak times ``schedule(step)``, with the number of ``step()`` calls.

    Call ``step()`` after each ``optimizer.step()``. It sets the learning rate outright, as torch's ``LambdaLR`` does:
    so it takes its turn in ``SequentialLR``, but cannot multiply others in ``ChainedScheduler`` (multiply schedules
    instead). Other hyperparameters follow schedules of their own in the same way: each is what the group was given,
    times the factor, or the value itself where the schedule is a :class:`Between`.

    Every schedule may be given for all groups at once; as a list, one for each group; or as a dict by a group's index
    or its ``name``, with None for all others. A group that is not named keeps what it has. For a tuple of numbers such
    as ``betas``, give a tuple: a schedule for each number, None for one that stays::

        Scheduler(optimizer, linear(1000), weight_decay=cosine(1000), betas=(None, Between(0.95, 0.999, cosine(1000))))
        Scheduler(optimizer, {"embedding": constant(), None: cosine(1000, warmup=50)})

    To resume, build optimizer and scheduler and load the ``state_dict`` of both, in any order. The scheduler's holds
    numbers alone, not the schedules. A group that is added to the optimizer later takes part from the next ``step()``
    on; what it was given are its peaks. Within ``SequentialLR``, give every part the same hyperparameters to schedule:
    a part sets nothing before and after its turn.

    Args:
        optimizer: any torch optimizer; what its groups have now are the peaks, or what they had (``initial_lr``,
            ``initial_weight_decay``, …) before another scheduler came.
        schedule: of the learning rate, from :mod:`thalweg.schedule`, or any function of the step to a factor; None to
            leave it alone.
        last_epoch: -1 to begin; else the number of the last update made (the first one is 0), where the groups have
            ``initial_lr``.
        weight_decay, momentum, betas: their schedules. ``momentum`` is β₁ where a group has ``betas`` instead.
        plateau: multiplies the learning rate by what :meth:`measure` finds.
        others: schedules of any other number in the groups, by its name.

    Raises:
        TypeError: if ``optimizer`` is none.
        ValueError: for a schedule that is none, or is of what a group does not have; nothing has changed then.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: Asked | None = None,
        last_epoch: int = -1,
        *,
        weight_decay: Asked | None = None,
        momentum: Asked | None = None,
        betas: Asked | None = None,
        plateau: Plateau | None = None,
        **others: Asked,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(_not_first(optimizer))
        if plateau is not None and not isinstance(plateau, Plateau):
            raise bad_argument("plateau", plateau, "a Plateau")
        asked = {"lr": schedule, "weight_decay": weight_decay, "momentum": momentum, "betas": betas, **others}
        if schedule is not None and "lr" in others:
            raise bad_argument("lr", others["lr"], "the only schedule of the learning rate; the second argument is one")
        if asked["lr"] is None and plateau is not None:
            asked["lr"] = Constant()
        self.schedules = {name: what for name, what in asked.items() if what is not None}
        if not self.schedules:
            raise bad_argument("schedule", schedule, "a function of the step")
        self.plateau, self.plateau_state = plateau, PlateauState()
        self.optimizer = optimizer
        self.initial: list[dict[str, Any]] = []
        self._tracks = assign(self.schedules, optimizer.param_groups)
        self._check_resumed(last_epoch)
        self._remember()
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        """Learning rates of the groups for the next update; within ``step()``, sets what else follows a schedule."""
        self._meet_new_groups()
        if not self._get_lr_called_within_step:
            warnings.warn("to see the learning rates that are set, call get_last_lr()", UserWarning, stacklevel=2)
            return self._rates()
        for group, initial, tracks in zip(self.optimizer.param_groups, self.initial, self._tracks, strict=True):
            for track in tracks:
                if track.key != "lr":
                    track.write(group, track.value(initial[track.key], self.last_epoch))
        return self._rates()

    def measure(self, value: float | Tensor) -> None:
        """Tell the plateau what was measured, such as the loss on held-out data; the learning rates follow at once.

        Raises:
            ValueError: if the scheduler was built without ``plateau``.
        """
        if self.plateau is None:
            raise bad_argument("plateau", None, "a Plateau, given to the Scheduler")
        self._meet_new_groups()
        before, self.plateau_state = self.plateau_state, self.plateau.after(float(value), self.plateau_state)
        if self.plateau_state.factor != before.factor:
            for group, rate in zip(self.optimizer.param_groups, self._rates(), strict=True):
                put(group, "lr", rate)
            self._last_lr = [_copy(group["lr"]) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The peaks, the place and the values that are set: no optimizer, no schedule."""
        self._meet_new_groups()
        groups = zip(self.optimizer.param_groups, self._tracks, strict=True)
        state = {
            **{name: getattr(self, name) for name in _PLACE},
            "initial": self.initial,
            "values": [{key: _copy(group[key]) for key in _keys(tracks)} for group, tracks in groups],
            "plateau": asdict(self.plateau_state) if self.plateau else None,
        }
        return copy.deepcopy(state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken; the values that were set then are set in the optimizer.

        Raises:
            ValueError: if it is not of a scheduler of the same hyperparameters over as many groups; nothing has changed
                then.
        """
        groups = self.optimizer.param_groups
        tracks = assign(self.schedules, groups)
        names = ("initial", "values", "plateau", *_PLACE)
        if (
            not all(name in state_dict for name in names)
            or len(state_dict["base_lrs"]) != len(groups)
            or [list(mine) for mine in state_dict["values"]] != [_keys(mine) for mine in tracks]
            or (state_dict["plateau"] is None) != (self.plateau is None)
        ):
            what = ", ".join([*self.schedules, *(["plateau"] if self.plateau else [])])
            raise bad_argument(
                "state_dict", state_dict, f"what a Scheduler over {len(groups)} groups has saved ({what})"
            )
        state = copy.deepcopy({name: state_dict[name] for name in names})
        values, plateau = state.pop("values"), state.pop("plateau")
        self._meet_new_groups()
        self.plateau_state = PlateauState(**(plateau or {}))
        super().load_state_dict(state)
        for group, mine in zip(groups, values, strict=True):
            for key, value in mine.items():
                put(group, key, value)

    # -- groups -----------------------------------------------------------------------------------------------------

    def _rates(self) -> list[Any]:
        rates = []
        for group, peak, tracks in zip(self.optimizer.param_groups, self.base_lrs, self._tracks, strict=True):
            mine = [track for track in tracks if track.key == "lr"]
            rate = mine[0].value(peak, self.last_epoch) * self.plateau_state.factor if mine else group["lr"]
            rates.append(_copy(rate))
        return rates

    def _meet_new_groups(self) -> None:
        """Groups that were added since: what they have is what they begin with."""
        groups = self.optimizer.param_groups
        if len(groups) > len(self._tracks):
            self._tracks = assign(self.schedules, groups)
            for group in groups[len(self.base_lrs) :]:
                self.base_lrs.append(_copy(group.setdefault("initial_lr", _copy(group["lr"]))))
                self._last_lr.append(_copy(group["lr"]))
            self._remember()

    def _remember(self) -> None:
        """Keep what the groups began with; it stands in them too, as torch's ``initial_lr``, for schedulers to come."""
        groups = self.optimizer.param_groups[len(self.initial) :]
        for group, tracks in zip(groups, self._tracks[len(self.initial) :], strict=True):
            keys = [key for key in _keys(tracks) if key != "lr"]  # torch remembers that one
            self.initial.append({key: _copy(group.setdefault(_INITIAL + key, _copy(group[key]))) for key in keys})

    def _check_resumed(self, last_epoch: int) -> None:
        """In the middle of a run, what the groups began with must stand in them."""
        for group, tracks in zip(self.optimizer.param_groups, self._tracks, strict=True):
            for key in _keys(tracks):
                if last_epoch != -1 and _INITIAL + key not in group:
                    raise bad_argument("last_epoch", last_epoch, f"-1: a parameter group has no {_INITIAL + key!r}")


def _keys(tracks: list[Track]) -> list[str]:
    return list(dict.fromkeys(track.key for track in tracks))


def _copy(value: Any) -> Any:
    """No tensor that somebody else fills."""
    if isinstance(value, (tuple, list)):
        return type(value)(map(_copy, value))
    return value.detach().clone() if isinstance(value, Tensor) else value
