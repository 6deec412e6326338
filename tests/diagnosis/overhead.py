"""What a watch costs: processor seconds of steps watched and unwatched, in turn, and the memory that it keeps.

``python -m tests.diagnosis.overhead`` prints both for a GPT of 0.12 M parameters and one of 4.9 M. Two twins train in
turn, block by block; a block has as many steps as there are between two looks, so that each holds one look.
"""

import itertools
import statistics
import time
import warnings

import torch

import thalweg
from thalweg.testing.faults import tasks

#: name, blocks, width, batch, pairs of blocks
MODELS = [("0.12 M", 2, 64, 32, 60), ("4.9 M", 6, 256, 16, 9)]
#: steps between two looks, and those before, in which a watch looks more often
EVERY, BEFORE = 20, 100


class Twin:
    """A model that trains on text, which a watch may look at."""

    def __init__(self, blocks, width, size, watched):
        self.model = tasks.seeded(lambda: tasks.Transformer(blocks=blocks, width=width))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.data = iter(tasks.text(size)())
        self.watch = thalweg.watch(self.model, self.optimizer) if watched else None

    def seconds(self, steps):
        """Processor seconds of so many steps."""
        began = time.process_time()
        for batch in itertools.islice(self.data, steps):
            loss = tasks.predict(self.model, batch)
            if self.watch is not None:
                self.watch.loss(loss)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        return time.process_time() - began


def kept(sampler):
    """Bytes that a watch keeps of a model between updates."""
    tensors = (x for _, elements in sampler.devices for x in (elements.lengths, elements.counts))
    return sum(x.numel() * x.element_size() for x in tensors)


def pair(bare, watched, first):
    """By how much longer a watched block takes than an unwatched one."""
    times = {twin: twin.seconds(EVERY) for twin in ((bare, watched) if first else (watched, bare))}
    return times[watched] / times[bare] - 1


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name, blocks, width, size, pairs in MODELS:
        bare, watched = (Twin(blocks, width, size, which) for which in (False, True))
        for twin in (bare, watched):
            twin.seconds(BEFORE)
        ratios = sorted(pair(bare, watched, bool(i % 2)) for i in range(pairs))
        share = kept(watched.watch.sampler) / sum(p.numel() * p.element_size() for p in watched.model.parameters())
        low, high = ratios[pairs // 4], ratios[-1 - pairs // 4]
        print(
            f"{name}: {statistics.median(ratios):+.2%} of a step (half of {pairs} pairs between {low:+.2%} and "
            f"{high:+.2%}), {share:.2%} of the model's memory"
        )


if __name__ == "__main__":
    main()
