"""A watch beside the loops of others: healthy runs are left alone, broken ones named, every update and loss seen."""

import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import thalweg
from tests.diagnosis.inflight.runs import X, Y
from thalweg import diagnosis

pytestmark = [pytest.mark.models, pytest.mark.filterwarnings("ignore")]
UPDATES = 24


class Rows(Dataset):
    """Each a dict, as the ``Trainer`` wants them."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return {"x": X[i], "labels": Y[i]}


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.head = nn.Linear(64, 4)

    def forward(self, x, labels=None):
        logits = self.head(self.body(x))
        return {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Summing(Classifier):
    """Divides by the number of all micro-batches' labels, which the ``Trainer`` gives to a model that takes it."""

    def forward(self, x, labels=None, num_items_in_batch=None):
        logits = self.head(self.body(x))
        count = len(x) if num_items_in_batch is None else num_items_in_batch
        return {"loss": F.cross_entropy(logits, labels, reduction="sum") / count, "logits": logits}


class Ignoring(Classifier):
    """Takes that number and divides by its own: the ``Trainer`` divides no more, and losses are added up."""

    def forward(self, x, labels=None, **given):
        return super().forward(x, labels)


def adamw(model, **arguments):
    return torch.optim.AdamW(model.parameters(), **{"lr": 3e-3, **arguments})


def cosine(optimizer, steps=UPDATES):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def causes(w):
    return [found.cause for found in w.findings]


@pytest.fixture
def hf(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    def train(model, optimizer, scheduler=None, callback=None, **arguments):
        callback = callback or diagnosis.TrainerWatch()
        given = {"max_steps": UPDATES, "per_device_train_batch_size": 16, "logging_steps": 5, "disable_tqdm": True}
        args = transformers.TrainingArguments(
            output_dir=str(tmp_path), use_cpu=True, report_to=[], save_strategy="no", **{**given, **arguments}
        )
        optimizers = (optimizer, scheduler or cosine(optimizer))
        transformers.Trainer(model, args, train_dataset=Rows(), optimizers=optimizers, callbacks=[callback]).train()
        return callback.watch

    return train


class TestTrainer:
    @pytest.mark.parametrize("accumulate", [1, 4])
    @pytest.mark.parametrize("make", [Classifier, Summing])
    def test_a_healthy_run(self, hf, make, accumulate):
        model = make()
        w = hf(model, adamw(model), gradient_accumulation_steps=accumulate)
        assert not w.findings
        assert w.closed
        assert w.history.updates == len(w.history.losses) == UPDATES
        assert {sample.backwards for sample in w.history.recent} == {accumulate}
        assert w.history.losses[0] == pytest.approx(1.386, abs=0.1)  # log 4, whatever the Trainer divides by
        assert w.history.steps == UPDATES
        assert not model._forward_hooks

    def test_a_model_that_ignores_the_number_of_labels_is_named(self, hf):
        model = Ignoring()
        assert causes(hf(model, adamw(model), gradient_accumulation_steps=4)) == ["accumulation_not_divided"]

    def test_a_replaced_head_is_named(self, hf):
        model = Classifier()
        optimizer = adamw(model)
        model.head = nn.Linear(64, 4)
        (found,) = hf(model, optimizer).findings
        assert (found.cause, found.layer) == ("not_in_optimizer", "head")

    def test_a_horizon_that_is_not_the_run_s_is_named(self, hf):
        model = Classifier()
        w = hf(model, optimizer := adamw(model), cosine(optimizer, 10 * UPDATES))
        assert causes(w) == ["horizon_too_long"]

    def test_a_loss_of_the_trainer_s_own_is_read_from_its_log(self, hf):
        model = Classifier()
        model.forward = lambda x, **_: {"logits": model.head(model.body(x))}
        import transformers

        class Own(transformers.Trainer):
            def compute_loss(self, model, inputs, **_):
                return F.cross_entropy(model(inputs["x"])["logits"], inputs["labels"])

        callback, optimizer = diagnosis.TrainerWatch(), adamw(model)
        args = transformers.TrainingArguments(
            output_dir="unused", max_steps=20, logging_steps=5, use_cpu=True, report_to=[], save_strategy="no",
            disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        Own(
            model, args, train_dataset=Rows(), optimizers=(optimizer, cosine(optimizer, 20)), callbacks=[callback]
        ).train()
        assert not callback.watch.findings
        assert len(callback.watch.history.losses) == 4

    def test_a_second_run_of_the_same_trainer_is_watched_afresh(self, hf):
        model, callback = Classifier(), diagnosis.TrainerWatch()
        first = hf(model, adamw(model), callback=callback)
        second = hf(model, adamw(model), callback=callback)
        assert first is not second
        assert second.history.updates == UPDATES


class TestAccelerate:
    @staticmethod
    def train(model, optimizer, scheduler, accumulate=1, updates=UPDATES):
        accelerate = pytest.importorskip("accelerate")
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
        loader = DataLoader(Rows(), 16, shuffle=True, generator=torch.Generator().manual_seed(0))
        model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
        with thalweg.watch(model, optimizer, scheduler, steps=updates) as w:
            while w.history.updates < updates:
                for batch in w.batches(loader):
                    with accelerator.accumulate(model):
                        accelerator.backward(w.loss(model(**batch)["loss"]))
                        accelerator.clip_grad_norm_(model.parameters(), 10.0)
                        optimizer.step()
                        scheduler.step()
                        optimizer.zero_grad()
                    if w.history.updates == updates:
                        break
        return w

    @pytest.mark.parametrize("accumulate", [1, 4])
    def test_a_healthy_run(self, accumulate):
        model = Classifier()
        w = self.train(model, optimizer := adamw(model), cosine(optimizer), accumulate)
        assert not w.findings
        assert w.history.updates == len(w.history.losses) == UPDATES
        assert w.history.last.scheduler[0] - w.history.first[0].scheduler[0] == w.history.last.step

    def test_a_horizon_that_is_not_the_run_s_is_named(self):
        model = Classifier()
        optimizer = adamw(model)
        assert causes(self.train(model, optimizer, cosine(optimizer, 10 * UPDATES))) == ["horizon_too_long"]

    def test_an_optimizer_of_another_model_is_refused(self):
        with pytest.raises(ValueError, match="none of them of the model"):
            self.train(Classifier(), o := adamw(Classifier()), cosine(o))


class TestLightning:
    @staticmethod
    def train(model, optimizer, callback=None, **arguments):
        lightning = pytest.importorskip("lightning.pytorch")

        class Module(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.model = model

            def training_step(self, batch, _):
                return self.model(**batch)["loss"]

            def configure_optimizers(self):
                return [optimizer], [{"scheduler": cosine(optimizer), "interval": "step"}]

        callback = callback or diagnosis.LightningWatch()
        lightning.Trainer(
            max_steps=UPDATES, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[callback], **arguments,
        ).fit(Module(), DataLoader(Rows(), 16, shuffle=True))  # fmt: skip
        return callback.watch

    @pytest.mark.parametrize("arguments", [{}, {"accumulate_grad_batches": 4}, {"gradient_clip_val": 10.0}])
    def test_a_healthy_run(self, arguments):
        model = Classifier()
        w = self.train(model, adamw(model), **arguments)
        assert not w.findings
        assert w.closed
        assert w.history.updates == len(w.history.losses) == w.history.steps == UPDATES
        assert w.history.losses[0] == pytest.approx(1.386, abs=0.1)

    def test_a_replaced_head_is_named(self):
        model = Classifier()
        optimizer = adamw(model)
        model.head = nn.Linear(64, 4)
        (found,) = self.train(model, optimizer).findings
        assert (found.cause, found.layer) == ("not_in_optimizer", "model.head")

    def test_an_exception_ends_the_watch_and_is_explained(self):
        pytest.importorskip("lightning.pytorch")
        model = Classifier()
        model.head = nn.Linear(64, 3)  # for four classes
        seen = diagnosis.LightningWatch()
        with pytest.raises(IndexError):
            self.train(model, adamw(model), seen)
        assert causes(seen.watch) == ["labels_out_of_range"]
        assert seen.watch.closed


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "thalweg.diagnosis.trainers.transformers", raising=False)
    with pytest.raises(ImportError, match="TrainerWatch needs transformers"):
        diagnosis.TrainerWatch  # noqa: B018


def test_another_name_is_none():
    with pytest.raises(AttributeError, match="no attribute 'Watcher'"):
        diagnosis.Watcher  # noqa: B018
