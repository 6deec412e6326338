"""How much memory tensors take that live within a step."""

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Live(TorchDispatchMode):
    """Bytes of the tensors that operations of torch have made since it began, as long as they live.

    Attributes:
        most: the most that lived at once.
    """

    def __init__(self):
        super().__init__()
        self.made, self.most = {}, 0
        self.bound = 0  # what lives now is at most this

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {id_of(x) for x in tree_leaves((args, kwargs)) if type(x) is Tensor}
        for x in tree_leaves(out):
            if type(x) is Tensor and id_of(x) not in given:
                reference = StorageWeakRef(x.untyped_storage())
                self.made[reference.cdata] = reference, x.untyped_storage().nbytes()
                self.bound += x.untyped_storage().nbytes()
        if self.bound > self.most:  # only then it must be known how much it is
            self.bound = self.now
            self.most = max(self.most, self.bound)
        return out

    @property
    def now(self):
        """What lives now."""
        self.made = {key: one for key, one in self.made.items() if not one[0].expired()}
        return sum(size for _, size in self.made.values())


def id_of(x):
    return x.untyped_storage()._cdata
