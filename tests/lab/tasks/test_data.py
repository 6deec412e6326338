"""What is particular about each task's data."""

import hashlib
import sysconfig
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from thalweg.lab.tasks import get_task
from thalweg.lab.tasks._model import evaluating
from thalweg.lab.tasks.corpus import standard_library
from thalweg.lab.tasks.mnist1d import curves
from thalweg.lab.tasks.ravine import NOISE, truth

RAVINES = ("ravine", "ravine-aligned")


@pytest.mark.parametrize("name", RAVINES)
def test_a_ravines_excess_risk_is_what_fresh_examples_estimate(name):
    task = get_task(name)
    model = task.model(0)
    with torch.no_grad():
        model.weight.normal_(std=0.1)
    W, root = truth(), task.root()
    x = torch.randn(400_000, len(W)) @ root.T
    y = x @ W.T + NOISE * torch.randn(len(x), len(W))
    with torch.no_grad():
        risks = 0.5 * (model(x) - y).square().sum(1)
        least = 0.5 * (x @ W.T - y).square().sum(1)
    excess = risks - least
    error = excess.std() / len(excess) ** 0.5
    assert abs(excess.mean() - task.evaluate(model)) < 4 * error
    assert 4 * error < 0.02 * task.evaluate(model)  # the estimate could have told a difference of 2 %


@pytest.mark.parametrize("name", RAVINES)
def test_a_ravines_truth_has_no_excess_risk(name):
    task = get_task(name)
    model = task.model(0)
    with torch.no_grad():
        model.weight.copy_(truth())
    assert task.evaluate(model) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("name", RAVINES)
def test_a_ravines_features_have_the_declared_spectrum(name):
    root = get_task(name).root()
    spectrum = torch.linalg.eigvalsh((root @ root.T).double()).flip(0)
    expected = torch.arange(1, len(root) + 1, dtype=torch.double) ** -2.5
    torch.testing.assert_close(spectrum, expected, rtol=1e-2, atol=1e-7)


def test_curves_are_standardised_balanced_and_tell_their_class():
    split = curves()
    x = torch.cat([split.x, split.held_x])
    assert x.mean() == pytest.approx(0, abs=1e-5)
    assert x.std() == pytest.approx(1, abs=1e-5)
    assert split.y.bincount().tolist() == [400] * 10
    assert split.held_y.bincount().tolist() == [100] * 10
    # moved curves: the circular spectrum knows nothing of where; the nearest class mean beats guessing
    spectra = [torch.fft.rfft(part).abs() for part in (split.x, split.held_x)]
    means = torch.stack([spectra[0][split.y == digit].mean(0) for digit in range(10)])
    nearest = torch.cdist(spectra[1], means).argmin(1)
    assert (nearest == split.held_y).double().mean() > 0.2


def test_curves_are_the_same_whenever_they_are_made():
    torch.rand(5)
    assert curves.__wrapped__().sha256 == curves().sha256


def test_no_window_reaches_over_the_end_of_its_side():
    corpus, task = standard_library(), get_task("bytes-gpt")
    train, held = bytes(corpus.train.tolist()), bytes(corpus.held.tolist())
    windows = [bytes(row.tolist()) for batch, _ in zip(task.batches(0), range(20), strict=False) for row in batch]
    assert all(len(window) == 65 and window in train for window in windows)
    seen = []
    loss = task.loss
    task.loss = lambda model, batch: seen.append(batch) or loss(model, batch)
    task.evaluate(task.model(0))
    assert all(bytes(row.tolist()) in held for row in torch.cat(seen))
    assert torch.equal(torch.cat(seen)[-1], corpus.held[-65:].long())


def test_held_out_files_of_the_corpus_are_not_trained_on():
    corpus = standard_library()
    train = bytes(corpus.train.tolist())
    folder = Path(sysconfig.get_path("stdlib"))
    files = {file.name: file.read_bytes() for file in folder.glob("*.py")}
    held = {name for name in files if hashlib.sha256(name.encode()).digest()[0] % 10 == 0}
    assert len(corpus.held) == sum(len(files[name]) for name in held)
    assert len(corpus.train) + len(corpus.held) == sum(map(len, files.values()))
    assert not any(files[name] in train for name in held if len(files[name]) > 100)
    assert 0.03 < len(corpus.held) / len(train) < 0.3


def test_a_gpt_does_not_see_the_bytes_to_come():
    model = get_task("bytes-gpt").model(0)
    x = torch.randint(0, 256, (2, 64))
    changed = x.clone()
    changed[:, 40:] = (changed[:, 40:] + 1) % 256
    with evaluating(model):
        before, after = model(x), model(changed)
    torch.testing.assert_close(before[:, :40], after[:, :40])
    assert not torch.allclose(before[:, 40:], after[:, 40:])


def test_the_bytes_loss_is_the_mean_cross_entropy_of_each_next_byte():
    task = get_task("bytes-gpt")
    model, batch = task.model(0), next(task.batches(0))
    with torch.no_grad():
        logits = model(batch[:, :64])
        by_hand = -F.log_softmax(logits, -1).gather(-1, batch[:, 1:, None]).mean()
        torch.testing.assert_close(task.loss(model, batch), by_hand)


def test_evaluating_puts_every_modules_mode_back():
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(2, 2))
    model[0].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    assert [module.training for module in model.modules()] == [True, False, True]
    assert torch.is_grad_enabled()
