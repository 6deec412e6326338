"""What the weights of the parts of a variational auto-encoder's loss say of its latent variables."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import thalweg
from thalweg.diagnosis.latents import latent

FACTORS = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))


def data(rows=64):
    k = torch.Generator().manual_seed(1)
    while True:
        yield torch.randn(rows, 3, generator=k) @ FACTORS


class VAE(nn.Module):
    def __init__(self, width=20, latents=4):
        super().__init__()
        self.mean, self.log = nn.Linear(width, latents), nn.Linear(width, latents)
        self.decode = nn.Linear(latents, width)

    def forward(self, x):
        mean, log = self.mean(x), self.log(x)
        return self.decode(mean + torch.randn_like(mean) * (0.5 * log).exp()), mean, log


def divergence(mean, log):
    return -0.5 * (1 + log - mean.pow(2) - log.exp())


def of_torch(mean, log):
    normal = torch.distributions.Normal(mean, (0.5 * log).exp())
    return torch.distributions.kl_divergence(normal, torch.distributions.Normal(torch.zeros(4), torch.ones(4)))


#: how the loss is written, and the decoder's variance that follows: B / 2R
WRITTEN = [
    (lambda x, out, kl: F.mse_loss(out, x, reduction="sum") + kl.sum(), 0.5),
    (lambda x, out, kl: (F.mse_loss(out, x, reduction="sum") + kl.sum()) / len(x), 0.5),
    (lambda x, out, kl: F.mse_loss(out, x) + kl.sum(), 64 * 20 / 2),
    (lambda x, out, kl: F.mse_loss(out, x) + 0.01 * kl.sum(1).mean(), 0.01 * 20 / 2),
    (lambda x, out, kl: F.mse_loss(out, x, reduction="none").sum(1).mean(0) / 3 + kl.sum(-1).mean(), 1.5),
    (lambda x, out, kl: 4 * (F.mse_loss(out, x) - -kl.mean()), 20 / 4 / 2),
]


@pytest.mark.parametrize("kl", [divergence, of_torch])
@pytest.mark.parametrize(("written", "variance"), WRITTEN)
def test_the_variance_is_that_of_the_weights(written, variance, kl):
    torch.manual_seed(0)
    model, x = VAE(), next(data())
    out, mean, log = model(x)
    found = latent(written(x, out, kl(mean, log)), {id(p): name for name, p in model.named_parameters()})
    assert found.variance == pytest.approx(variance, rel=1e-5)
    assert found.largest == pytest.approx(float(torch.linalg.eigvalsh(torch.cov(x.T, correction=0))[-1]), rel=1e-4)
    assert found.layer.startswith("mean")


def test_of_binary_targets_the_variance_is_that_of_their_logits():
    model, x = VAE(), (next(data()) > 0).float()
    out, mean, log = model(x)
    loss = F.binary_cross_entropy_with_logits(out, x, reduction="sum") + 3 * divergence(mean, log).sum()
    assert latent(loss, {}).variance == pytest.approx(3)


def test_other_losses_are_no_auto_encoders():
    model, x = VAE(), next(data())
    out, mean, log = model(x)
    floored = divergence(mean, log).mean(0).clamp(min=0.1).sum()  # free bits: the divergence has no weight of its own
    assert latent(F.mse_loss(out, x) + floored, {}) is None
    assert latent(F.mse_loss(out, x), {}) is None
    assert latent(F.mse_loss(model.decode(mean), x) + mean.pow(2).mean(), {}) is None  # nothing is drawn


@pytest.mark.parametrize("times", [0.3, 3.0])
def test_what_is_foretold_comes_true(times):
    """Below the bound latent variables learn, above it they stay noise."""
    torch.manual_seed(0)
    model, batches = VAE(), data()
    x = next(batches)
    largest = float(torch.linalg.eigvalsh(torch.cov(x.T, correction=0))[-1])
    weight = 2 * times * largest

    def loss(model, x):
        out, mean, log = model(x)
        return (F.mse_loss(out, x, reduction="sum") + weight * divergence(mean, log).sum()) / len(x)

    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", thalweg.diagnosis.WatchWarning)
        with thalweg.watch(model, optimizer) as w:
            for _ in range(300):
                optimizer.zero_grad()
                w.loss(loss(model, next(batches))).backward()
                optimizer.step()
    collapsed = float(divergence(*model(x)[1:]).detach().sum(1).mean()) < 0.05
    assert collapsed is (times > 1)
    assert ("posterior_collapses" in {one.cause for one in w.findings}) is collapsed


def test_check_names_it_before_training():
    torch.manual_seed(0)
    model = VAE()

    def loss(model, x):
        out, mean, log = model(x)
        return F.mse_loss(out, x) + divergence(mean, log).sum()

    report = thalweg.check(model, torch.optim.Adam(model.parameters(), 1e-3), loss=loss, batches=data())
    (found,) = [one for one in report.findings if one.cause == "posterior_collapses"]
    assert found.layer == "mean"
    assert found.numbers["variance"] == pytest.approx(640)
