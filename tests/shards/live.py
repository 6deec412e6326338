"""How much memory tensors take that live within a step."""

import contextlib
from unittest import mock

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from thalweg.runtime.wholes import Wholes


class Live(TorchDispatchMode):
    """Bytes of the tensors that operations of torch have made since it began, as long as they live, and of wholes.

    Attributes:
        most: the most that lived at once.
    """

    def __init__(self):
        super().__init__()
        self.made, self.most = {}, 0
        self.bound = 0  # what lives now is at most this
        self.begun = []  # wholes within a step; what is freed before its end counts no more

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {id_of(x) for x in tree_leaves((args, kwargs)) if type(x) is Tensor}
        for x in tree_leaves(out):
            if type(x) is Tensor and id_of(x) not in given:
                reference = StorageWeakRef(x.untyped_storage())
                self.made[reference.cdata] = reference
                self.bound += x.untyped_storage().nbytes()
        self.look()
        return out

    def look(self):
        """Find whether it is more than ever."""
        if self.bound > self.most:  # only then it must be known how much it is
            self.bound = self.now
            self.most = max(self.most, self.bound)

    @contextlib.contextmanager
    def with_wholes(self):
        """Count the memory that wholes get when a step begins, which no operation makes."""
        begin = Wholes.begin

        def began(wholes):
            begin(wholes)
            self.begun.append(wholes)
            self.bound += sum(wholes.storages.values())
            self.look()

        with mock.patch.object(Wholes, "begin", began), self:
            yield self

    @property
    def now(self):
        """What lives now."""
        self.made = {key: one for key, one in self.made.items() if not one.expired()}
        return sum(map(size_of, self.made.values())) + sum(s.nbytes() for w in self.begun for s in w.storages)


def size_of(reference):
    """Bytes of a storage now, which may have been resized; 0 of one that has ended."""
    storage = torch.UntypedStorage._new_with_weak_ptr(reference.cdata)
    return storage.nbytes() if storage is not None else 0


def id_of(x):
    return x.untyped_storage()._cdata
