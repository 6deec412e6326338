"""A task of your own: everything of a training that is not the optimizer.

It runs as it is: `thalweg race THIS_FILE`. Change it to your model and your data. Whatever may vary between runs is a
function of `seed`, so that every optimizer meets the same weights and the same batches.
"""

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.nn import functional as F

from thalweg.lab.tasks import Task


def load():
    """569 patients with 30 measurements each, and whether the tumour was benign."""
    x, y = load_breast_cancer(return_X_y=True)
    x = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)
    return x, torch.tensor(y, dtype=torch.float32)


X, Y = load()


class Tumours(Task):
    """A small perceptron that tells tumours apart."""

    name = "tumours"  # what reports call it
    steps = 200  # the horizon: how many optimizer steps a whole run takes
    batch_size = 32
    unit = "nats"  # of the loss

    def model(self, seed):
        """Return the freshly initialised model; the same seed must give the same weights."""
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def batches(self, seed):
        """Yield batches without end; the same seed must give the same batches in the same order."""
        generator = torch.Generator().manual_seed(seed)
        while True:
            chosen = torch.randint(0, 400, (self.batch_size,), generator=generator)  # the first 400 to train on
            yield X[chosen], Y[chosen]

    def loss(self, model, batch):
        """Return the training loss of one batch, a tensor without dimensions."""
        x, y = batch
        return F.binary_cross_entropy_with_logits(model(x)[:, 0], y)

    def evaluate(self, model):
        """Return the held-out loss, a float: the same examples always, nothing random."""
        model.eval()
        with torch.no_grad():
            loss = self.loss(model, (X[400:], Y[400:])).item()
        model.train()
        return loss

    def sample(self):
        """An input that the model takes (optional): with it, the layer that makes the output is seen, not guessed."""
        return X[:2]
