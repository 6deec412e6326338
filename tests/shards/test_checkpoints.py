"""torch.distributed.checkpoint: saved on some ranks, resumed on others; to and from torch's optimizers."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.tensor import DTensor

import thalweg
from tests.shards.layouts import cut, values, whole
from tests.shards.models import WRAPPERS, net, optimizer_of
from tests.shards.test_bits import RULES

CHOSEN = ("AdamW", "LAMB", "Adafactor", "Prodigy", "Muon", "NorMuon", "GaLore", "SOAP", "ScheduleFreeAdamW")
#: around LAMB
AROUND = {
    "Lookahead": lambda inner: thalweg.Lookahead(inner, k=2),
    "EMA": thalweg.EMA,
    "EMANesterov": thalweg.EMANesterov,
    "GPA": thalweg.GPA,
    "SNOO": lambda inner: thalweg.SNOO(inner, k=2),
    "Mechanic": thalweg.Mechanic,
}


def made(rule, wrapper, seed):
    model = net(seed)
    model = WRAPPERS[wrapper](model) if wrapper else model
    if rule in AROUND:
        return model, AROUND[rule](optimizer_of("LAMB", model, RULES["LAMB"]))
    if isinstance(rule, str):
        return model, optimizer_of(rule, model, RULES.get(rule, {}))
    return model, rule(model.parameters(), lr=0.01)


def steps(model, optimizer, numbers):
    """Steps with gradients that the number of ranks does not change."""
    params = list(model.parameters())
    for step in numbers:
        for p, g in zip(params, values(step, [p.shape for p in params]), strict=True):
            p.grad = cut(g, p.device_mesh, p.placements) if isinstance(p, DTensor) else g
        optimizer.step()
        optimizer.zero_grad()
    return [whole(p) for p in params]


def save(folder, rules, wrapper, at_once=True, **form):
    """Train, save, go on, while it is written if not ``at_once``; the parameters at the end, by rule."""
    ends, options = {}, StateDictOptions(**form)
    own = None if at_once else dist.new_group()  # the thread that writes and the steps must not share a group
    for rule in rules:
        model, optimizer = made(rule, wrapper, 0)
        steps(model, optimizer, range(1, 4))
        weights, states = get_state_dict(model, optimizer, options=options)
        write = dcp.save if at_once else dcp.async_save
        written = write({"model": weights, "optimizer": states}, checkpoint_id=f"{folder}/{rule}", process_group=own)
        ends[rule] = steps(model, optimizer, range(4, 6))
        if not at_once:
            written.result()
    return ends


def resume(folder, rules, wrapper, **form):
    """Load, and go on."""
    ends, options = {}, StateDictOptions(**form)
    for rule in rules:
        model, optimizer = made(rule, wrapper, 1)
        weights, states = get_state_dict(model, optimizer, options=options)
        alone = {} if dist.is_initialized() else {"no_dist": True}
        dcp.load({"model": weights, "optimizer": states}, checkpoint_id=f"{folder}/{rule}", **alone)
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=states, options=options)
        ends[rule] = steps(model, optimizer, range(4, 6))
    return ends


def same(a, b):
    return [rule for rule in a if not all(map(torch.equal, a[rule], b[rule]))]


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_two_ranks_and_one(two, tmp_path):
    rules = ("LAMB", "Adafactor")
    saved = two.run(save, str(tmp_path / "two"), rules, "FSDP2")
    assert same(saved[0], saved[1]) == []
    assert same(saved[0], resume(str(tmp_path / "two"), rules, "")) == []
    alone = save(str(tmp_path / "one"), rules, "")
    assert same(saved[0], alone) == []
    assert same(alone, two.run(resume, str(tmp_path / "one"), rules, "FSDP2")[0]) == []


@pytest.mark.ranks
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_four_ranks_and_two_three_and_one(two, three, four, tmp_path):
    folder = str(tmp_path)
    saved = four.run(save, folder, CHOSEN, "FSDP2")[0]
    assert same(saved, two.run(resume, folder, CHOSEN, "FSDP2")[0]) == []
    assert same(saved, three.run(resume, folder, CHOSEN, "FSDP2")[0]) == []
    assert same(saved, four.run(resume, folder, CHOSEN, "HSDP")[0]) == []
    assert same(saved, resume(folder, CHOSEN, "")) == []


@pytest.mark.ranks
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_wrappers(two, three, four, tmp_path):
    folder = str(tmp_path)
    saved = four.run(save, folder, (*AROUND,), "FSDP2")[0]
    assert same(saved, two.run(resume, folder, (*AROUND,), "FSDP2")[0]) == []
    assert same(saved, three.run(resume, folder, (*AROUND,), "FSDP2")[0]) == []
    assert same(saved, resume(folder, (*AROUND,), "")) == []


def save_flat(folder, rules):
    return save(folder, rules, "FSDP2", flatten_optimizer_state_dict=True)


def resume_flat(folder, rules, wrapper):
    return resume(folder, rules, wrapper, flatten_optimizer_state_dict=True)


@pytest.mark.ranks
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_flattened_ones(two, three, tmp_path):
    folder, rules = str(tmp_path), ("Adafactor", "Muon", "SOAP", *AROUND)
    saved = two.run(save_flat, folder, rules)[0]
    assert same(saved, three.run(resume_flat, folder, rules, "FSDP2")[0]) == []
    assert same(saved, resume_flat(folder, rules, "")) == []


@pytest.mark.ranks
@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_steps_go_on_while_a_checkpoint_is_written(two, tmp_path):
    rules = ("Muon", "Adafactor", "ScheduleFreeAdamW", "EMA")
    saved = two.run(save, str(tmp_path), rules, "FSDP2", False)[0]
    assert same(saved, resume(str(tmp_path), rules, "")) == []


def run_torchs(there):
    """From torch's AdamW to ours or back, sharded; the end beside that of the one that goes on."""
    first, second = (torch.optim.AdamW, thalweg.AdamW) if there else (thalweg.AdamW, torch.optim.AdamW)
    model = WRAPPERS["FSDP2"](net())
    optimizer = first(model.parameters(), lr=0.01)
    steps(model, optimizer, range(1, 4))
    again = WRAPPERS["FSDP2"](net(1))
    again.load_state_dict(model.state_dict())
    other = second(again.parameters(), lr=0.01)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    pairs = zip(steps(model, optimizer, range(4, 6)), steps(again, other, range(4, 6)), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("there", [True, False])
def test_to_and_from_torchs(two, there):
    assert max(two.run(run_torchs, there)) < 1e-6


def run_kept(rule):
    """Bytes of state that are here, beside those of one process."""
    model, optimizer = made(rule, "FSDP2", 0)
    steps(model, optimizer, [1])
    alone, other = made(rule, "", 0)
    steps(alone, other, [1])

    def bytes_of(one):
        kept = [x for s in one.state.values() for x in s.values() if isinstance(x, torch.Tensor) and x.ndim]
        return sum((x.to_local() if isinstance(x, DTensor) else x).nbytes for x in kept)

    return bytes_of(optimizer), bytes_of(other)


@pytest.mark.ranks
@pytest.mark.parametrize("rule", ["LAMB", "Muon", "NorMuon", "SOAP"])
def test_state_stays_sharded(two, rule):
    kept = two.run(run_kept, rule)
    whole_of = kept[0][1]
    assert sum(here for here, _ in kept) == whole_of
    assert max(here for here, _ in kept) <= 0.55 * whole_of
