"""Planted faults are named, with their layer; a healthy run is accused of nothing."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.diagnosis.preflight.nets import batches, loss, net
from thalweg import check
from thalweg.testing.faults import tasks


def found(model, optimizer, *, loss=loss, data=None, **options):
    report = check(model, optimizer, loss=loss, batches=data or batches(), steps=200, **options)
    return {(one.cause, one.layer) for one in report.findings}


def adamw(model, lr=3e-3, **options):
    return torch.optim.AdamW(model.parameters(), lr=lr, **options)


def test_a_healthy_run_is_accused_of_nothing():
    model = net()
    optimizer = adamw(model)
    report = check(
        model, optimizer, loss=loss, batches=batches(), steps=200,
        scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200),
    )  # fmt: skip
    assert report.findings == ()
    assert not report
    assert report.consumed == 8
    assert "nothing wrong was found" in str(report)


def test_a_head_made_after_the_optimizer():
    model = net()
    optimizer = adamw(model)
    model[4] = nn.Linear(64, 4)
    assert ("not_in_optimizer", "4") in found(model, optimizer)


@pytest.mark.parametrize("length", [600, 2000])
def test_a_schedule_that_is_too_long(length):
    model = net()
    optimizer = adamw(model)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, length)
    assert found(model, optimizer, scheduler=scheduler) == {("horizon_too_long", "")}


def test_bfloat16_that_swallows_the_steps():
    model = net().bfloat16()
    causes = found(model, torch.optim.SGD(model.parameters(), lr=1e-5))
    assert [cause for cause, _ in causes] == ["update_swallowed"]


@pytest.mark.parametrize("lr", [1.0, 3.0])
def test_a_learning_rate_that_is_too_high(lr):
    model = net()
    assert "lr_too_high" in {cause for cause, _ in found(model, adamw(model, lr))}


def test_a_layer_without_gradients():
    model = net()
    model[2].weight.register_hook(lambda g: g * 0)
    assert found(model, adamw(model)) == {("no_gradient", "2.weight")}


def test_a_loss_that_does_not_depend_on_the_batch():
    model = net()
    constant = torch.ones(32, 16), torch.zeros(32, dtype=torch.long)
    causes = found(model, adamw(model), loss=lambda m, _: F.cross_entropy(m(constant[0]), constant[1]))
    assert causes == {("loss_ignores_batch", "")}


def test_a_log_softmax_over_the_wrong_dimension_is_told_from_logits():
    model = net()
    report = check(
        model, adamw(model), loss=lambda m, b: F.nll_loss(m(b[0]).log_softmax(0), b[1]), batches=batches(), steps=200
    )
    (one,) = report.findings
    assert one.cause == "nll_of_logits"
    assert "log_softmax was taken over dimension 0" in one.evidence
    assert one.remedy.startswith("Take log_softmax over the dimension of the classes")


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_rate_meant_for_means_and_a_loss_that_is_a_sum(reduction):
    model = net()

    def summed(its, batch):
        return F.cross_entropy(its(batch[0]), batch[1], reduction=reduction).sum()

    report = check(model, torch.optim.SGD(model.parameters(), lr=0.1), loss=summed, batches=batches(), steps=200)
    (one,) = report.findings
    assert one.cause == "lr_too_high"
    assert "a sum of 32 losses" in one.evidence
    assert "divide the rate by 32" in one.remedy
    assert found(model, adamw(model), loss=summed) == set()


class Two(nn.Module):
    """Two heads on one body."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.first, self.second = nn.Linear(16, 64), nn.Linear(64, 4), nn.Linear(64, 4)

    def forward(self, x):
        hidden = self.body(x).relu()
        return self.first(hidden), self.second(hidden)


SECOND = {
    "softmax": (lambda out, x, y: F.cross_entropy(out.softmax(1), y), {("activation_before_loss", "")}),
    "logits": (lambda out, x, y: F.nll_loss(out, y), {("nll_of_logits", "")}),
    "far away": (lambda out, x, y: F.mse_loss(out, x[:, :4] + 1000), {("initial_loss_high", "second")}),
    "reshaped": (
        lambda out, x, y: F.cross_entropy(out.view(4, 8, 4).view(4, 4, 8), y.view(4, 8)),
        {("outputs_reshaped", "second")},
    ),
    "healthy": (lambda out, x, y: F.mse_loss(out, x[:, :4]), set()),
    "a codebook": (lambda out, x, y: F.mse_loss(out, 1e-3 * x[:, :4]), set()),
}


@pytest.mark.parametrize("name", SECOND)
def test_a_fault_in_the_second_of_two_losses(name):
    second, expected = SECOND[name]
    model = Two()

    def both(its, batch):
        one, other = its(batch[0])
        return F.cross_entropy(one, batch[1]) + second(other, *batch)

    assert found(model, adamw(model), loss=both) == expected


def test_similarities_whose_labels_are_all_zero_are_no_classes():
    model = net()
    queue = F.normalize(torch.randn(64, 4, generator=torch.Generator().manual_seed(1)), dim=1)

    def contrast(its, batch):
        a, b = (F.normalize(its(x), dim=1) for x in (batch[0], batch[0] + 0.1))
        similar = torch.cat([(a * b.detach()).sum(1, keepdim=True), a @ queue.T], dim=1)
        return F.cross_entropy(5 * similar, torch.zeros(len(a), dtype=torch.long))

    assert found(model, adamw(model), loss=contrast) == set()


class Pair(nn.Module):
    """Two encoders that give the similarities of each example with each."""

    def __init__(self):
        super().__init__()
        self.first, self.second = net(), net()

    def forward(self, x, y):
        return 5 * F.normalize(self.first(x), dim=1) @ F.normalize(self.second(y), dim=1).T


def test_similarities_of_each_with_each_leak_no_example():
    model = Pair()

    def contrast(its, batch):
        return F.cross_entropy(its(batch[0], batch[0] + 0.1), torch.arange(len(batch[0])))

    assert found(model, adamw(model), loss=contrast) == set()


class Averaged(nn.Module):
    """A network and the copy in which its moving average is kept."""

    def __init__(self):
        super().__init__()
        self.net, self.average = net(), net()

    def forward(self, x):
        return self.net(x)


def test_a_copy_that_is_left_out_of_loss_and_optimizer_has_no_part_in_the_run():
    model = Averaged()
    report = check(model, adamw(model.net), loss=loss, batches=batches(), steps=200)
    assert report.findings == ()
    assert "no part in this run" in {one.what for one in report.fine}
    assert found(model, adamw(model)) == {("no_gradient", "average.0, average.2, average.4")}


class ByPlace(nn.Module):
    """A GRU that takes the first dimension for the places of a sequence."""

    def __init__(self, batch_first):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.head = nn.GRU(4, 32, batch_first=batch_first), nn.Linear(32, 4)

    def forward(self, x):
        return self.head(self.layer(x.view(len(x), 4, 4))[0][:, -1])


@pytest.mark.parametrize("batch_first", [True, False])
def test_examples_that_a_recurrent_layer_takes_for_places(batch_first):
    model = ByPlace(batch_first)
    assert found(model, adamw(model)) == (set() if batch_first else {("examples_leak", "")})


def test_adapters_that_begin_at_zero_may_learn_slowly():
    model = net()
    for p in model.parameters():
        p.requires_grad_(False)
    model[2].bias.requires_grad_(True)
    assert found(model, torch.optim.AdamW([model[2].bias], lr=3e-4)) == set()


class Attention(nn.Module):
    """Attention over 8 places, then a mean over them."""

    def __init__(self, mean):
        super().__init__()
        torch.manual_seed(0)
        self.mean = mean
        self.q, self.k, self.v, self.head = (nn.Linear(2, 16), nn.Linear(2, 16), nn.Linear(2, 16), nn.Linear(16, 4))

    def forward(self, x):
        x = x.view(len(x), 8, 2)
        return self.head(self.mean(self.q(x), self.k(x), self.v(x)).flatten(1).view(len(x), 8, 16).mean(1))


def slots(q, k, v):
    weights = (q @ k.mT).softmax(-2)
    return (weights / weights.sum(-1, keepdim=True)) @ v


MEANS = {
    "keys": (lambda q, k, v: F.dropout((q @ k.mT).softmax(-1), 0.1) @ v, True),
    "heads": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v), True),
    "transposed": (lambda q, k, v: (k @ q.mT).softmax(1).transpose(1, 2) @ v, True),
    "linear attention": (lambda q, k, v: q.softmax(-1) @ (k.softmax(1).transpose(1, 2) @ v), True),
    "slots": (slots, True),
    "queries": (lambda q, k, v: F.dropout((q @ k.mT).softmax(1), 0.1) @ v, False),
    "examples": (lambda q, k, v: (q @ k.mT).softmax(0) @ v, False),
    "transposed queries": (lambda q, k, v: (k @ q.mT).softmax(2).transpose(1, 2) @ v, False),
}


@pytest.mark.parametrize("name", MEANS)
def test_a_softmax_over_another_dimension_than_that_of_the_keys(name):
    mean, healthy = MEANS[name]
    model = Attention(mean)
    causes = found(model, adamw(model))
    assert {cause for cause, _ in causes} == (set() if healthy else {"softmax_over_wrong_dimension"})
    assert healthy or all(layer in ("q", "k") for _, layer in causes)


def many_labels(batch):
    return (batch[0][:, :4] > 0).float()


MULTIPLE = {
    "softmax twice": (lambda out, y: F.cross_entropy(out, y), True),
    "by hand": (lambda out, y: F.binary_cross_entropy(out.softmax(1), y), True),
    "each its own": (lambda out, y: F.binary_cross_entropy_with_logits(out, y), False),
    "shares": (lambda out, y: F.cross_entropy(out, y / y.sum(1, keepdim=True).clamp_min(1)), False),
}


@pytest.mark.parametrize("name", MULTIPLE)
def test_a_softmax_over_labels_of_which_several_are_true(name):
    criterion, broken = MULTIPLE[name]
    model = net()
    causes = found(model, adamw(model), loss=lambda m, b: criterion(m(b[0]), many_labels(b)))
    assert causes == ({("labels_not_exclusive", "4")} if broken else set())


class Predictor(nn.Module):
    """Predicts the next token from the one at a place."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.inner, self.head = nn.Embedding(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, ids):
        return self.head(self.inner(self.tokens(ids)).relu())


def filled(token=0):
    for ids in tasks.text()():
        lengths = torch.arange(len(ids)) % 12 + 8
        yield (ids % 31 + 1).where(torch.arange(ids.shape[1]) < lengths[:, None], torch.tensor(token))


def told(reduction="mean", **options):
    def predict(model, ids):
        logits, targets = model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()
        losses = F.cross_entropy(logits, targets, reduction=reduction, **options)
        return losses if reduction == "mean" else losses[targets != 0].mean()

    return predict


@pytest.mark.parametrize(
    ("predict", "causes"),
    [
        (told(), {("padding_counted", "")}),
        (told(ignore_index=0), set()),
        (told(weight=(torch.arange(32) > 0).float()), set()),
        (told("none"), set()),
    ],
    ids=["counted", "ignored", "weighed with 0", "taken out"],
)
def test_targets_that_only_fill_up_rows(predict, causes):
    model = Predictor()
    assert found(model, adamw(model), loss=predict, data=filled()) == causes


class Filled(nn.Module):
    """Reads rows that are filled up; ``mask`` makes, of what fills them, the mask of its encoder's keys."""

    def __init__(self, mask, pool="first", recurrent=False):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.1, batch_first=True)
        self.tokens, self.places = nn.Embedding(32, 32), nn.Parameter(torch.randn(64, 32))
        self.layers = nn.LSTM(32, 32, batch_first=True) if recurrent else nn.TransformerEncoder(layer, 2)
        self.head, self.mask, self.pool, self.recurrent = nn.Linear(32, 4), mask, pool, recurrent

    def forward(self, ids, fills=None):
        x = self.tokens(ids) + self.places[: ids.shape[1]]
        if self.recurrent:
            x = self.layers(x)[0]
        else:
            x = self.layers(x, src_key_padding_mask=self.mask(ids == 0 if fills is None else fills))
        return self.head({"first": x[:, 0], "last": x[:, -1], "mean": x.mean(1), "each": x}[self.pool])


MASKS = {
    "right": (lambda: Filled(lambda fills: fills), False),
    "none": (lambda: Filled(lambda fills: None), False),
    "right, means": (lambda: Filled(lambda fills: fills, "mean"), False),
    "right, each place": (lambda: Filled(lambda fills: fills, "each"), False),
    "recurrent": (lambda: Filled(None, "last", recurrent=True), False),
    "recurrent, each place": (lambda: Filled(None, "each", recurrent=True), False),
    "inverted": (lambda: Filled(lambda fills: ~fills), True),
    "inverted, each place": (lambda: Filled(lambda fills: ~fills, "each"), True),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("given", [False, True], ids=["made within", "given"])
@pytest.mark.parametrize("name", MASKS)
def test_a_padding_mask_that_means_the_contrary(name, given):
    build, broken = MASKS[name]
    model = build()

    def own(its, ids):
        outputs = its(ids, ids == 0) if given else its(ids)
        outputs = outputs if outputs.ndim == 2 else outputs.mean(1)
        return F.cross_entropy(outputs, ids[:, 1] % 4)

    report = check(model, adamw(model, 1e-3), loss=own, batches=filled(), steps=200)
    assert ("padding_mask_inverted" in {one.cause for one in report.findings}) == broken, report
    assert not report.skipped


def test_rows_that_end_with_a_token_of_the_text_are_not_filled_up():
    model = Predictor()
    assert found(model, adamw(model), loss=told(), data=(ids.clamp_min(8) for ids in filled())) == set()


@pytest.mark.parametrize(("sign", "maximize"), [(1, False), (-1, False), (1, True), (-1, True)])
def test_a_loss_of_the_wrong_sign(sign, maximize):
    model = net()
    causes = found(model, adamw(model, maximize=maximize), loss=lambda m, b: sign * loss(m, b))
    assert causes == (set() if (sign < 0) == maximize else {("update_uphill", "")})


def test_a_generator_may_raise_what_its_critic_lowers():
    model, critic = net(), nn.Linear(4, 1)

    def fooled(its, batch):
        return -F.binary_cross_entropy_with_logits(critic(its(batch[0])), torch.zeros(len(batch[0]), 1))

    assert found(model, adamw(model, 1e-3), loss=fooled) == set()


class Carrying(nn.Module):
    """Goes on from the state in which the last batch has left it, as a recurrent layer over parts of long texts."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.again, self.head = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4)
        self.register_buffer("carried", torch.full((32, 32), 0.5))
        self.noise = torch.Generator().manual_seed(0)

    def forward(self, x):
        started = self.carried + 0.01 * torch.randn(32, generator=self.noise)
        hidden = torch.tanh(self.inner(x) + self.again(started))
        self.carried = hidden.detach()
        return self.head(hidden)


def test_a_model_that_remembers_the_last_batch_leaks_no_example_and_remembers_none_of_the_check():
    model = Carrying()
    optimizer, carried, noise = adamw(model), model.carried, model.noise.get_state()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    report = check(model, optimizer, loss=loss, batches=batches(), steps=200)
    assert report.findings == ()
    assert not report.skipped
    assert model.carried is carried
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert torch.equal(model.noise.get_state(), noise)
    assert not optimizer.state


@pytest.mark.parametrize("drawn", [True, False])
def test_a_loss_that_draws_its_data_depends_on_them_and_not_on_the_batch(drawn):
    model = net()
    kept = next(batches())

    def own(its, _):
        chosen = torch.randint(0, 32, (32,)) if drawn else torch.arange(32)
        return loss(its, (kept[0][chosen], kept[1][chosen]))

    numbers = (torch.tensor([step]) for step in range(20))
    assert found(model, adamw(model), loss=own, data=numbers) == (set() if drawn else {("loss_ignores_batch", "")})


class Adapted(nn.Module):
    """A trained network, of which the last layer gives large logits, with an adapter in between."""

    def __init__(self, frozen):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.adapter, self.head = nn.Linear(16, 64), nn.Linear(64, 64), nn.Linear(64, 4)
        nn.init.normal_(self.head.weight, std=2.0)
        self.inner.requires_grad_(False)
        self.head.requires_grad_(not frozen)

    def forward(self, x):
        hidden = self.inner(x).relu()
        return self.head(hidden + self.adapter(hidden))


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_head_was_trained_and_may_begin_with_a_high_loss(frozen):
    model = Adapted(frozen)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-3)
    assert found(model, optimizer) == (set() if frozen else {("initial_loss_high", "head")})


SIZES = {
    "each its own": (lambda out, x: F.mse_loss(out, x[:, :4]), False),
    "one for all": (lambda out, x: F.mse_loss(out, torch.tensor(0.5)), False),
    "a column against rows": (lambda out, x: F.mse_loss(out, x[:, :1]), True),
    "a row against a column": (lambda out, x: F.smooth_l1_loss(out[:, :1], x[:, 0]), True),
    "one example's": (lambda out, x: F.l1_loss(out, x[:1, :4]), True),
    "a probability each": (
        lambda out, x: F.binary_cross_entropy(out.sigmoid(), (x[:, :4] > 0).float()), False
    ),
}  # fmt: skip


#: whose loss is told, beside what guessing gives
TOLD = ("each its own", "a probability each")


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize("name", SIZES)
def test_a_target_that_is_broadcast_against_the_outputs(name):
    """Of the loss then no number is told: it would compare each output with the targets of other examples."""
    compare, broken = SIZES[name]
    model = net()
    report = check(model, adamw(model), loss=lambda m, b: compare(m(b[0]), b[0]), batches=batches(), steps=200)
    assert [one.cause for one in report.findings] == ["loss_broadcasts"] * broken
    assert [one.layer for one in report.findings] == ["4"] * broken
    assert ("loss before training" in {one.what for one in report.fine}) == (name in TOLD)


def test_a_guess_of_one_probability_is_between_two_classes():
    model = net()
    last = model[4].bias.data
    last += 100
    report = check(
        model, adamw(model), batches=batches(), steps=200,
        loss=lambda m, b: F.binary_cross_entropy_with_logits(m(b[0])[:, 0], (b[1] > 1).float()),
    )  # fmt: skip
    (one,) = (one for one in report.findings if one.cause == "initial_loss_high")
    assert "the logarithm of 2 classes" in one.evidence


def test_what_follows_from_gradients_that_vanish_is_not_told():
    torch.manual_seed(0)
    deep = [layer for _ in range(30) for layer in (nn.Linear(16, 16), nn.Sigmoid())]
    model = nn.Sequential(*deep, nn.Linear(16, 4))
    assert {cause for cause, _ in found(model, adamw(model, 1e-3))} == {"gradients_vanish"}
