"""Within the model: attention logits that grow beyond what a softmax bears, routers that use few of their experts."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

from thalweg.diagnosis import limits
from thalweg.diagnosis.finding import Finding, finding
from thalweg.diagnosis.inflight.record import History, Sample


def exploding_logits(history: History) -> Iterator[Finding]:
    """Attention whose largest logits have been beyond the bound in several looks in a row."""
    layers = history.inside[-1].logits if history.inside else {}
    rows = {layer: history.in_a_row(functools.partial(history.is_beyond, layer=layer)) for layer in layers}
    beyond = [layer for layer, row in rows.items() if len(row) >= limits.INSIDE_FOR]
    if beyond:
        layer, first, last = max(beyond, key=layers.__getitem__), history.inside[0], history.inside[-1]
        yield finding(
            "attention_logits_explode",
            f"The largest attention logit of {layer} is {layers[layer]:.4g} at step {last.step}, and was "
            f"{first.logits.get(layer, math.nan):.4g} at step {first.step}; at most {history.bearable(layer):g} is "
            f"expected in {str(history.dtypes[layer]).removeprefix('torch.')}.",
            beyond,
            step=min(rows[one][0].step for one in beyond),
            numbers={"largest": layers[layer]},
        )


def collapsed_routers(history: History) -> Iterator[Finding]:
    """Routers that have given all tokens to the same few experts, or nothing to many, for a while."""
    names = history.inside[-1].routers if history.inside else {}
    rows = {name: history.in_a_row(functools.partial(_is_collapsed, name=name)) for name in names}
    collapsed = [
        name
        for name, row in rows.items()
        if len(row) >= limits.INSIDE_FOR and row[-1].step - row[0].step >= limits.ROUTED_FOR
    ]
    if collapsed:
        name, row = collapsed[0], rows[collapsed[0]]
        load = names[name]
        yield finding(
            "router_collapsed",
            f"The router {name} chooses {load.chosen} of {len(load.counts)} experts for a token, and uses "
            f"{load.used:.2g} in effect at step {row[-1].step}; one gets {max(load.shares):.0%} of the choices, and "
            f"{load.idle} get none.",
            collapsed,
            step=row[0].step,
            numbers={"used": load.used, "idle": load.idle},
        )


def _is_collapsed(sample: Sample, name: str) -> bool:
    return name in sample.routers and sample.routers[name].is_collapsed


DETECTORS = (exploding_logits, collapsed_routers)
