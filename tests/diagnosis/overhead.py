"""What a watch costs: processor seconds of a step watched and unwatched, in turn, and the memory that it keeps.

``python -m tests.diagnosis.overhead`` prints both for a GPT of 0.12 M parameters and one of 4.9 M.
"""

import itertools
import statistics
import time
import warnings

import torch

import thalweg
from thalweg.testing.faults import tasks

#: name, blocks, width, batch, steps of a round
MODELS = [("0.12 M", 2, 64, 32, 40), ("4.9 M", 6, 256, 16, 10)]
ROUNDS = 6


def run(model, optimizer, data, steps, watch):
    """Seconds of a step; the first twelve of a watched run are looked at one by one, so they come before."""
    times = []
    for batch in itertools.islice(data, steps):
        began = time.process_time()
        loss = tasks.predict(model, batch)
        if watch is not None:
            watch.loss(loss)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.process_time() - began)
    return sum(times) / len(times)


def kept(sampler):
    """Bytes that a watch keeps of a model between updates."""
    tensors = (x for _, elements in sampler.devices for x in (elements.lengths, elements.counts))
    return sum(x.numel() * x.element_size() for x in tensors)


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for name, blocks, width, size, steps in MODELS:
        model = tasks.seeded(lambda blocks=blocks, width=width: tasks.Transformer(blocks=blocks, width=width))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        data = tasks.text(size)()
        run(model, optimizer, data, steps, None)
        ratios = []
        for _ in range(ROUNDS):
            bare = run(model, optimizer, data, steps, None)
            with thalweg.watch(model, optimizer) as w:
                run(model, optimizer, data, 20, w)
                ratios.append(run(model, optimizer, data, steps, w) / bare - 1)
                share = kept(w.sampler) / sum(p.numel() * p.element_size() for p in model.parameters())
        print(f"{name}: {statistics.median(ratios):+.2%} of a step ({min(ratios):+.2%} to {max(ratios):+.2%}), "
              f"{share:.2%} of the model's memory")  # fmt: skip


if __name__ == "__main__":
    main()
