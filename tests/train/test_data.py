import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from thalweg._base.errors import ThalwegError
from thalweg.train import rng
from thalweg.train.data import Stream

DATA = TensorDataset(torch.arange(10))


class Augmented(TensorDataset):
    """Draws from two global generators with each example."""

    def __getitem__(self, index):
        return self.tensors[0][index] + torch.rand(()) + random.random()


class Cards:
    """Batches that know their own place; each deal is in another order."""

    def __init__(self):
        self.deal, self.place = 0, 0

    def __iter__(self):
        order = random.Random(self.deal).sample(range(5), 5)
        while self.place < len(order):
            self.place += 1
            yield order[self.place - 1]
        self.deal, self.place = self.deal + 1, 0

    def state_dict(self):
        return {"deal": self.deal, "place": self.place}

    def load_state_dict(self, state):
        self.deal, self.place = state["deal"], state["place"]


def own_generator():
    return DataLoader(DATA, batch_size=3, shuffle=True, generator=torch.Generator().manual_seed(8))


def own_sampler():
    return DataLoader(DATA, batch_size=3, sampler=RandomSampler(DATA, generator=torch.Generator().manual_seed(8)))


def own_batch_sampler():
    sampler = RandomSampler(DATA, generator=torch.Generator().manual_seed(8))
    return DataLoader(DATA, batch_sampler=BatchSampler(sampler, 3, drop_last=False))


class Pairs(torch.utils.data.Sampler):
    """Neighbours together, the pairs in random order."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(8)

    def __iter__(self):
        return iter(torch.randperm(10, generator=self.generator).reshape(5, 2).tolist())


def global_stream():
    while True:
        yield torch.randn(3)


SOURCES = {
    "shuffled": lambda: DataLoader(DATA, batch_size=3, shuffle=True),
    "augmented": lambda: DataLoader(Augmented(torch.arange(10)), batch_size=3, shuffle=True),
    "own generator": own_generator,
    "own sampler": own_sampler,
    "own batch sampler": own_batch_sampler,
    "batch sampler that draws": lambda: DataLoader(DATA, batch_sampler=Pairs()),
    "global stream": global_stream,
    "list": lambda: [1, 2, 3],
    "one batch": lambda: [7],
    "placed": Cards,
}


def read(stream, n):
    """Batches, with a model that draws between them."""
    seen = []
    for _ in range(n):
        batch = next(stream)
        torch.rand(2)
        seen.append([t.tolist() for t in batch] if isinstance(batch, (list, tuple)) else batch)
    return [x.tolist() if isinstance(x, torch.Tensor) else x for x in seen]


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@given(stop=st.integers(0, 13))
def test_goes_on_from_any_place_with_the_same_batches(tmp_path_factory, source, stop):
    path = tmp_path_factory.mktemp("s") / "s.pt"
    torch.manual_seed(3)
    random.seed(3)
    whole = Stream(source())
    read(whole, stop)
    torch.save({"data": whole.state_dict(), "rng": rng.capture()}, path)
    expected = read(whole, 14)
    torch.manual_seed(99)
    random.seed(99)
    again = Stream(source())
    saved = torch.load(path, weights_only=True)
    again.load_state_dict(saved["data"])
    rng.restore(saved["rng"])
    assert read(again, 14) == expected


def test_all_generators_come_back(tmp_path):
    numpy = pytest.importorskip("numpy")

    def draw():
        return torch.rand(1).item(), random.random(), random.gauss(0, 1), numpy.random.standard_normal()

    draw()  # leaves half of a Gaussian pair behind
    torch.save(rng.capture(), tmp_path / "r.pt")
    expected = [draw() for _ in range(3)]
    rng.restore(torch.load(tmp_path / "r.pt", weights_only=True))
    assert [draw() for _ in range(3)] == expected


def test_an_empty_iterable_is_named():
    with pytest.raises(ThalwegError, match="batches is empty: give it at least one batch"):
        next(Stream([]))


def test_an_iterator_that_ends_is_named():
    stream = Stream(iter([1, 2]))
    with pytest.raises(ThalwegError, match="batches ended after 2: it cannot be started again"):
        read(stream, 3)


def test_data_that_have_shrunk_are_named():
    whole = Stream([1, 2, 3])
    read(whole, 3)
    with pytest.raises(ThalwegError, match="fewer than the 3 batches"):
        Stream([1, 2]).load_state_dict(whole.state_dict())
