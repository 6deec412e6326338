"""Each sink with the real thing: the numbers that were sent are read back from where the service keeps them."""

import json
import math
import sqlite3

import pytest
import torch

import thalweg
from tests.diagnosis.inflight.runs import batches, loss_of, net
from thalweg.diagnosis.inflight import sinks

pytestmark = [pytest.mark.models, pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def sent():
    """Train with a sink; give what another one got, by step."""

    def train(sink, lr=3e-3):
        model, kept = net(), {}
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
        with thalweg.watch(
            model, optimizer, sinks=[sink, lambda step, numbers: kept.update({step: dict(numbers)})]
        ) as w:
            for batch in batches(15):
                w.loss(loss_of(model, batch)).backward()
                optimizer.step()
                optimizer.zero_grad()
        assert len(w.sinks) == 2  # neither has raised
        assert len(kept) == 12
        return kept

    return train


def test_weights_and_biases_offline(sent, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(project="p", mode="offline", dir=str(tmp_path)) as run:
        for step in range(40):
            run.log({"mine": step})  # the script's own logging is ahead
        kept = sent(sinks.wandb(run))
        run.log({"mine": 40})  # a step ends where the next one begins
        last = dict(run.summary)
    assert last["watch/step"] == 11
    assert last["watch/loss"] == pytest.approx(kept[11]["loss"])
    assert last["watch/update/0.weight"] == pytest.approx(kept[11]["update/0.weight"])
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_tensorboard(sent, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        kept = sent(sinks.tensorboard(writer), lr=3.0)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {e.step: e.value for e in events.Scalars("norm")} == pytest.approx({s: n["norm"] for s, n in kept.items()})
    (text,) = events.Tensors("finding/lr_too_high/text_summary")
    assert text.step in kept
    assert b"lr_too_high" in text.tensor_proto.string_val[0]


def test_mlflow(sent, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("alembic")  # which mlflow-skinny leaves out
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.create_experiment("e", artifact_location=str(tmp_path / "files"))
    with mlflow.start_run(experiment_id=mlflow.get_experiment_by_name("e").experiment_id) as run:
        kept = sent(sinks.mlflow(mlflow), lr=3.0)
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "gradient/2.weight")
    assert {m.step: m.value for m in history} == pytest.approx({s: n["gradient/2.weight"] for s, n in kept.items()})


def test_trackio(sent, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    trackio = pytest.importorskip("trackio")
    monkeypatch.setattr("trackio.utils.TRACKIO_DIR", tmp_path, raising=False)
    trackio.init(project="p", name="r", embed=False)
    kept = sent(sinks.trackio(trackio))
    trackio.finish()
    (base,) = tmp_path.rglob("*.db")
    with sqlite3.connect(base) as known:
        rows = {step: json.loads(text) for step, text in known.execute("select step, metrics from metrics")}
    assert {step: row["loss"] for step, row in rows.items()} == pytest.approx({s: n["loss"] for s, n in kept.items()})
    assert all(math.isfinite(row["norm"]) for row in rows.values())
