"""The hooks of a task: each does what `thalweg.train.fit` does with it, is in the key, and in the printed script."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.lab.tasks.small import write_small
from tests.lab.test_run import spec_of
from tests.lab.test_script import trained_by
from thalweg._base.errors import ThalwegError
from thalweg.lab import script
from thalweg.lab.run import execute, set_up
from thalweg.lab.tasks import check, get_task, seeding
from thalweg.lab.tasks.training import conditions, in_words, loss_of, stream_of, trained
from thalweg.lab.timing import PARTS, quiet_pass

#: hook → lines of the class
HOOKS = {
    "clip": "clip = 0.05",
    "accumulate": "accumulate = 3",
    "autocast": "autocast = torch.bfloat16",
    "compile": 'compile = "eager"',
    "schedule": "def schedule(self, steps):\n        return lambda step: 1 / (1 + step)",
    "rules": "def groups(self):\n        from thalweg.groups import NoDecay, Rule, times\n"
    '        return [Rule("0.*", lr=times(0.1)), NoDecay()]',
}


def _write(folder, *lines, name="small.py", **replaced):
    path = Path(write_small(folder, name=name))
    text = path.read_text()
    for old, new in replaced.values():
        assert old in text
        text = text.replace(old, new)
    text = text.replace("    batch_size = 16\n", "".join(f"    {line}\n" for line in ("batch_size = 16", *lines)), 1)
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("hook", HOOKS)
def test_each_hook_reaches_the_run_the_fingerprint_and_the_words(tmp_path, hook):
    plain, hooked = _write(tmp_path, name="plain.py"), _write(tmp_path, HOOKS[hook])
    losses = [execute(spec_of(path, "adamw", weight_decay=1.0), "tune")["final_loss"] for path in (plain, hooked)]
    assert math.isfinite(losses[1])
    assert (losses[0] != losses[1]) is (hook != "compile")  # which computes the same
    tasks = [get_task(path) for path in (plain, hooked)]
    assert conditions(tasks[0]) != conditions(tasks[1])
    assert in_words(tasks[0], "as always") != in_words(tasks[1], "as always")
    assert len({check(task).fingerprint for task in tasks}) == 2


def test_a_value_that_the_source_does_not_show_is_in_the_fingerprint(tmp_path, monkeypatch):
    path = _write(tmp_path, 'import os\n    clip = float(os.environ["CLIP"])')
    marks = set()
    for clip in ("1", "2"):
        monkeypatch.setenv("CLIP", clip)
        other = _write(tmp_path, 'import os\n    clip = float(os.environ["CLIP"])', name=f"{clip}.py")
        marks.add(check(get_task(other)).fingerprint)
    assert len(marks) == 2
    assert path


ENTRIES = ["adamw", "muon", "sam(sgd)", "torch.optim:NAdam", "adamw(lr=1e-2,weight_decay=0.3)", "muon(lr=1e-2)",
           "torch.optim:SGD(lr=0.1,weight_decay=0.1)", "lion"]  # fmt: skip
#: every entry with all hooks at once; each hook alone with who has groups of his own, and with a recipe
PAIRS = [*((e, [*HOOKS]) for e in ENTRIES), *((e, [h]) for h in HOOKS if h != "compile" for e in ENTRIES[1:5:3])]


@pytest.mark.parametrize(("entry", "hooks"), PAIRS, ids=lambda x: x if isinstance(x, str) else "-".join(x))
def test_the_printed_lines_train_as_the_race_did_with_hooks(tmp_path, entry, hooks):
    spec = spec_of(_write(tmp_path, *(HOOKS[h] for h in hooks)), entry, lr=4e-3 * math.sqrt(10), weight_decay=0.3)
    if not spec.contestant.tuned:
        recipe = spec.contestant
        spec = replace(spec, lr=recipe.centre, multiplier=1.0, weight_decay=recipe.decay(0.0))
    lines = script.lines(spec)
    run = execute(spec, "verdict")
    assert trained_by(lines, spec)[1] == run["final_loss"]
    assert run["final_loss"] != run["curve"][0][1]


def test_the_groups_of_a_task_stand_above_those_of_the_race(tmp_path):
    rules = (
        'def groups(self):\n        from thalweg.groups import Rule, times\n        return [Rule("0.*", lr=times(0.5)),'
    )
    task = get_task(_write(tmp_path, rules + ' Rule("2.weight", weight_decay=0.7)]'))
    _, optimizer = set_up(spec_of("", "sgd", lr=0.1, multiplier=3.0, weight_decay=0.2), task)
    found = {name: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for name in g["param_names"]}
    assert found["0.weight"] == (pytest.approx(0.05), 0.2)
    assert found["0.bias"] == (pytest.approx(0.15), 0.0)
    assert found["2.weight"] == (0.1, 0.7)
    assert found["5.weight"] == (pytest.approx(0.3), 0.0)


LOADER = """def batches(self, seed):
        x = torch.arange(100.0)[:, None].expand(100, 2)
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x[:, :1]), 16, SHUFFLE)

    def old(self, seed):"""
DATASET = """def dataset(self):
        x = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
        return torch.utils.data.TensorDataset(x, x[:, :1].sin())

    def old(self, seed):"""


def test_a_loader_is_read_again_whenever_it_ends_and_shuffled_by_the_seed(tmp_path):
    task = get_task(_write(tmp_path, batches=("def batches(self, seed):", LOADER.replace("SHUFFLE", "shuffle=True"))))
    first, again, other = (_drawn(task, seed, 21) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    epochs = [list(itertools.chain(*first[i : i + 7])) for i in (0, 7, 14)]
    assert [sorted(epoch) for epoch in epochs] == [[float(i) for i in range(100)]] * 3
    assert epochs[0] != epochs[1]
    assert check(task).parameters == 105


def _drawn(task, seed, count):
    return [x[:, 0].tolist() for x, _ in itertools.islice(stream_of(task, seed), count)]


def test_what_the_model_draws_does_not_move_the_data_of_a_loader(tmp_path):
    task = get_task(_write(tmp_path, batches=("def batches(self, seed):", LOADER.replace("SHUFFLE", "shuffle=True"))))
    quiet = _drawn(task, 0, 14)
    stream, noisy = stream_of(task, 0), []
    for _ in range(14):
        torch.rand(7)
        noisy.append(next(stream)[0][:, 0].tolist())
    assert noisy == quiet


def test_a_loader_that_is_the_same_for_all_seeds_is_refused(tmp_path):
    task = get_task(_write(tmp_path, batches=("def batches(self, seed):", LOADER.replace("SHUFFLE", "drop_last=True"))))
    with pytest.raises(ThalwegError, match="batches gave the same batches for the seeds 0 and 1"):
        check(task)


def test_a_dataset_serves_in_the_place_of_batches(tmp_path):
    path = _write(tmp_path, batches=("def batches(self, seed):", DATASET))
    task = get_task(path)
    assert isinstance(task.batches(0), DataLoader)
    assert isinstance(task.dataset(), TensorDataset)
    first, again, other = (_drawn(task, seed, 13) for seed in (0, 0, 1))
    assert first == again != other
    assert {len(rows) for rows in first} == {16}
    assert check(task).parameters == 105
    assert execute(spec_of(path), "tune")["status"] == "finished"


def test_neither_batches_nor_a_dataset_is_refused(tmp_path):
    with pytest.raises(ThalwegError, match="Small has no batches; expected def batches"):
        get_task(_write(tmp_path, batches=("def batches(self, seed):", "def old(self, seed):")))


@pytest.mark.parametrize(
    ("returned", "parts"),
    [
        ('{"fit": F.mse_loss(model(x), y), "size": 0.1 * model[0].weight.square().sum()}', {"fit", "size"}),
        ("(F.mse_loss(model(x), y) + 0.1 * model[0].weight.square().sum(), model(x).mean())", {"loss 2"}),
    ],
)
def test_several_losses_are_recorded_and_one_is_descended(tmp_path, returned, parts):
    plain = "F.mse_loss(model(x), y) + 0.1 * model[0].weight.square().sum()"
    paths = [
        _write(tmp_path, name=f"{name}.py", loss=("return F.mse_loss(model(x), y)\n", f"return {text}\n"))
        for name, text in (("one", plain), ("several", returned))
    ]
    one, several = (execute(spec_of(path, "sgd"), "tune") for path in paths)
    assert several["parts"].keys() == parts
    assert one["parts"] == {}
    if "size" in parts:  # the tuple's second pass through the model draws another dropout
        assert several["final_loss"] == one["final_loss"]
        assert sum(several["parts"].values()) == pytest.approx(several["train_loss"], rel=1e-5)
    task = get_task(paths[1])
    model, batch = task.model(0), next(task.batches(0))
    loss, recorded = trained(task, model.eval(), batch)
    assert loss.requires_grad
    assert not any(part.requires_grad for part in recorded.values())
    assert loss.item() == pytest.approx(loss_of(get_task(paths[0]), model, batch).item())
    assert check(task).parameters == 105


METRICS = """def metrics(self, model):
        return {"first": float(model[0].weight.abs().max()), "training": float(model.training)}
"""


def test_metrics_are_measured_at_the_end_and_change_nothing(tmp_path):
    plain, measured = _write(tmp_path, name="plain.py"), _write(tmp_path, METRICS)
    a, b = (execute(spec_of(path), "verdict") for path in (plain, measured))
    assert a["metrics"] == {}
    assert b["metrics"]["first"] > 0
    assert b["metrics"]["training"] == 0.0
    assert a["final_loss"] == b["final_loss"]


def test_frozen_parts_of_a_model_stay_as_they_are(tmp_path):
    freeze = ("        return nn.Sequential(", "        return _freeze(nn.Sequential(")
    path = Path(_write(tmp_path, model=freeze))
    text = path.read_text().replace("nn.Linear(8, 1))", "nn.Linear(8, 1)))")
    freezing = "def _freeze(net):\n    net[0].requires_grad_(False)\n    return net\n\n"
    path.write_text(text.replace("class Small", f"{freezing}class Small"))
    task = get_task(str(path))
    assert check(task).parameters == 105 - 24
    for entry in ("adamw", "muon", "torch.optim:NAdam", "adamw(lr=1e-2)", "sam(sgd)"):
        spec = spec_of(str(path), entry)
        _, optimizer = set_up(spec, task)
        assert sum(p.numel() for g in optimizer.param_groups for p in g["params"]) == 105 - 24
        assert execute(spec, "tune")["status"] == "finished"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("clip = 0", "found clip = 0; expected a positive norm, or None"),
        ("clip = -1.0", "found clip = -1.0; expected a positive norm"),
        ("accumulate = 0", "found accumulate = 0; expected a whole number of at least 1"),
        ("accumulate = 1.5", "found accumulate = 1.5; expected a whole number"),
        ("autocast = torch.float16", "found autocast = torch.float16; expected torch.bfloat16"),
        ("device = 'nowhere'", "found device = 'nowhere'; expected a device that is here"),
        ("compile = 3", "found compile = 3; expected True, False, or the name of a backend"),
        ("def schedule(self, steps):\n        return lambda step: -1.0", "schedule gave the factor -1.0; expected"),
        ("def schedule(self, steps):\n        return 'linear'", "in schedule: TypeError"),
        ("def metrics(self, model):\n        return {'a': 'b'}", "in metrics: ValueError"),
        ("def groups(self):\n        return [3]", "in groups: ValueError"),
    ],
)  # fmt: skip
def test_a_wrong_hook_is_refused_with_its_line(tmp_path, line, message):
    with pytest.raises(ThalwegError, match=message) as caught:
        check(get_task(_write(tmp_path, line)))
    assert str(caught.value).startswith(str(tmp_path))


def test_the_quiet_pass_times_a_step_of_all_its_batches(tmp_path):
    path = _write(tmp_path, HOOKS["accumulate"], HOOKS["clip"])
    for entry in ("sgd", "sam(sgd)"):
        (block,) = quiet_pass([spec_of(path, entry)], 1).blocks.values()
        assert all(block[0][part] > 0 for part in PARTS)


def test_a_task_without_hooks_trains_as_before(tmp_path):
    said = in_words(get_task(_write(tmp_path)), "5% linear warmup and linear decay to zero")
    assert said == "float32, one thread a run, 5% linear warmup and linear decay to zero, no clipping, parameter groups"


def test_seeding_gives_torchs_numbers_and_leaves_nothing_for_devices_that_are_not_there():
    seeding.seed(7)
    drawn, waiting = torch.rand(3), len(torch.cuda._queued_calls)
    seeding.seed(7)
    assert torch.equal(torch.rand(3), drawn)
    if not torch.accelerator.is_available():  # else CUDA is told, once it is there
        assert len(torch.cuda._queued_calls) == waiting
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), drawn)
