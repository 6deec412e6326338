"""What the module that owns a parameter tells about it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

Kind = Literal["hidden", "embedding", "head", "vector", "other"]
#: a kind and why; ``unknown`` is for the parameter's use to tell
Verdict = tuple[Kind | Literal["unknown"], str]

EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
NORMS = (
    *(nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.LocalResponseNorm),
    *(nn.modules.batchnorm._NormBase,),  # BatchNorm and InstanceNorm of every dimension
)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)
MATRICES = (nn.Linear, nn.modules.conv._ConvNd, *RECURRENT, nn.MultiheadAttention)
#: modules that add to what passes through them, or whose output comes back to them: their matrices are no heads
INNER = (*RECURRENT, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)

#: of a state space, rates of decay and a skip: as gains they have a scale of their own, whatever their shape
_RATES, _BESIDE_RATES = ("A_log", "A_logs"), ("D", "Ds", "dt_bias")
_PARAMETRIZED = "parametrizations."
_NORM = re.compile("(?<!eight)(?<!pectral)[Nn]orm(?![a-z])")
_HOLDS_A_NORM = re.compile("Linear|Conv|Embed|Att|MLP|Mlp|RNN|LSTM|GRU|Cell|Block|Head|Layer(?!Norm)")


@dataclass(frozen=True)
class Place:
    """Where a parameter is registered."""

    name: str
    module: nn.Module
    module_name: str
    parametrizes: bool = False


def places_of(model: nn.Module) -> dict[int, list[Place]]:
    """Where each parameter (by ``id``) is registered; in several places if it is tied.

    What ``torch.nn.utils.parametrize`` has moved counts as registered where it came from.
    """
    places: dict[int, list[Place]] = {}
    modules = dict(model.named_modules())
    for module_name, module in model.named_modules():
        for name, p in module.named_parameters(recurse=False):
            moved = isinstance(module, ParametrizationList)
            owner = _parametrized(module_name) if moved else module_name
            places.setdefault(id(p), []).append(Place(name, modules[owner], owner, moved))
    return places


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a normalisation: of torch, or of a class so named, such as ``LlamaRMSNorm``.

    ``WeightNorm`` and ``SpectralNorm`` are not: what they hold are matrices. Nor is what only begins with one, such as
    ``LayerNormLinear``.
    """
    if isinstance(module, NORMS):
        return True
    named = any(_NORM.search(cls.__name__) and not _HOLDS_A_NORM.search(cls.__name__) for cls in type(module).__mro__)
    return named and not isinstance(module, (*MATRICES, *EMBEDDINGS))


def by_module(p: nn.Parameter, places: list[Place], matrices: tuple[type, ...]) -> Verdict:
    """What ``p`` is by its dimensions and by the modules that own it; ``matrices``: types whose weights are hidden."""
    first = places[0]
    why = f"{first.name} of {type(first.module).__name__}"
    if p.ndim < 2:
        return "vector", "a scalar" if p.ndim == 0 else "one dimension"
    if p.numel() == 0:
        return "vector", f"{why}, without elements"
    if any(is_norm(place.module) and not isinstance(place.module, matrices) for place in places):
        return "vector", why
    if any(isinstance(place.module, EMBEDDINGS) for place in places):
        return "embedding", why + _tied_with(places)
    if any(_is_attention_bias(p, place.module) for place in places):
        return "vector", why
    if any(_is_gain(p, place) for place in places):
        return "vector", f"{why}, lengths of a normalised weight"
    if any(_is_rate(place) for place in places):
        return "vector", f"{why}, rates of a state space"
    if _is_long(p) and any(_is_beside(place) for place in places):
        return "vector", f"{why}, one dimension longer than 1"
    if any(_is_depthwise(p, place.module) for place in places):
        return "other", f"{why}, a kernel for each channel by itself"
    if p.is_complex():
        return "other", f"{why}, complex numbers"
    if any(_is_matrix(p, place, matrices) for place in places):
        return "hidden", why
    if any(isinstance(place.module, nn.Bilinear) for place in places):
        return "other", f"{why}, a stack of matrices"
    return ("vector", f"{why}, one dimension longer than 1") if _is_long(p) else ("unknown", why)


def is_transposed(p: nn.Parameter, places: list[Place]) -> bool | None:
    """Whether the module of a parameter keeps it as (in, out, …); None where no module tells."""
    modules = [place.module for place in places]
    if p.ndim < 2 or any(isinstance(module, EMBEDDINGS) for module in modules):
        return False
    if any(_is_gain(p, place) for place in places):
        return False
    if any(isinstance(module, nn.modules.conv._ConvTransposeNd) or _is_conv1d(module) for module in modules):
        return True
    return False if any(isinstance(module, (*MATRICES, nn.Bilinear)) for module in modules) else None


def _tied_with(places: list[Place]) -> str:
    """``", tied with lm_head.weight"`` for the further places of a parameter; empty where there is none."""
    others = [f"{place.module_name}.{place.name}".removeprefix(".") for place in places[1:]]
    return f", tied with {', '.join(others)}" if others else ""


def _parametrized(module_name: str) -> str:
    """The module whose tensor ``module_name`` parametrizes: ``a.b`` of ``a.b.parametrizations.weight``."""
    return module_name[: module_name.rindex(_PARAMETRIZED)].removesuffix(".")


def _is_long(p: nn.Parameter) -> bool:
    """A vector in all but its shape, such as a class token (1, 1, d) or a scale (channels, 1, 1)."""
    return sum(size > 1 for size in p.shape) <= 1


def _is_attention_bias(p: nn.Parameter, module: nn.Module) -> bool:
    return isinstance(module, nn.MultiheadAttention) and (p is module.bias_k or p is module.bias_v)


def _is_matrix(p: nn.Parameter, place: Place, matrices: tuple[type, ...]) -> bool:
    made_from = place.parametrizes and not place.name.startswith("original")  # what a parametrization adds
    return (isinstance(place.module, matrices) or _is_conv1d(place.module)) and not (made_from and _is_long(p))


def _is_beside(place: Place) -> bool:
    """Whether a layer of torch's kind holds it beside what it multiplies with, as a gain; told by its name."""
    return isinstance(place.module, MATRICES) and not place.parametrizes and "weight" not in place.name


def _is_gain(p: nn.Parameter, place: Place) -> bool:
    """Whether it is what weight normalisation, old or new, multiplies directions by: ``weight_g``, ``original0``."""
    if place.parametrizes:
        return place.name == "original0" and _is_long(p)
    return place.name.endswith("_g") and f"{place.name.removesuffix('_g')}_v" in _own(place.module)


def _is_rate(place: Place) -> bool:
    own = _own(place.module)
    return place.name in _RATES or (place.name in _BESIDE_RATES and any(name in own for name in _RATES))


def _own(module: nn.Module) -> dict[str, nn.Parameter]:
    return dict(module.named_parameters(recurse=False, remove_duplicate=False))


def _is_depthwise(p: nn.Parameter, module: nn.Module) -> bool:
    """Whether it is the kernel of a convolution that filters each channel by itself: C filters, not a matrix."""
    return isinstance(module, nn.modules.conv._ConvNd) and p.ndim > 2 and module.groups > 1 and p.shape[1] == 1


def _is_conv1d(module: nn.Module) -> bool:
    """Whether it is the linear layer that GPT-2 of ``transformers`` has: (in, out), for all that it is called."""
    weight = _own(module).get("weight")
    named = any(cls.__name__ == "Conv1D" for cls in type(module).__mro__)
    return named and weight is not None and weight.ndim == 2 and getattr(module, "nf", None) == weight.shape[1]
