"""The face of `torch.optim.Optimizer`, written once for all rules."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, dataclass_transform

import torch
from torch import Tensor, nn
from torch.autograd import profiler
from torch.optim.optimizer import _global_optimizer_post_hooks as AFTER_ALL
from torch.optim.optimizer import _global_optimizer_pre_hooks as BEFORE_ALL

from thalweg._base.errors import bad_argument, bad_type
from thalweg._base.given import check_closure
from thalweg.engine import aliasing, backward, checkpoint, docstrings, fitting, parameters
from thalweg.engine.dynamo import bare, uncompiled
from thalweg.engine.plan_report import PlanReport
from thalweg.ir import fields
from thalweg.ir.fields import Hyper, StateSpec, count, hyper, number, shared, state
from thalweg.ir.trace import specializations, specialize, trace
from thalweg.ir.transforms import STANDARD, listing
from thalweg.ir.transforms.base import Transform
from thalweg.runtime import sharding
from thalweg.runtime.backends import select
from thalweg.runtime.formats import Storage
from thalweg.runtime.stepper import Stepper, draws
from thalweg.shards.exchange import telling_ranks

FORMATS = (None, "float32", "bfloat16", "int8")
#: how torch says in which way a step is computed; they stand in the groups, so that its checkpoints keep them
TORCHS = ("foreach", "fused", "capturable", "differentiable")


def _surround(cls: Any, given: Sequence[Transform]) -> None:
    """Add the declarations of transforms to a class; a declaration of its own takes precedence over theirs."""
    added = {}
    if given:
        new = listing.checked(cls, given)
        added = listing.declared(cls, new)
        cls.listed = (*cls.listed, *map(type, new))
    for t in cls.__dict__.get("standard", ()):
        added |= {**{name: replace(h, kw_only=True) for name, h in t.hypers.items()}, **t.states}
    cls._declared |= {name: one for name, one in added.items() if name not in cls._declared}
    cls.standard = tuple(t for t in cls.standard if t not in cls.listed)
    cls.drawing = tuple(t.switch for t in (*cls.standard, *cls.listed) if t.draws)
    cls.firsts = {name: t.first for t in (*cls.standard, *cls.listed) for name in t.states}


@dataclass_transform(field_specifiers=(hyper, state, number, count, shared))
class Declared(torch.optim.Optimizer):
    """Reads the declarations of every subclass and gives it its constructor's signature."""

    hypers: ClassVar[dict[str, Hyper]]
    states: ClassVar[dict[str, StateSpec]]
    setup: ClassVar[dict[str, Hyper]]
    #: its name, and what its checkpoints have in common with those of classes that they may go to
    kin: ClassVar[dict[str, str]]
    #: what surrounds the direction: the transforms that are keywords of every optimizer, and those of the class's list
    standard: ClassVar[tuple[type[Transform], ...]] = ()
    listed: ClassVar[tuple[type[Transform], ...]] = ()
    #: by state of a transform, the number of a step that tells whether it begins
    firsts: ClassVar[dict[str, str]] = {}
    #: the switches of those that draw random numbers; "" of one that always does
    drawing: ClassVar[tuple[str, ...]] = ()
    _arguments: ClassVar[inspect.Signature]

    add_param_group = bare(torch.optim.Optimizer.add_param_group)
    zero_grad = bare(torch.optim.Optimizer.zero_grad)
    state_dict = bare(torch.optim.Optimizer.state_dict)
    load_state_dict = bare(torch.optim.Optimizer.load_state_dict)

    def __init_subclass__(cls, transforms: Sequence[Transform] = (), **kwargs: Any) -> None:
        """Collect what the class body declares, and what its transforms do: ``class Mine(AdamW, transforms=[…])``."""
        super().__init_subclass__(**kwargs)
        fields.collect(cls)
        _surround(cls, transforms)
        arguments: dict[str, Hyper] = fields.declarations(cls, Hyper)
        cls.hypers = {name: h for name, h in arguments.items() if not h.setup}
        cls.states = fields.declarations(cls, StateSpec)
        cls.setup = {name: h for name, h in arguments.items() if h.setup}
        cls.kin = {"name": cls.__name__, "kin": fields.kin(cls, cls.hypers)}
        cls._arguments = fields.signature(arguments)
        cls.__signature__ = fields.own_signature(cls) or cls._arguments  # type: ignore[attr-defined]
        root: Any = next(base for base in cls.__mro__ if Declared in base.__bases__)
        if cls.__dict__.get("__doc__"):
            common = {} if cls is root else fields.declarations(root, Hyper)
            cls.__doc__ = docstrings.with_arguments(cls.__doc__ or "", docstrings.PARAMS, arguments, common)


class Optimizer(Declared):
    """Base of every optimizer here: a subclass declares hyperparameters and state, and one pure ``direction``.

    What surrounds every direction is written in :mod:`thalweg.ir.transforms`, with formulas and sources, and with the
    order in which it acts. The keywords of it are at the end of the list.

    Args:
        params: an iterable of parameters, of (name, parameter) pairs, or of dicts (param groups), as in torch; a whole
            model where the optimizer says so.
        weight_decay: λ. Coupled (added to the gradient) or decoupled, as the optimizer's own text says.
        decoupled_weight_decay: decay the weights themselves (p ← p − lr·wd·p) instead of adding wd·p to the gradient.
        independent_weight_decay: decoupled decay that follows the schedule but not the size of the learning rate
            (p ← p − wd·p·lr/initial lr).
        transforms: what else surrounds the direction, next to it and in this order, as in
            ``[clip_global_norm(1.0), grokfast(2.0)]``: see :mod:`thalweg.transforms`. The list is one for all groups;
            what its transforms declare are hyperparameters of the groups.
        backend: ``"auto"``, ``"eager"``, ``"foreach"``, ``"cpu"`` or ``"triton"``; ``repr`` says which runs and why.
        state_dtype: keep the state as ``"float32"``, ``"bfloat16"`` or ``"int8"`` (codes with a scale for each 128
            elements); None is the parameter's dtype. A torch.dtype serves too.
        rounding: of what is stored in 16 bits: ``"nearest"`` or ``"stochastic"`` (up or down at random, so that steps
            below half a unit are right on average).
        master: ``"split16"`` (or ``"split"``) keeps the next 16 bits of a float32 beside each bfloat16 parameter,
            ``"split8"`` the next 8.
        seed: of random bits. They go on in a checkpoint: it holds the seed and how many updates there were.
        foreach, fused: torch's spelling of ``backend``; ``foreach=False`` is ``"eager"``, ``fused=True`` ``"auto"``.
            With ``fused=True`` the step divides the gradients by the scale of ``GradScaler`` on its way; else
            ``GradScaler`` does so itself before the step, as for torch's optimizers, and gradients may be clipped then.
        capturable, differentiable: torch has them; only False is served, and True is an error. These four stand in the
            groups as in torch, so that a checkpoint takes them to torch and back; here a group's are not looked at.

    A group may say ``transposed=True``: its matrices and kernels are kept as (in, out, …), as for ``x @ W`` and in
    ``nn.ConvTranspose2d``, and are stepped as (out, in, …). Then a row is what makes one number of the output, for
    ``centralize`` and ``clip_adaptive``, for states of rows, and for Muon's scale. :mod:`thalweg.groups` sets it.

    Raises:
        ValueError: for a hyperparameter outside its range, in the constructor or in a group, before anything changes.
        TypeError: for an argument that the optimizer does not have.
    """

    #: whether a gradient's zeros move nothing, so that a sparse one means the same
    takes_sparse: ClassVar[bool] = False
    #: whether the rule differs for tensors with fewer than two dimensions: ``h.matrix`` tells, and they step apart
    matrices_apart: ClassVar[bool] = False
    #: what a subclass keeps in a parameter's state in addition to what it declares
    kept_besides: ClassVar[tuple[str, ...]] = ()
    standard = STANDARD

    params: Iterable[Any] | nn.Module
    if not TYPE_CHECKING:  # where a base declares a name, type checkers put it first: each rule says where these stand
        weight_decay: float = hyper(
            default=0.0, within="[0, ∞)", doc="λ, coefficient of the weight decay", off=0, kw_only=True
        )
        decoupled_weight_decay: bool = hyper(default=False, doc="decay the weights, not the gradient", kw_only=True)
    independent_weight_decay: bool = hyper(default=False, doc="decay by wd·lr/initial lr", kw_only=True)
    if TYPE_CHECKING:  # what the transforms in STANDARD declare, for editors; a test holds the two together
        maximize: bool = hyper(default=False, kw_only=True)
        clip_value: float | None = hyper(default=None, kw_only=True)
        clip_norm: float | None = hyper(default=None, kw_only=True)
        clip_global_norm: float | None = hyper(default=None, kw_only=True)
        clip_adaptive: float | None = hyper(default=None, kw_only=True)
        centralize: bool = hyper(default=False, kw_only=True)
        gradient_noise: float = hyper(default=0.0, kw_only=True)
        gradient_noise_decay: float = hyper(default=0.55, kw_only=True)
        grokfast: float = hyper(default=0.0, kw_only=True)
        grokfast_alpha: float = hyper(default=0.98, kw_only=True)
        orthograd: bool = hyper(default=False, kw_only=True)
        cautious: bool = hyper(default=False, kw_only=True)
        cautious_decay: bool = hyper(default=False, kw_only=True)
        hyperball: bool | Literal["all"] = hyper(default=False, kw_only=True)
        trust_ratio: bool = hyper(default=False, kw_only=True)
    transposed: bool = hyper(
        default=False, doc="matrices are kept as (in, out, …)", kw_only=True, init=False, layout=True
    )
    transforms: Sequence[Transform] = hyper(default=(), kw_only=True, setup=True)
    backend: Literal["auto", "eager", "foreach", "cpu", "triton"] = hyper(default="auto", kw_only=True, setup=True)
    state_dtype: Literal["float32", "bfloat16", "int8"] | torch.dtype | None = hyper(
        default=None, kw_only=True, setup=True
    )
    rounding: Literal["nearest", "stochastic"] = hyper(default="nearest", kw_only=True, setup=True)
    master: Literal["split", "split8", "split16"] | None = hyper(default=None, kw_only=True, setup=True)
    seed: int = hyper(default=0, kw_only=True, setup=True)
    foreach: bool | None = hyper(default=None, kw_only=True, setup=True)
    fused: bool | None = hyper(default=None, kw_only=True, setup=True)
    capturable: bool = hyper(default=False, kw_only=True, setup=True)
    differentiable: bool = hyper(default=False, kw_only=True, setup=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = fields.given(type(self), self._arguments, args, kwargs)
        params, listed = given.pop("params"), listing.checked(type(self), given.pop("transforms"))
        given = listing.given(type(self), listed, given)
        self.rule = listing.surrounded(type(self), tuple(map(type, listed)))
        if isinstance(params, nn.ParameterList):  # a module, but parameters all the same
            params = list(params)
        for name, h in {**self.setup, **self.rule.hypers}.items():
            if name in given:
                h.check(given[name])
        _refuse_torchs_own(given)
        self.backend = select.requested(given["backend"], given["foreach"], given["fused"])
        self.storage = _storage(given["state_dtype"], given["rounding"], given["master"])
        self.seed = given["seed"]
        if given["fused"]:  # torch.amp.GradScaler then hands over its scale, and what it found
            self._step_supports_amp_scaling = True
        self._stepper = Stepper(self.rule, self.backend, self.storage, self.seed)
        self._in_backward: backward.InBackward | None = None
        self._constructed = False
        defaults = {name: fields.frozen(given.get(name, h.default)) for name, h in self.rule.hypers.items()}
        self._check_together(defaults)
        defaults |= {name: given[name] for name in TORCHS}
        super(Declared, self).__init__(parameters.checked(self._groups(params, given)), defaults)
        aliasing.check(self.param_groups)
        self._constructed = True
        self._say_what_is_in_vain(given)
        self._made()

    @staticmethod
    def direction(p: Tensor, g: Tensor, s: Any, h: Any) -> Any:
        """Which way, not how far: the update $u$ of $p ← p − lr·u$, from plain torch ops.

        A pair (u, q) says that decoupled decay takes from q in place of p: p ← p − lr·λ·q − lr·u.

        Args:
            p: parameter. g: gradient. s: the declared state; assign to it. h: the declared hyperparameters,
            with ``h.step`` (1 at the first update, where a count is declared) and ``h.first`` (1.0 or 0.0).
        """
        raise NotImplementedError

    # -- construction -----------------------------------------------------------------------------------------------

    def _say_what_is_in_vain(self, given: dict[str, Any]) -> None:
        """Warn where ``master`` or ``rounding`` was given and no parameter has so few bits that it takes effect."""
        dtypes = {p.dtype for group in self.param_groups for p in group["params"]}
        narrow = {torch.bfloat16, torch.float16, torch.complex32}
        for name, served in (("master", {torch.bfloat16}), ("rounding", narrow)):
            if given[name] not in (None, "nearest") and not dtypes & served:
                there = " or ".join(sorted(map(_dtype, dtypes)))
                warnings.warn(
                    f"{name}={given[name]!r} has no effect: it is for parameters in "
                    f"{'bfloat16' if name == 'master' else '16 bits'}, and these are in {there}. "
                    "Leave it out, or convert the model first",
                    stacklevel=3,
                )

    def _check_together(self, group: dict[str, Any]) -> None:
        """Refuse hyperparameters that do not go together. Subclasses override this."""

    def _made(self) -> None:
        """Called at the end of the constructor, for subclasses.

        An ``__init__`` of their own would hide the declared arguments from type checkers.
        """

    def _groups(self, params: Any, given: dict[str, Any]) -> Any:
        """Convert ``params`` to what torch's base class takes; ``given`` holds all arguments of the constructor."""
        if isinstance(params, nn.Module):
            raise bad_type("params", type(params).__name__, "parameters", "Pass model.parameters()")
        return params

    @classmethod
    def check_hypers(cls, group: Mapping[str, Any]) -> None:
        """Refuse a value outside its range, before anything changes."""
        for name, h in cls.hypers.items():
            if name in group:
                h.check(group[name])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; misspelt keys and values outside their range are refused before the group is added."""
        if isinstance(param_group, dict):
            fields.check_keys(type(self).__name__, param_group, self.rule.hypers, self.setup.keys() - {*TORCHS, "seed"})
            self.rule.check_hypers(param_group)
            _refuse_torchs_own(param_group)
            param_group = {
                **parameters.once(param_group),
                **{n: fields.frozen(param_group[n]) for n in self.rule.hypers if n in param_group},
            }
        super().add_param_group(param_group)
        try:
            self._check_group(self.param_groups[-1])
            if self._constructed:
                aliasing.check(self.param_groups)
            if self._in_backward:
                self._in_backward.join(len(self.param_groups) - 1)
        except Exception:
            self.param_groups.pop()
            raise
        self._begin_noise()
        self._begin_shared()
        self._stepper.forget()

    def _check_group(self, group: dict[str, Any]) -> None:
        """Refuse at construction what could not run later; for this, the rule is traced for this group."""
        self._check_together(group)
        if group["independent_weight_decay"] and not (group["decoupled_weight_decay"] and group["lr"]):
            raise bad_argument(
                "independent_weight_decay", True, "False, unless decay is decoupled and lr is not 0 at first"
            )
        for key in specializations(self.rule, group):
            trace(key)
        sharding.check(self.rule, group, self.storage.state_dtype)
        h = SimpleNamespace(**group)
        of_rows = [t for t in (*self.rule.standard, *self.rule.listed) if t.of_rows and t.is_on(h)]
        if of_rows and any(p.is_complex() for p in group["params"]):
            switch = of_rows[0].switch
            what, value = (switch, group[switch]) if switch else ("transforms", of_rows[0].__name__)
            raise bad_argument(what, value, "off for complex tensors, which are seen as rows of pairs")
        if group["independent_weight_decay"]:
            group.setdefault("first_lr", fields.plain(group["lr"]))

    def _begin_noise(self) -> None:
        """Write seed and number of updates into the groups, where checkpoints keep what random bits depend on."""
        if draws(self.rule, self.storage, self.param_groups):
            for group in self.param_groups:
                group.setdefault("seed", self.seed)
                group.setdefault("updates", 0)

    def _begin_shared(self) -> None:
        """Write the shared numbers into the groups; a new group copies those that all groups have in common."""
        first = self.param_groups[0]
        for group in self.param_groups:
            for spec in self._stepper.shared:
                if spec.name not in group:
                    common = spec.name in first and spec.name in trace(specialize(self.rule, group)).common
                    group[spec.name] = first[spec.name] if common else float(spec.fill(SimpleNamespace(**group)))

    @staticmethod
    def profile_hook_step(func: Callable[..., Any]) -> Callable[..., Any]:
        """What torch puts around ``step`` for hooks and its profiler; while there are none, it is left out."""
        hooked = torch.optim.Optimizer.profile_hook_step(func)

        @functools.wraps(func)
        def step(self: Any, *args: Any, **kwargs: Any) -> Any:
            hooks = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks or BEFORE_ALL or AFTER_ALL
            seen = hooks or profiler._is_profiler_enabled or torch._C._autograd._profiler_enabled()
            return (hooked if seen else func)(self, *args, **kwargs)

        return step

    # -- the step ---------------------------------------------------------------------------------------------------

    @uncompiled
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; ``closure`` recomputes the loss, which is returned."""
        loss = None
        if closure is not None:
            check_closure(closure)
            if self._in_backward:
                raise bad_argument("closure", closure, "None: gradients are used inside backward (fuse_into_backward)")
            with torch.enable_grad(), telling_ranks():
                loss = closure()
        if self._in_backward:
            with torch.no_grad():
                self._in_backward.end()
        else:
            scale = _inverse_scale(self)
            if scale != 0:
                enabled = torch.is_grad_enabled()
                try:  # an interrupt may come behind any call
                    torch._C._set_grad_enabled(False)  # as torch.no_grad(), at a fifth of its time
                    self._stepper.run(self.param_groups, self.state, scale)
                finally:
                    torch._C._set_grad_enabled(enabled)
        return loss

    def fuse_into_backward(self) -> None:
        """From now on step each parameter inside ``backward``, as its gradient arrives, and free the gradient.

        ``step`` then marks the end of an update. See :mod:`thalweg.engine.backward` for what cannot go with it.

        Raises:
            ValueError: where an update needs more than one parameter's gradient, or gradients that are averaged over
                processes after they have arrived (DistributedDataParallel, FSDP1).
        """
        if self._in_backward is None:
            self._in_backward = backward.InBackward(self)
            self._step_supports_amp_scaling = True  # GradScaler then tells of itself, and is refused

    @property
    def fused_into_backward(self) -> bool:
        """Whether parameters are stepped inside ``backward``."""
        return self._in_backward is not None

    def plan(self) -> PlanReport:
        """What runs at a step: backend, passes over memory, bytes a parameter, and why nothing faster."""
        return PlanReport(self)

    # -- checkpoints, copies, words ---------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """As in torch, with the name of the rule; functions among the hyperparameters and blocks are left out."""
        listed = {fitting.TRANSFORMS: ", ".join(t.__name__ for t in self.rule.listed)} if self.rule.listed else {}
        saved = super().state_dict()
        groups = [checkpoint.saved(group, self.rule.hypers) for group in saved["param_groups"]]
        return {**saved, "param_groups": groups, fitting.RULE: {**self.kin, **listed}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in torch; each state is brought to this optimizer's format, whatever format it was saved in.

        Where the checkpoint and the groups have ``param_names``, parameters are found by name, else by position.

        Raises:
            TypeError: for what is no dict, such as a path.
            ValueError: for a checkpoint of another rule or of other parameters, a model's, or a state that does not fit
                its parameter; then nothing changes.
        """
        fitting.check_form(state_dict)
        before = {"state": self.state, "param_groups": self.param_groups}
        try:
            with checkpoint.formats_kept(self):
                super().load_state_dict(state_dict)
        except Exception:
            self.__dict__.update(before)
            self._stepper.forget()
            raise

    def __getstate__(self) -> dict[str, Any]:
        names = ("backend", "storage", "seed", "_step_supports_amp_scaling")
        return {
            **super().__getstate__(),
            **{name: self.__dict__[name] for name in names if name in self.__dict__},
            "_listed": self.rule.listed[len(type(self).listed) :],
            "_fused_into_backward": self._in_backward is not None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        fused, kinds = state.pop("_fused_into_backward", False), state.pop("_listed", ())
        if "rule" not in self.__dict__:
            self.rule = listing.surrounded(type(self), kinds)
        self.__dict__.setdefault("_in_backward", None)
        self.__dict__.setdefault("_constructed", True)
        super().__setstate__(state)
        if "_stepper" not in self.__dict__:  # a copy; what a checkpoint is loaded into goes on with its own
            self._stepper = Stepper(self.rule, self.backend, self.storage, self.seed)
        for group in self.param_groups:
            for name, h in self.rule.hypers.items():
                group.setdefault(name, self.defaults.get(name, h.default))
                if h.constant:  # a checkpoint of a sibling (Adam's in AdamW) does not change what this class is
                    group[name] = h.default
            for name in TORCHS:
                group.setdefault(name, self.defaults.get(name, self.setup[name].default))
        self._begin_noise()
        self._begin_shared()
        checkpoint.restore(self)
        if fused:
            self.fuse_into_backward()

    def __repr__(self) -> str:
        return self.plan().short()


def _refuse_torchs_own(given: dict[str, Any]) -> None:
    """Refuse the arguments of torch's optimizers that are not supported here."""
    for name in ("capturable", "differentiable"):
        if given.get(name):
            raise bad_argument(name, given[name], "False: steps are counted on the host and not differentiated")


def _inverse_scale(optimizer: Any) -> float | None:
    """The factor that undoes the loss scale; 0 where ``GradScaler`` found a gradient that is not finite."""
    found, scale = getattr(optimizer, "found_inf", None), getattr(optimizer, "grad_scale", None)
    if found is not None and bool(found):
        return 0
    return None if scale is None else 1 / float(scale)


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _storage(state_dtype: Any, rounding: str, master: str | None) -> Storage:
    """How states and parameters are stored, from the constructor's arguments."""
    name = _dtype(state_dtype) if isinstance(state_dtype, torch.dtype) else state_dtype
    if name not in FORMATS:
        raise bad_argument("state_dtype", state_dtype, "one of " + ", ".join(map(repr, FORMATS)))
    if master and rounding == "stochastic":
        raise bad_argument("rounding", rounding, f'"nearest" where master="{master}": what rounding drops is kept')
    return Storage(name, rounding, "split16" if master == "split" else master)
