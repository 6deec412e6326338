"""What optimizers for matrices share: a model's hidden matrices take their rule, everything else AdamW's."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, ClassVar

from torch import Tensor, nn

from thalweg._base.errors import bad_argument
from thalweg.optim import cutting
from thalweg.rule import Optimizer, count, hyper, state
from thalweg.runtime.sharding import flattened

#: which matrices a model's weights are taken to hold, where nothing else is asked
DEFAULT = "auto"


#: arguments by which a model's parameters are sorted, and their defaults
OF_A_MODEL: dict[str, Any] = {"sample": None, "head": None, "hidden": ()}


def check_unused(given: dict[str, Any]) -> None:
    """Refuse what helps to sort a model's parameters where there is no model."""
    for name, default in OF_A_MODEL.items():
        value = given[name]
        if value is not default and value is not None and not (isinstance(value, (list, tuple)) and not value):
            raise bad_argument(name, value, f"{default} where parameters are given", "Pass the model itself")


class Routed(Optimizer):
    """Base of rules for matrices: ``Rule(model)`` sorts a model's parameters, groups say which rule is theirs.

    A group with ``use_muon=True`` takes the matrix rule, whatever its name; one with ``use_muon=False`` is AdamW's.
    """

    #: what the rule does with matrices, in the words of an error
    of_matrices: ClassVar[str] = "orthogonalises"
    #: whether it steps each of the matrices that a weight holds by itself: its leaves read ``h.blocks``
    takes_blocks: ClassVar[bool] = False

    lr: float = hyper(default=1e-3, within="[0, ∞)", doc="step size")
    lr_ratio: float = hyper(
        default=1.0, within="[0, ∞)", doc="learning rate of AdamW's part divided by lr", kw_only=True, setup=True
    )
    adamw_eps: float = hyper(default=1e-8, within="[0, ∞)", doc="ε of AdamW's part", kw_only=True, setup=True)
    adamw_weight_decay: float = hyper(
        default=0.0, within="[0, ∞)", doc="λ of AdamW's part, if a whole model was passed", kw_only=True, setup=True
    )
    sample: Any = hyper(
        default=None, doc="an input; one run of model(sample) shows how each layer is used", kw_only=True, setup=True
    )
    head: Any = hyper(default=None, doc="a model's output layers, if the guess is wrong", kw_only=True, setup=True)
    hidden: Any = hyper(
        default=(), doc="further module types whose weights are hidden matrices", kw_only=True, setup=True
    )
    decoupled_weight_decay: bool = hyper(default=True, within=(True,), init=False)
    amsgrad: bool = hyper(default=False, within=(False,), init=False)
    blocks: Any = hyper(
        default=None,
        doc="says which matrices a weight combines, for instance q, k and v. If a model is passed: None or 'auto' "
        "(divided as the model uses it), 'heads' (divided by attention head, too), 'none' (one matrix, undivided), or "
        "a list of groups.Rule",
        kw_only=True,
        each=True,
    )
    use_muon: bool = hyper(default=True, init=False)
    flatten: bool = hyper(default=False, init=False, layout=True)

    steps: Tensor = count(when=lambda h: not h.use_muon)
    exp_avg: Tensor = state(doc="m, AdamW's mean of gradients", when=lambda h: not h.use_muon)
    exp_avg_sq: Tensor = state(doc="v, AdamW's mean of squared gradients", when=lambda h: not h.use_muon)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """A class with a rule of its own takes a weight for one matrix, unless it says otherwise."""
        if "direction" in cls.__dict__ and "takes_blocks" not in cls.__dict__:
            cls.takes_blocks = False
        super().__init_subclass__(**kwargs)

    def _made(self) -> None:
        self.defaults["blocks"] = None  # what the constructor was told of is in its groups

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch; a group of AdamW's part has what is its own, unless it brings it."""
        if isinstance(param_group, dict) and not param_group.get("use_muon", True):
            param_group = {**self._of_adamw, **param_group}
        super().add_param_group(param_group)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_of_adamw": self._of_adamw, "_notes": self._notes}

    def _adamw(self, given: dict[str, Any]) -> dict[str, Any]:
        """What groups of AdamW's part have of their own, from the constructor's arguments."""
        return {"eps": given["adamw_eps"], "lr": given["lr"] * given["lr_ratio"]}

    def _groups(self, params: Any, given: dict[str, Any]) -> Any:
        self._of_adamw = self._adamw(given)
        self._notes: tuple[str, ...] = ()
        if not isinstance(params, nn.Module):
            cutting.check_alone(given["blocks"], type(self).__name__)
            check_unused(given)
            return params
        self._check_whole(params.parameters())
        from thalweg.groups.by_role import routes  # which takes longer to import than all optimizers together

        seen = {name: given[name] for name in OF_A_MODEL}
        how = given["blocks"] or (DEFAULT if self.takes_blocks else "none")
        hidden, rest, self._notes = routes(params, **seen, blocks=how, asked=bool(given["blocks"]))
        if not hidden:
            warnings.warn(
                f"{type(self).__name__} finds no hidden matrix in {type(params).__name__}, and AdamW steps all of it. "
                "Hidden are the matrices of linear, convolutional, recurrent and attention layers that do not make the "
                "output: name the output layers if others do (head=[…], or head=() for none), or further layers: "
                "hidden=(Type,)",
                stacklevel=3,
            )
        aux = {"use_muon": False, "weight_decay": given["adamw_weight_decay"]}
        return [*({"flatten": True, **group} for group in hidden), *({**aux, **group} for group in rest)]

    def _check_whole(self, params: Iterable[Tensor]) -> None:
        if any(map(flattened, params)):
            raise bad_argument(
                "params", "flat parameters of FSDP1", f"whole matrices, since {type(self).__name__} "
                f"{self.of_matrices} them", "Use torch.distributed.fsdp.fully_shard (FSDP2), or AdamW",
            )  # fmt: skip

    def __repr__(self) -> str:
        return "\n".join((super().__repr__(), *(f"  {note}" for note in self._notes)))

    def _check_group(self, group: dict[str, Any]) -> None:
        names = group.get("param_names") or [f"parameter {i} of its group" for i in range(len(group["params"]))]
        name_of_rule = type(self).__name__
        group["blocks"] = cutting.resolved(group, names)
        if group["blocks"] is not None and not self.takes_blocks:
            raise bad_argument("blocks", group["blocks"], f"None, since {name_of_rule} takes a weight for one matrix")
        if group["use_muon"]:
            self._check_whole(group["params"])
        for name, p, blocks in zip(names, group["params"], cutting.of_group(group), strict=True):
            stack = p.ndim == 3 and not group["flatten"] and not (blocks and blocks.stacked)
            if group["use_muon"] and (p.ndim < 2 or stack or p.is_complex()):
                raise bad_argument(
                    "params",
                    f"{name}, {p.dtype}, shape {tuple(p.shape)}",
                    "a stack of matrices or Conv1d's kernel? (in its group, flatten=True means a kernel, and "
                    "blocks=thalweg.groups.Blocks(layout='n out in') matrices that are kept as (out, in))"
                    if stack
                    else f"real matrices, since {name_of_rule} {self.of_matrices} them",
                    f"Pass the model itself ({name_of_rule}(model) sorts its parameters), or put the parameters that "
                    "are not hidden matrices into a group of their own: {'params': [...], 'use_muon': False}",
                )
        super()._check_group(group)
