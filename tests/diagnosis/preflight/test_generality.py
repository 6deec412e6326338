"""The same faults in other models, and healthy set-ups of other kinds: what the fault suite was not made of."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

import thalweg
from thalweg import check
from thalweg.testing.faults import tasks

pytestmark = pytest.mark.slow(reason="some sixty models, most of them trained")

POINTS, PICTURES, NUMBERS = tasks.points(), tasks.pictures(), tasks.numbers()


class Residual(nn.Module):
    """Two convolutions with batch norms, one beside a residual connection."""

    def __init__(self, tracking=True):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16, track_running_stats=tracking)
        self.inner, self.second = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16, track_running_stats=tracking)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        return self.head(F.relu(x + self.second(self.inner(x))).mean((2, 3)))


class Encoder(nn.Module):
    """nn.TransformerEncoder over tokens, with dropout."""

    def __init__(self, masked=True):
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.1, batch_first=True, norm_first=True)
        self.tokens, self.layers = nn.Embedding(32, 32), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head, self.masked = nn.Linear(32, 32), masked

    def forward(self, ids):
        mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1]) if self.masked else None
        return self.head(self.layers(self.tokens(ids), mask=mask))


class SequenceFirst(nn.Module):
    """An LSTM that takes (places, batch)."""

    def __init__(self):
        super().__init__()
        self.tokens, self.lstm, self.head = nn.Embedding(32, 32), nn.LSTM(32, 32), nn.Linear(32, 32)

    def forward(self, ids):
        return self.head(self.lstm(self.tokens(ids))[0])


class Experts(nn.Module):
    """Four experts, of which a router takes one for each example."""

    def __init__(self):
        super().__init__()
        self.inner, self.router, self.head = nn.Linear(16, 32), nn.Linear(32, 4), nn.Linear(32, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32)) for _ in range(4))

    def forward(self, x):
        x = F.relu(self.inner(x))
        weight, chosen = self.router(x).softmax(-1).max(-1)
        y = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero()[:, 0]
            y = y.index_add(0, rows, expert(x[rows]) * weight[rows, None])
        return self.head(x + y)


def hidden_and_rest(model, part):
    matrices = [p for name, p in model.named_parameters() if part in name and p.ndim == 2]
    return matrices, [p for p in model.parameters() if all(p is not one for one in matrices)]


def causes(model, optimizer, loss, batches, **options):
    report = check(model, optimizer, loss=loss, batches=batches(), **{"steps": 200, **options})
    assert not report.skipped
    return {one.cause: one.layer for one in report.findings}


def adamw(model, lr=3e-3, **options):
    return torch.optim.AdamW(model.parameters(), lr=lr, **options)


# -- healthy -----------------------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=5e-4),
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-2),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=1.0),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=3e-3),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=1e-2),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1),
    "a tensor for lr": lambda p: torch.optim.AdamW(p, lr=torch.tensor(3e-3)),
    "Lion": lambda p: thalweg.Lion(p, lr=3e-4),
    "Prodigy": lambda p: thalweg.Prodigy(p),
    "LAMB": lambda p: thalweg.LAMB(p, lr=1e-2),
    "AdEMAMix": lambda p: thalweg.AdEMAMix(p, lr=1e-3),
    "Lookahead": lambda p: thalweg.Lookahead(thalweg.AdamW(p, lr=3e-3)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_at_usual_rates(name):
    model = tasks.seeded(tasks.perceptron)
    optimizer = OPTIMIZERS[name](model.parameters())
    assert causes(model, optimizer, tasks.classify, tasks.drawn(*POINTS)) == {}


SCHEDULES = {
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 200),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 1e-2, total_steps=200),
    "a function": lambda o: lr_scheduler.LambdaLR(o, lambda s: min(1, (s + 1) / 20) * (1 - s / 200)),
    "root": lambda o: lr_scheduler.LambdaLR(o, lambda s: min((s + 1) / 20, (20 / (s + 1)) ** 0.5)),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.995),
    "steps": lambda o: lr_scheduler.StepLR(o, 60, 0.1),
    "warmup and cosine": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.01, 1.0, 20), lr_scheduler.CosineAnnealingLR(o, 180)], [20]
    ),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 50),
    "cycles": lambda o: lr_scheduler.CyclicLR(o, 1e-4, 3e-3, step_size_up=50, cycle_momentum=False),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o),
    "ours": lambda o: thalweg.schedule.Scheduler(o, thalweg.schedule.cosine(200, warmup=10)),
    "a function of ours": lambda o: thalweg.schedule.linear(200, warmup=10),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_that_fit_the_run(name):
    model = tasks.seeded(tasks.perceptron)
    optimizer = adamw(model)
    found = causes(model, optimizer, tasks.classify, tasks.drawn(*POINTS), scheduler=SCHEDULES[name](optimizer))
    assert found == {}


def masked(model, ids):
    ids = ids[:, :-1].clone()
    hidden = torch.rand(ids.shape) < 0.15
    target = torch.where(hidden, ids, -100)
    ids[hidden] = 0
    return F.cross_entropy(model(ids).flatten(0, 1), target.flatten())


def sequence_first(model, ids):
    return F.cross_entropy(model(ids[:, :-1].T).flatten(0, 1), ids[:, 1:].T.flatten())


def in_bfloat16(model, batch):
    return F.cross_entropy(model(batch[0].bfloat16()).float(), batch[1])


def contrasted(model, batch):
    x, noise = batch[0], 0.1 * torch.randn_like(batch[0])
    a, b = (F.normalize(model(part), dim=1) for part in (x, x + noise))
    return F.cross_entropy(10 * a @ b.T, torch.arange(len(x)))


MODELS = {
    "residual": (Residual, tasks.classify, tasks.drawn(*PICTURES)),
    "encoder": (Encoder, tasks.predict, tasks.text()),
    "both directions": (lambda: tasks.Transformer(causal=False), masked, tasks.text()),
    "tied": (lambda: tasks.Transformer(tied=True), tasks.predict, tasks.text()),
    "sequence first": (SequenceFirst, sequence_first, tasks.text()),
    "experts": (Experts, tasks.classify, tasks.drawn(*POINTS)),
    "regression": (lambda: tasks.perceptron(1), tasks.regress, tasks.drawn(NUMBERS[0], NUMBERS[1] + 3)),
    "bfloat16": (lambda: tasks.perceptron().bfloat16(), in_bfloat16, tasks.drawn(*POINTS)),
    "contrastive": (lambda: tasks.perceptron(8), contrasted, tasks.drawn(*POINTS)),
    "a dict": (tasks.perceptron, lambda m, b: {"a": tasks.classify(m, b), "b": m[0].bias.square().sum()},
               tasks.drawn(*POINTS)),
    "a tuple": (tasks.perceptron, lambda m, b: (tasks.classify(m, b), "more"), tasks.drawn(*POINTS)),
    "a finite list": (tasks.perceptron, tasks.classify, lambda: [POINTS, POINTS]),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_models_and_losses_of_other_kinds(name):
    build, loss, batches = MODELS[name]
    model = tasks.seeded(build)
    assert causes(model, adamw(model), loss, batches) == {}


def test_targets_that_are_large_make_gradients_large_and_no_layer_does():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(NUMBERS[0].shape[1], 64), nn.ReLU(), nn.Linear(64, 1))
    batches = tasks.drawn(NUMBERS[0], 50 * NUMBERS[1] + 300)
    assert causes(model, torch.optim.Adam(model.parameters(), lr=1e-2), tasks.regress, batches) == {}


def test_a_head_on_a_frozen_body_adapters_and_a_head_of_zeros():
    model = tasks.seeded(tasks.perceptron)
    model[0].requires_grad_(False)
    model[2].requires_grad_(False)
    assert causes(model, adamw(model), tasks.classify, tasks.drawn(*POINTS)) == {}
    model = tasks.seeded(tasks.perceptron)
    nn.init.zeros_(model[4].weight)
    nn.init.zeros_(model[4].bias)
    assert causes(model, adamw(model), tasks.classify, tasks.drawn(*POINTS)) == {}


def test_two_optimizers_for_one_model():
    model = tasks.seeded(tasks.Transformer)
    matrices, rest = hidden_and_rest(model, "blocks")
    both = [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(rest, lr=3e-3)]
    assert causes(model, both, tasks.predict, tasks.text()) == {}
    assert "not_in_optimizer" in causes(model, both[0], tasks.predict, tasks.text())


# -- broken ------------------------------------------------------------------------------------------------------------


def broken_head():
    model = tasks.seeded(tasks.Transformer)
    optimizer = adamw(model)
    model.head = nn.Linear(32, 32, bias=False)
    return model, optimizer, tasks.predict, tasks.text()


def dead_norm():
    model = tasks.seeded(Residual)
    nn.init.constant_(model.norm.bias, -10.0)
    return model, adamw(model), tasks.classify, tasks.drawn(*PICTURES)


def muon_at_adamws_rate():
    model = tasks.seeded(tasks.Transformer)
    return model, thalweg.Muon(model, lr=3e-4), tasks.predict, tasks.text()


def unscaled():
    model = tasks.seeded(lambda: nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 4)))
    return model, adamw(model), tasks.classify, tasks.drawn(80 * PICTURES[0] + 100, PICTURES[1])


def eval_in_the_loss():
    model = tasks.seeded(Residual)
    return model, adamw(model), lambda m, b: tasks.classify(m.eval(), b), tasks.drawn(*PICTURES)


def sliced_sigmoid():
    model = tasks.seeded(lambda: nn.Sequential(tasks.perceptron(1), nn.Sigmoid()))
    optimizer = adamw(model)

    def loss(its, batch):
        return F.binary_cross_entropy_with_logits(its(batch[0])[:, 0], (batch[1] > 1).float())

    return model, optimizer, loss, tasks.drawn(*POINTS)


def binary_labels_of_one_and_two():
    model = tasks.seeded(lambda: tasks.perceptron(1))

    def loss(its, batch):
        return F.binary_cross_entropy_with_logits(its(batch[0])[:, 0], (batch[1] > 1).float() + 1)

    return model, adamw(model), loss, tasks.drawn(*POINTS)


def probabilities_over_the_batch():
    model = tasks.seeded(tasks.perceptron)
    return model, adamw(model), lambda m, b: F.nll_loss(m(b[0]).log_softmax(0), b[1]), tasks.drawn(*POINTS)


def inputs_times_zero():
    model = tasks.seeded(tasks.perceptron)
    return model, adamw(model), lambda m, b: F.cross_entropy(m(0 * b[0]), b[1]), tasks.drawn(*POINTS)


def without_statistics():
    model = tasks.seeded(lambda: Residual(tracking=False))
    return model, adamw(model), tasks.classify, tasks.drawn(*PICTURES)


def unmasked():
    model = tasks.seeded(lambda: Encoder(masked=False))
    return model, adamw(model), tasks.predict, tasks.text()


def rate(build, lr, loss, batches, cls=torch.optim.AdamW):
    model = tasks.seeded(build)
    return model, cls(model.parameters(), lr=lr), loss, batches


BROKEN = {
    "a head after the optimizer": (broken_head, "not_in_optimizer", "head"),
    "ReLUs dead behind a norm": (dead_norm, "dead_relus", "norm"),
    "Muon at AdamW's rate": (muon_at_adamws_rate, "lr_too_low", ""),
    "raw pixels": (unscaled, "inputs_not_scaled", ""),
    "eval in the loss": (eval_in_the_loss, "mode_eval", "norm"),
    "a sigmoid twice": (sliced_sigmoid, "activation_before_loss", ""),
    "labels 1 and 2": (binary_labels_of_one_and_two, "labels_out_of_range", "4"),
    "softmax over the batch": (probabilities_over_the_batch, "nll_of_logits", ""),
    "inputs times zero": (inputs_times_zero, "loss_ignores_batch", ""),
    "no running statistics": (without_statistics, "examples_leak", ""),
    "no mask": (unmasked, "label_visible", ""),
    "a convolution at 1": (lambda: rate(Residual, 1.0, tasks.classify, tasks.drawn(*PICTURES)), "lr_too_high", "inner"),
    "a transformer at 0.1": (lambda: rate(tasks.Transformer, 0.1, tasks.predict, tasks.text()), "lr_too_high", ""),
    "SGD at 10": (
        lambda: rate(lambda: tasks.perceptron(1), 10.0, tasks.regress, tasks.drawn(*NUMBERS), torch.optim.SGD),
        "lr_too_high",
        "",
    ),
    "SGD at 1e-5": (
        lambda: rate(tasks.perceptron, 1e-5, tasks.classify, tasks.drawn(*POINTS), torch.optim.SGD), "lr_too_low", ""
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_faults_in_other_models(name):
    build, cause, layer = BROKEN[name]
    found = causes(*build())
    assert cause in found
    assert layer in found[cause]


MISMATCHED = {
    "one cycle": (lambda o: lr_scheduler.OneCycleLR(o, 3e-3, total_steps=2000), "horizon_too_long"),
    "a function": (lambda o: lr_scheduler.LambdaLR(o, lambda s: max(0, 1 - s / 2000)), "horizon_too_long"),
    "ours": (
        lambda o: thalweg.schedule.Scheduler(o, thalweg.schedule.cosine(2000, warmup=100)), "horizon_too_long"
    ),
    "a quarter": (lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, 50), "horizon_too_short"),
    "a factor at every batch": (lambda o: lr_scheduler.StepLR(o, 1, 0.1), "horizon_too_short"),
    "a warmup of nine tenths": (
        lambda o: lr_scheduler.OneCycleLR(o, 3e-3, total_steps=200, pct_start=0.9), "warmup_too_long"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISMATCHED)
def test_schedules_that_do_not_fit(name):
    make, cause = MISMATCHED[name]
    model = tasks.seeded(tasks.perceptron)
    optimizer = adamw(model)
    found = causes(model, optimizer, tasks.classify, tasks.drawn(*POINTS), scheduler=make(optimizer))
    assert list(found) == [cause]


def test_a_scheduler_that_was_stepped_at_every_micro_batch():
    model = tasks.seeded(tasks.perceptron)
    optimizer = adamw(model)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for number, batch in zip(range(80), tasks.drawn(*POINTS)(), strict=False):
        (tasks.classify(model, batch) / 4).backward()
        if number % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
        if number > 3:
            scheduler.step()
    found = causes(model, optimizer, tasks.classify, tasks.drawn(*POINTS), scheduler=scheduler, steps=400)
    assert list(found) == ["scheduler_out_of_step"]


# -- what is meant so ------------------------------------------------------------------------------------------------


class Nodes(nn.Module):
    """Two layers over the nodes of a graph, which meet along its edges, or along a matrix of them."""

    def __init__(self, dense):
        super().__init__()
        start, end = torch.randint(
            0, len(POINTS[0]), (2, 4 * len(POINTS[0])), generator=torch.Generator().manual_seed(0)
        )
        edges = torch.zeros(len(POINTS[0]), len(POINTS[0])).index_put((end, start), torch.tensor(0.1))
        self.register_buffer("matrix", edges if dense else None)
        self.start, self.end = start, end
        self.inner, self.head = nn.Linear(POINTS[0].shape[1], 32), nn.Linear(32, 4)

    def forward(self, x):
        h = torch.relu(self.inner(x))
        met = self.matrix @ h if self.matrix is not None else torch.zeros_like(h).index_add(0, self.end, h[self.start])
        return self.head(h + 0.1 * met)


@pytest.mark.parametrize("dense", [False, True])
def test_nodes_of_a_graph_meet(dense):
    torch.manual_seed(0)
    model = Nodes(dense)
    assert causes(model, adamw(model), tasks.classify, lambda: iter([POINTS] * 50)) == {}


class Taught(nn.Module):
    """A student, and a teacher that follows it within the forward pass."""

    def __init__(self):
        super().__init__()
        self.student, self.teacher = (
            nn.Sequential(nn.Linear(POINTS[0].shape[1], 32), nn.BatchNorm1d(32)) for _ in "ab"
        )
        self.teacher.load_state_dict(self.student.state_dict())
        self.teacher.requires_grad_(False)
        self.head = nn.Linear(32, 32)

    def forward(self, x):
        with torch.no_grad():
            for p, q in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                p.lerp_(q, 0.05)
            target = F.normalize(self.teacher(x + 0.1 * torch.randn_like(x)), dim=1)
        return 1 - (F.normalize(self.head(self.student(x)), dim=1) * target).sum(1).mean()


def test_a_teacher_that_follows_its_student_is_no_frozen_layer():
    torch.manual_seed(0)
    model = Taught()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    assert causes(model, optimizer, lambda m, b: m(b[0]), tasks.drawn(*POINTS)) == {}


class Policy(nn.Module):
    """The logits of actions, near zero at first, and a value."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(POINTS[0].shape[1], 64), nn.Tanh())
        self.actions, self.value = nn.Linear(64, 4), nn.Linear(64, 1)
        nn.init.normal_(self.actions.weight, std=0.01)

    def forward(self, x):
        h = self.body(x)
        return self.actions(h), self.value(h)[:, 0]


def clipped_ratio(model, batch):
    logits, value = model(batch[0])
    actions = torch.distributions.Categorical(logits=logits)
    taken = actions.sample()
    reward = (taken == batch[1]).float()
    gain, ratio = (reward - value).detach(), (actions.log_prob(taken) - actions.log_prob(taken).detach()).exp()
    policy = -torch.min(ratio * gain, ratio.clamp(0.8, 1.2) * gain).mean()
    return policy + 0.5 * F.mse_loss(value, reward) - 0.01 * actions.entropy().mean()


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_of_a_policy_that_draws_its_actions_may_rise(seed):
    torch.manual_seed(seed)
    model = Policy()
    assert causes(model, torch.optim.Adam(model.parameters(), lr=3e-3), clipped_ratio, tasks.drawn(*POINTS)) == {}
