"""Healthy runs that look like broken ones, none of which may be accused, and broken ones unlike those of the suite."""

import contextlib
import copy
import itertools
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler
from torch.utils.checkpoint import checkpoint

import thalweg
from tests.diagnosis.inflight.runs import X, Y, batches, loss_of, net
from thalweg.diagnosis import limits
from thalweg.testing.faults import tasks

STEPS = 60


def adamw(model, lr=3e-3, **arguments):
    return torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=lr, **arguments)


@contextlib.contextmanager
def watched(*arguments, **keywords):
    """A watch whose warnings are no errors: what it finds is asked for at the end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", thalweg.diagnosis.WatchWarning)
        with thalweg.watch(*arguments, **keywords) as w:
            yield w


def run(model, optimizer, loss=loss_of, scheduler=None, source=None, steps=STEPS, after=None, told=True, **arguments):
    """Train, and give the causes that were found."""
    with watched(model, optimizer, scheduler, steps=steps, **arguments) as w:
        data = batches(steps) if source is None else itertools.islice(source, steps)
        for step, batch in enumerate(w.batches(data) if told else data):
            w.loss(loss(model, batch)).backward()
            optimizer.step()
            optimizer.zero_grad()
            if scheduler is not None:
                scheduler.step()
            if after is not None:
                after(step, model, optimizer)
    assert not w.voice.said
    return w


class Pair(nn.Module):
    """A generator and a critic."""

    def __init__(self):
        super().__init__()
        self.generator = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16))
        self.critic = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))


def test_a_critic_that_steps_five_times_as_often_as_its_generator_is_not_accused():
    model = Pair()
    every, fifth = (torch.optim.RMSprop(part.parameters(), 1e-3) for part in (model.critic, model.generator))
    with watched(model, [every, fifth], steps=200) as w:
        for step, (x, _) in enumerate(batches(40)):
            noise = torch.randn(len(x), 8)
            every.zero_grad()
            w.loss(model.critic(model.generator(noise).detach()).mean() - model.critic(x).mean()).backward()
            every.step()
            for p in model.critic.parameters():
                p.data.clamp_(-0.01, 0.01)
            if step % 5 == 4:
                fifth.zero_grad()
                (-model.critic(model.generator(noise)).mean()).backward()  # which reaches the critic, too
                fifth.step()
    assert not w.voice.said
    assert {one.cause for one in w.findings} == set()


def test_a_critic_whose_loss_stays_at_a_guess_is_not_accused():
    """Where a generator keeps up, its critic can do no better than guess; both step by losses of their own."""
    torch.manual_seed(0)
    model = Pair()
    mine, other = (torch.optim.Adam(p.parameters(), 1e-4, betas=(0.5, 0.999)) for p in (model.critic, model.generator))
    ones = torch.ones(32, 1)
    with watched(model, [mine, other], steps=400) as w:
        for x, _ in batches(100):
            drawn = model.generator(torch.randn(len(x), 8))
            told = torch.cat([model.critic(x), model.critic(drawn.detach())])
            mine.zero_grad()
            w.loss(F.binary_cross_entropy_with_logits(told, torch.cat([ones, 0 * ones]))).backward()
            mine.step()
            other.zero_grad()
            F.binary_cross_entropy_with_logits(model.critic(drawn), ones).backward()
            other.step()
    assert not w.voice.said
    assert {one.cause for one in w.findings} == set()
    assert w.history.losses.latest(1)[0] > 0.9 * w.history.guess


@pytest.mark.parametrize(("hard", "named"), [({90}, False), ({90, 91, 92}, True)])
def test_one_hard_batch_that_is_trained_on_several_times_is_one_spike(hard, named):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watched(model, optimizer, steps=440) as w:
        for number, batch in enumerate(w.batches(batches(110))):
            for _ in range(4):  # as in PPO, which makes several passes over what it has collected
                w.loss(loss_of(model, batch) + (1.5 if number in hard else 0.0)).backward()  # a part cannot be learnt
                optimizer.step()
                optimizer.zero_grad()
    assert len(w.history.losses.spikes) >= limits.SPIKES
    assert w.history.losses.burst is None
    assert [one.cause for one in w.findings] == ["loss_spikes"] * named


class LoRA(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(4, layer.in_features) / 4)
        self.b = nn.Parameter(torch.zeros(layer.out_features, 4))

    def forward(self, x):
        return self.layer(x) + x @ self.a.T @ self.b.T


def lora():
    model = net()
    for place in (0, 2):
        model[place] = LoRA(model[place])
    return run(model, adamw(model, lr=1e-2))


def low_rate_fine_tuning():
    model = net()
    fast = adamw(model, lr=1e-2)
    for batch in batches(150):
        loss_of(model, batch).backward()
        fast.step()
        fast.zero_grad()
    return run(model, adamw(model, lr=1e-5))


def full_batch():
    model = net()
    return run(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), source=itertools.repeat((X, Y)))


def full_batch_normalized_anew():
    """Its input is another tensor each time, with the same numbers."""
    model = net()
    loss = lambda m, _: F.cross_entropy(m((X - X.mean(0)) / X.std(0)), Y)  # noqa: E731
    return run(model, adamw(model), loss, source=itertools.repeat((X, Y)))


def once_an_epoch():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, 6)

    def after(step, *_):
        if step % 10 == 9:
            scheduler.step()

    return run(model, optimizer, after=after)


def once_an_epoch_seen():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = lr_scheduler.MultiStepLR(optimizer, [3, 5])
    with watched(model, optimizer, scheduler, steps=STEPS) as w:
        for step, batch in enumerate(w.batches(batches(STEPS))):
            w.loss(loss_of(model, batch)).backward()
            optimizer.step()
            optimizer.zero_grad()
            if step % 10 == 9:
                scheduler.step()
    return w


def long_warmup_by_hand():
    model = net()
    optimizer = adamw(model, lr=0.0)

    def after(step, _, optimizer):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, step / 40)

    return run(model, optimizer, after=after)


def long_warmup():
    model = net()
    optimizer = adamw(model)
    return run(model, optimizer, scheduler=lr_scheduler.LinearLR(optimizer, 1e-4, 1.0, 30))


def one_cycle():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return run(model, optimizer, scheduler=lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=STEPS + 1))


def two_tasks():
    """Two losses and two backward passes for each update."""

    def loss(model, batch):
        x, y = batch
        F.cross_entropy(model(x), y).backward()
        return F.cross_entropy(model(-x), (4 - y) % 4)

    model = net()
    return run(model, adamw(model), loss)


def two_tasks_told():
    model = net()
    optimizer = adamw(model)
    with watched(model, optimizer, steps=STEPS) as w:
        for x, y in w.batches(batches(STEPS)):
            w.loss(F.cross_entropy(model(x), y)).backward()
            w.loss(F.cross_entropy(model(-x), (4 - y) % 4)).backward()
            optimizer.step()
            optimizer.zero_grad()
    return w


def accumulated(divided_before):
    def train():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        with watched(model, optimizer, steps=STEPS) as w:
            for i, batch in enumerate(w.batches(batches(4 * STEPS))):
                loss = loss_of(model, batch)
                if divided_before:
                    w.loss(loss / 4).backward()
                else:
                    (w.loss(loss) / 4).backward()
                if i % 4 == 3:
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=False)
        return w

    return train


def adversaries():
    """A generator and a discriminator, whose gradients are cleared before their own step alone."""
    torch.manual_seed(0)
    g, d = (nn.Sequential(nn.Linear(i, 32), nn.LeakyReLU(0.2), nn.Linear(32, o)) for i, o in ((8, 16), (16, 1)))
    og, od = (torch.optim.Adam(m.parameters(), lr=1e-3, betas=(0.5, 0.99)) for m in (g, d))
    ones, zeros = torch.ones(32, 1), torch.zeros(32, 1)
    bce = F.binary_cross_entropy_with_logits
    with watched(g, og, steps=STEPS) as w, watched(d, od, steps=STEPS) as other:
        for x, _ in batches(STEPS):
            fake = g(torch.randn(32, 8))
            od.zero_grad()
            other.loss(bce(d(x), ones) + bce(d(fake.detach()), zeros)).backward()
            od.step()
            og.zero_grad()
            w.loss(bce(d(fake), ones)).backward()
            og.step()
    assert not other.findings, other
    return w


class Experts(nn.Module):
    """Of eight experts an example goes to one, so that some have no gradient for long."""

    def __init__(self):
        super().__init__()
        self.first, self.router = nn.Linear(16, 32), nn.Linear(32, 8)
        self.experts = nn.ModuleList(nn.Linear(32, 32) for _ in range(8))
        self.last = nn.Linear(32, 4)

    def forward(self, x):
        x = F.relu(self.first(x))
        gates = self.router(x).softmax(-1)
        top = gates.argmax(-1)
        y = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            at = (top == number).nonzero()[:, 0]
            if len(at):
                y = y.index_add(0, at, gates[at, number, None] * expert(x[at]))
        return self.last(x + y)


def experts():
    torch.manual_seed(0)
    model = Experts()
    return run(model, adamw(model), source=batches(STEPS, size=6))


class Dropped(nn.Module):
    """Layers that are left out at random."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(16, 32), nn.Linear(32, 4)
        self.blocks = nn.ModuleList(nn.Linear(32, 32) for _ in range(6))

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            if torch.rand(()) > 0.3:
                x = x + F.relu(block(x))
        return self.last(x)


def stochastic_depth():
    torch.manual_seed(0)
    model = Dropped()
    return run(model, adamw(model), steps=100, source=batches(100))


def zero_init_residual():
    torch.manual_seed(0)
    model = Dropped()
    for block in model.blocks:
        nn.init.zeros_(block.weight)
    return run(model, adamw(model))


def checkpointed():
    model = net()

    def loss(model, batch):
        hidden = checkpoint(model[:3], batch[0], use_reentrant=False)
        return checkpoint(lambda h: F.cross_entropy(model[3:](h), batch[1]), hidden, use_reentrant=False)

    return run(model, adamw(model), loss)


def autocast():
    model = net()

    def loss(model, batch):
        with torch.autocast("cpu", torch.bfloat16):
            return F.cross_entropy(model(batch[0]).float(), batch[1])

    return run(model, adamw(model), loss)


def contrastive():
    """Each example against all others of its batch."""
    model = net()

    def loss(model, batch):
        a, b = (F.normalize(model(batch[0] + 0.1 * torch.randn(batch[0].shape)), dim=-1) for _ in range(2))
        return F.cross_entropy(a @ b.T / 0.2, torch.arange(len(a)))

    return run(model, adamw(model), loss)


def frozen_features():
    """A head on a frozen network in eval mode."""
    torch.manual_seed(0)
    model = nn.Sequential(tasks.convolutions()[:9], nn.Linear(144, 4))
    model[0].requires_grad_(False)
    model.train()
    model[0].eval()
    return run(model, adamw(model, lr=1e-2), source=tasks.drawn(*tasks.pictures())())


def policy_gradient():
    """A loss that is negative as often as positive, and says nothing of progress."""
    model = net()

    def loss(model, batch):
        chosen = torch.distributions.Categorical(logits=model(batch[0]))
        actions = chosen.sample()
        rewards = (actions == batch[1]).float()
        return -((rewards - rewards.mean()) * chosen.log_prob(actions)).mean()

    return run(model, adamw(model), loss)


def bfloat16_kept():
    model = net().bfloat16()
    return run(model, thalweg.AdamW(model.parameters(), lr=1e-3, master="split16"))


def layer_wise_rates():
    model = net()
    groups = [{"params": m.parameters(), "lr": 3e-3 * 0.3 ** (4 - i)} for i, m in enumerate(model) if i % 2 == 0]
    return run(model, torch.optim.AdamW(groups, weight_decay=0.1))


def targets_expanded():
    """One target for all outputs, on purpose."""
    model = net()
    return run(model, adamw(model), lambda m, b: F.mse_loss(m(b[0]), (b[1][:, None] / 4.0).expand(-1, 4)))


def overfitting_on_purpose():
    model, batch = net(), next(batches(1))
    return run(model, adamw(model), source=itertools.repeat(batch), steps=200)


def distant_pairs():
    """All differences between outputs and fixed centres."""
    model, centres = net(), torch.randn(4, generator=torch.Generator().manual_seed(0))
    return run(model, adamw(model), lambda m, b: ((m(b[0])[:, :1] - centres) ** 2).amin(1).mean())


def lbfgs():
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5)
    with watched(model, optimizer, steps=20) as w:

        def closure():
            optimizer.zero_grad()
            loss = w.loss(F.cross_entropy(model(X), Y))
            loss.backward()
            return loss

        for _ in range(20):
            optimizer.step(closure)
    return w


HEALTHY = [
    lora, low_rate_fine_tuning, full_batch, full_batch_normalized_anew, once_an_epoch, once_an_epoch_seen,
    long_warmup_by_hand, long_warmup, one_cycle, two_tasks, two_tasks_told, accumulated(True), accumulated(False),
    adversaries, experts, stochastic_depth, zero_init_residual, checkpointed, autocast, contrastive, frozen_features,
    policy_gradient, bfloat16_kept, layer_wise_rates, targets_expanded, overfitting_on_purpose, distant_pairs, lbfgs,
]  # fmt: skip


@pytest.mark.parametrize("train", HEALTHY, ids=lambda train: train.__name__)
def test_a_healthy_run_that_looks_unlike_others_is_left_alone(train):
    w = train()
    assert not w.findings, str(w)
    assert w.looks > 10


# -- broken ones -------------------------------------------------------------------------------------------------------


def cleared_before_the_step():
    def step(optimizer):
        optimizer.zero_grad()
        torch.optim.AdamW.step(optimizer)

    model = net()
    optimizer = adamw(model)
    optimizer.step = lambda: step(optimizer)
    return run(model, optimizer)


def sums_for_means():
    model = net()
    loss = lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="sum")  # noqa: E731
    return run(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), loss)


def all_weights_zero():
    model = net()
    for p in model.parameters():
        nn.init.zeros_(p)
    return run(model, adamw(model))


def one_layer_far_too_fast():
    model = net()
    groups = [
        {"params": [*model[0].parameters(), *model[4].parameters()]},
        {"params": model[2].parameters(), "lr": 3.0},
    ]
    return run(model, torch.optim.AdamW(groups, lr=3e-3))


def rate_to_zero():
    model = net()

    def after(step, _, optimizer):
        if step == 22:
            optimizer.param_groups[0]["lr"] = 0.0

    return run(model, adamw(model), after=after)


def negative_gradients():
    model = net()
    for p in model.parameters():
        p.register_hook(torch.neg)
    return run(model, torch.optim.SGD(model.parameters(), lr=0.05))


def detached_block():
    torch.manual_seed(0)
    model = tasks.Transformer(blocks=3)
    model.blocks[1].attention.out.register_forward_hook(lambda *a: a[-1].detach())
    return run(model, adamw(model), tasks.predict, source=tasks.text()())


def sigmoid_twice():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1), nn.Sigmoid())
    loss = lambda m, b: F.binary_cross_entropy_with_logits(m(b[0])[:, 0], (b[1] > 1).float())  # noqa: E731
    return run(model, adamw(model), loss)


def logits_as_logarithms():
    model = net()
    return run(model, adamw(model), lambda m, b: F.nll_loss(m(b[0]), b[1]))


def probabilities_over_the_batch():
    model = net()
    return run(model, adamw(model), lambda m, b: F.nll_loss(m(b[0]).log_softmax(0), b[1]), steps=4)


def softmax_over_queries():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.Unflatten(1, (8, 2)), Columns(), nn.Flatten(), nn.Linear(16, 4))
    return run(model, adamw(model), lambda m, b: F.cross_entropy(m(b[0]), b[1]), steps=4)


class Columns(nn.Module):
    """Attention whose weights add up to 1 over the queries."""

    def forward(self, x):
        return (x @ x.mT).softmax(1) @ x


def broadcast_by_hand():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
    return run(model, adamw(model), lambda m, b: ((m(b[0]) - b[1].float()) ** 2).mean())


def exploding_recurrence():
    torch.manual_seed(0)
    model = tasks.Recurrent()
    for p in model.lstm.parameters():
        p.data.mul_(8)
    return run(model, torch.optim.SGD(model.parameters(), lr=20.0, momentum=0.9), tasks.predict, source=tasks.text()())


def a_layer_killed_late():
    model = net()

    def after(step, model, _):
        if step == 33:
            nn.init.constant_(model[0].bias, -1e3)

    return run(model, adamw(model), after=after)


def momentum_far_too_long():
    model = net()
    return run(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.99999), steps=200)


def accumulated_undivided_by_adam():
    model = net()
    optimizer = adamw(model)
    with watched(model, optimizer, steps=STEPS) as w:
        for i, batch in enumerate(batches(4 * STEPS)):
            w.loss(loss_of(model, batch)).backward()
            if i % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()
    return w


def stale_copy():
    """The loop trains a copy of the model whose optimizer is watched."""
    model = net()
    optimizer, other = adamw(model), copy.deepcopy(model)
    return run(model, optimizer, lambda _, batch: loss_of(other, batch))


BROKEN = [
    (cleared_before_the_step, "no_gradient", ""), (sums_for_means, "lr_too_high", ""),
    (all_weights_zero, "units_alike", "2"), (one_layer_far_too_fast, "lr_uneven", "2"), (rate_to_zero, "lr_zero", ""),
    (negative_gradients, "update_uphill", ""), (detached_block, "no_gradient", "blocks.1.attention"),
    (sigmoid_twice, "activation_before_loss", ""), (logits_as_logarithms, "nll_of_logits", ""),
    (probabilities_over_the_batch, "nll_of_logits", ""), (softmax_over_queries, "softmax_over_wrong_dimension", "0"),
    (broadcast_by_hand, "loss_broadcasts", "2"), (exploding_recurrence, "lr_too_high", ""),
    (a_layer_killed_late, "gradient_vanished", "0"), (momentum_far_too_long, "memory_too_long", ""),
    (accumulated_undivided_by_adam, "accumulation_not_divided", ""), (stale_copy, "no_gradient", ""),
]  # fmt: skip


@pytest.mark.parametrize(("train", "cause", "layer"), BROKEN, ids=lambda x: getattr(x, "__name__", None))
def test_a_broken_run_unlike_those_of_the_suite_is_named(train, cause, layer):
    w = train()
    found = [one for one in w.findings if one.cause == cause]
    assert found, str(w)
    assert layer in found[0].layer
