"""No weight decay where it does harm."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

from torch import nn

from thalweg.groups.places import is_norm
from thalweg.groups.rules import Effect, Rule
from thalweg.groups.view import Param, View

_BIAS = re.compile(r"(^|_)bias(_|$)")


class NoDecay(Rule):
    r"""No weight decay on what is no matrix: norms, biases, scalars and other vectors, embeddings.

    $$p \leftarrow p - \eta\,(u + \lambda_p\, p), \qquad
    \lambda_p = \begin{cases} \lambda & p \text{ is a matrix or a kernel} \\ 0 & \text{else} \end{cases}$$

    Decay bounds the norm of a matrix, and so what it does to its input. A gain has its best value near 1, a bias and a
    position anywhere; a row of an embedding is decayed at every step, but learns only when its token comes.

    - *norms*: LayerNorm, RMSNorm, GroupNorm, BatchNorm, InstanceNorm of torch, and any class so named
      (``LlamaRMSNorm``, ``T5LayerNorm``, ``LayerNorm2d``), gain and bias;
    - *biases*: what is named so (``bias``, ``bias_ih_l0``, ``in_proj_bias``), of any shape;
    - *vectors*: what has at most one dimension longer than 1: scales of layers, class tokens, temperatures, scalars;
      the lengths of weights in weight normalisation; rates of state spaces (``A_log``); and, where embeddings are
      exempt, too, so that uses are looked at, gains of more dimensions;
    - *embeddings*: ``nn.Embedding``, tied with the output or not, and what is used as one: learned positions, tables
      that are looked up. For a hand-made parameter, the use is seen in a trace, or in a run on ``sample``.

    What the model itself exempts gets none either: names from ``no_weight_decay()`` of it or of a module in it, as in
    timm, and parameters with ``_no_weight_decay = True``, as in Mamba.

    Args:
        norms, biases, vectors, embeddings: whether these are exempt. With ``embeddings=False`` nobody asks how a
            parameter is used, so no hand-made one can be refused because that cannot be seen.

    Sources: Goyal et al. 2017, "Accurate, large minibatch SGD" (norms), https://arxiv.org/abs/1706.02677; He et al.
    2019, "Bag of tricks for image classification with convolutional neural networks" (biases),
    https://arxiv.org/abs/1812.01187
    """

    optional = True

    def __init__(
        self, *, norms: bool = True, biases: bool = True, vectors: bool = True, embeddings: bool = True
    ) -> None:
        super().__init__("*", weight_decay=0.0)
        self.exempt = {"norm": norms, "bias": biases, "vector": vectors, "embedding": embeddings}

    def bind(self, view: View) -> Callable[[Param], Effect]:
        """This rule for one model."""
        return partial(self._effect, declared=_declared(view.model))

    def __repr__(self) -> str:
        return f"NoDecay({', '.join(f'{kind}s=False' for kind, exempt in self.exempt.items() if not exempt)})"

    def _effect(self, param: Param, declared: set[str]) -> Effect:
        if declared.intersection(param.names) or getattr(param.parameter, "_no_weight_decay", False):
            return self.settings, "no decay: the model says so"
        reason = next((kind for kind in self._kinds(param) if self.exempt[kind]), None)
        return None if reason is None else (self.settings, f"no decay: {reason}")

    def _kinds(self, param: Param) -> Iterator[str]:
        """All that a parameter is, the cheapest to see first: LayerNorm's bias is of a norm, and a bias."""
        if norm := any(is_norm(place.module) for place in param.places):
            yield "norm"
        if bias := any(_BIAS.search(place.name) for place in param.places):
            yield "bias"
        if norm or bias:
            return
        if param.at_sight[0] == "vector":
            yield "vector"
        elif self.exempt["embedding"]:
            if param.embeds:
                yield "embedding"
            elif param.scales:
                yield "vector"


def _declared(model: nn.Module) -> set[str]:
    """Names that a model, or a module in it, exempts by ``no_weight_decay()``."""
    return {
        f"{module_name}.{name}".removeprefix(".")
        for module_name, module in model.named_modules()
        if callable(declares := getattr(module, "no_weight_decay", None))
        for name in declares()
    }
