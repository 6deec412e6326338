"""An input for a model that nobody gave one for: as the model itself says, or as its first layers take it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from thalweg.groups.running import mapped

#: how many examples there are, and how long a sequence is
BATCH, LENGTH = 2, 8
#: sides of an image, the likeliest first
SIDES = (64, 224, 299, 32)
#: how many numbers a second of sound is
SECOND = 16_000
#: no more inputs are tried
MOST = 12


def of_hub(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Inputs for a model that tells what it takes as those of ``transformers`` do, the likeliest first.

    These have a ``config``, ``main_input_name`` or ``dummy_inputs``, and names of arguments that are agreed on. A model
    without these gets none.
    """
    config = getattr(model, "config", None)
    if config is None or not (hasattr(model, "main_input_name") or hasattr(model, "dummy_inputs")):
        return
    main = str(getattr(model, "main_input_name", "input_ids"))
    names = {*_arguments(model), main}
    made = {name: x for name in names if (x := _made(name, config, name == main)) is not None}
    dummy = _dummy(model)
    tried: list[set[str]] = []
    for given in ({**dummy, **made}, made, {main: made[main]} if main in made else {}, dummy):
        taken = {name: value for name, value in given.items() if name in names}
        if taken and set(taken) not in tried:
            tried.append(set(taken))
            yield taken


def inferred(model: nn.Module) -> Iterator[tuple[Tensor, ...]]:
    """Inputs for a model that takes one tensor, or some that are alike, by the layers that are registered first, the
    likeliest first."""
    needed = [one for one in _arguments(model).values() if one.default is one.empty]
    if not needed or any(one.kind is inspect.Parameter.KEYWORD_ONLY for one in needed):
        return
    found: dict[Any, Tensor] = {}
    for module in model.modules():
        for x in _for_layer(module):
            found.setdefault((x.dtype, x.shape), x)
        if len(found) >= MOST:
            break
    for x in found.values():
        yield (x,) * len(needed)


def suited(sample: Any, model: nn.Module) -> Any:
    """The sample where the model is, and in its kind of floating-point numbers."""
    p = next((p for p in model.parameters() if p.is_floating_point()), None)
    if p is None:
        return sample
    device, dtype = p.device, p.dtype
    return mapped(sample, lambda x: x.to(device, dtype if x.is_floating_point() else x.dtype))


def _arguments(model: nn.Module) -> Mapping[str, inspect.Parameter]:
    try:
        parameters = inspect.signature(model.forward).parameters
    except (TypeError, ValueError):  # of a forward that is no Python function
        return {}
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {name: one for name, one in parameters.items() if one.kind not in open_ended}


def _dummy(model: Any) -> dict[str, Any]:
    try:
        return dict(model.dummy_inputs)
    except Exception:  # it has none, or whatever a user's property may raise
        return {}


# -- by the names that are agreed on ----------------------------------------------------------------------------------


def _made(name: str, config: Any, main: bool) -> Tensor | None:
    """An argument of ``forward``; None where nothing tells that it is needed, or how large it is."""
    maker = _MAKERS.get(name)
    return None if maker is None else maker(config, main)


def _ids(config: Any, main: bool) -> Tensor | None:
    has_text = main or hasattr(config, "vocab_size") or hasattr(config, "text_config")
    return torch.ones((BATCH, LENGTH), dtype=torch.int64) if has_text else None


def _decoder_ids(config: Any, main: bool) -> Tensor | None:
    return _ids(config, True) if getattr(config, "is_encoder_decoder", False) else None


def _image(config: Any, main: bool) -> Tensor | None:
    of_images = getattr(config, "vision_config", None)
    if not (main or of_images is not None or hasattr(config, "image_size")):
        return None
    side = _first("image_size", SIDES[0], of_images, config)
    height, width = side if isinstance(side, (list, tuple)) else (side, side)
    return torch.zeros(BATCH, _first("num_channels", 3, of_images, config), int(height), int(width))


def _sound(config: Any, main: bool) -> Tensor | None:
    return torch.zeros(BATCH, SECOND) if main else None


def _features(config: Any, main: bool) -> Tensor | None:
    frames = 2 * _first("max_source_positions", 1500, config)
    return torch.zeros(BATCH, _first("num_mel_bins", 80, config), frames) if main else None


def _series(config: Any, main: bool) -> Tensor | None:
    length, channels = _first("context_length", 0, config), _first("num_input_channels", 0, config)
    return torch.zeros(BATCH, length, channels) if main and length and channels else None


_MAKERS: Mapping[str, Callable[[Any, bool], Tensor | None]] = {
    "input_ids": _ids,
    "decoder_input_ids": _decoder_ids,
    "pixel_values": _image,
    "input_values": _sound,
    "input_features": _features,
    "past_values": _series,
}


def _first(name: str, otherwise: int, *configs: Any) -> Any:
    """The first that a configuration says."""
    said = (getattr(config, name, None) for config in configs)
    return next((value for value in said if isinstance(value, (int, list, tuple))), otherwise)


# -- by the layers ----------------------------------------------------------------------------------------------------


def _for_layer(module: nn.Module) -> Iterator[Tensor]:
    """What a layer takes, and a model that begins with it may."""
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        yield torch.zeros((BATCH, LENGTH // 2), dtype=torch.int64)
        yield torch.zeros((BATCH,), dtype=torch.int64)
    elif isinstance(module, nn.modules.conv._ConvNd):
        for side in SIDES:
            yield _numbers(BATCH, module.in_channels, *(side,) * len(module.kernel_size))
    elif isinstance(module, nn.RNNBase):
        yield _numbers(LENGTH, BATCH, module.input_size)
    elif isinstance(module, nn.MultiheadAttention):
        yield _numbers(BATCH, LENGTH, module.embed_dim)
    elif isinstance(module, nn.Linear):
        yield _numbers(BATCH, module.in_features)
        yield _numbers(BATCH, LENGTH, module.in_features)
    else:
        for p in module.parameters(recurse=False):
            if p.ndim == 2:
                yield from (_numbers(BATCH, size) for size in p.shape)


def _numbers(*shape: int) -> Tensor:
    """Numbers that no random state is needed for."""
    return torch.linspace(-1, 1, max(1, math.prod(shape))).reshape(shape)
