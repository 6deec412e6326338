"""The state of an optimizer with a wrapper's tensors in it, as `torch.optim.Optimizer.state` is read and written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

from torch import Tensor


class BesideOne(dict[str, Any]):
    """What both keep of one parameter; what is written goes where it belongs.

    Args:
        inner: the optimizer's. own: the wrapper's. names: of the wrapper's, by the keys under which they stand here.
    """

    def __init__(self, inner: MutableMapping[str, Any], own: MutableMapping[str, Tensor], names: Mapping[str, str]):
        super().__init__({**inner, **{key: own[name] for key, name in names.items() if name in own}})
        self._inner, self._own, self._names = inner, own, names

    def _end(self, key: str) -> tuple[MutableMapping[str, Any], str]:
        return (self._own, self._names[key]) if key in self._names else (self._inner, key)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        end, name = self._end(key)
        end[name] = value

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        end, name = self._end(key)
        del end[name]

    clear = MutableMapping.clear
    pop = MutableMapping.pop
    popitem = MutableMapping.popitem
    setdefault = MutableMapping.setdefault
    update = MutableMapping.update


class Beside(MutableMapping[Tensor, Any]):
    """What both keep of each parameter.

    Args:
        inner: the optimizer's state. own: the wrapper's.
        names: of the wrapper's tensors, by the keys under which they stand here.
    """

    def __init__(
        self,
        inner: MutableMapping[Tensor, Any],
        own: MutableMapping[Tensor, dict[str, Tensor]],
        names: Mapping[str, str],
    ) -> None:
        self._inner, self._own, self._names = inner, own, names

    def __getitem__(self, p: Tensor) -> Any:
        """Begins a state where there is none, as torch's does."""
        return BesideOne(self._inner[p], self._own[p], self._names) if p in self._own else self._inner[p]

    def __setitem__(self, p: Tensor, state: Any) -> None:
        own = {self._names[key]: x for key, x in state.items() if key in self._names}
        rest = {key: x for key, x in state.items() if key not in self._names}
        if rest or p in self._inner:
            self._inner[p] = rest
        if own:
            self._own[p] = own
        else:
            self._own.pop(p, None)

    def __delitem__(self, p: Tensor) -> None:
        if p not in self:
            raise KeyError(p)
        self._inner.pop(p, None)
        self._own.pop(p, None)

    def __contains__(self, p: object) -> bool:
        return p in self._inner or p in self._own

    def __iter__(self) -> Iterator[Tensor]:
        yield from self._inner
        yield from [p for p in self._own if p not in self._inner]

    def __len__(self) -> int:
        return len(self._inner.keys() | self._own.keys())
