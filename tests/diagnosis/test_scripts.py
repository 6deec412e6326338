"""Runs as people's scripts have them, of other kinds than the suite's: healthy ones are left alone, faults named."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import thalweg

pytestmark = pytest.mark.slow(reason="trains some fifty small models")
STEPS = 60
K = torch.Generator().manual_seed(0)


class Script:
    """What a script has: model, optimizer, loss of a batch, batches, scheduler; and what its loop does besides."""

    def __init__(self, model, optimizer, loss, batch, scheduler=None, clip=None, after=None, accumulate=1, steps=STEPS):
        # of the run; the loop makes the first STEPS of them
        self.model, self.optimizer, self.loss, self.batch = model, optimizer, loss, batch
        self.scheduler, self.clip, self.after, self.accumulate, self.steps = scheduler, clip, after, accumulate, steps

    def batches(self):
        """New ones for each look."""
        k = torch.Generator().manual_seed(1)
        while True:
            yield self.batch(k)

    def checked(self):
        """What check finds."""
        arguments = {"scheduler": self.scheduler, "steps": self.steps, "clip": self.clip}
        return thalweg.check(self.model, self.optimizer, loss=self.loss, batches=self.batches(), **arguments).findings

    def watched(self):
        """What watch finds, beside the loop."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with thalweg.watch(self.model, self.optimizer, self.scheduler, steps=self.steps) as w:
                for i, batch in zip(range(STEPS * self.accumulate), w.batches(self.batches()), strict=False):
                    (w.loss(self.loss(self.model, batch)) / self.accumulate).backward()
                    if (i + 1) % self.accumulate == 0:
                        if self.clip:
                            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
                        for one in self.optimizer if isinstance(self.optimizer, list) else [self.optimizer]:
                            one.step()
                            one.zero_grad()
                        if self.scheduler is not None:
                            self.scheduler.step()
                        if self.after:
                            self.after(self)
        return w.findings


def seeded(make):
    torch.manual_seed(0)
    return make()


# -- a GPT ----------------------------------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, width=32, heads=2):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.heads = heads

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (y.view(b, t, self.heads, -1).transpose(1, 2) for y in self.c_attn(self.ln_1(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, c)
        x = x + self.c_proj(y)
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    def __init__(self, vocabulary=17, width=32, places=24, blocks=2):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(places, width)
        self.h = nn.ModuleList(Block(width) for _ in range(blocks))
        self.ln_f, self.lm_head = nn.LayerNorm(width, bias=False), nn.Linear(width, vocabulary, bias=False)
        self.wte.weight = self.lm_head.weight
        for name, p in self.named_parameters():
            if p.ndim > 1:
                nn.init.normal_(p, std=0.02 / (math.sqrt(2 * blocks) if name.endswith("c_proj.weight") else 1))

    def forward(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


def sequences(k, rows=16, length=25):
    """Each token is the one before it times 3 plus noise, modulo 17."""
    ids = torch.randint(0, 17, (rows, 1), generator=k)
    for _ in range(length - 1):
        ids = torch.cat([ids, (3 * ids[:, -1:] + torch.randint(0, 2, (rows, 1), generator=k)) % 17], 1)
    return ids


def next_token(model, ids):
    return F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def decayed(model, lr, **arguments):
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), **arguments)


def warm_cosine(optimizer, steps=STEPS, warmup=6):
    def factor(step):
        if step < warmup:
            return (step + 1) / warmup
        return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1, (step - warmup) / (steps - warmup))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def nano_gpt():
    model = seeded(GPT)
    optimizer = decayed(model, 6e-3)
    return Script(model, optimizer, next_token, sequences, warm_cosine(optimizer), clip=1.0, accumulate=4)


# -- images ---------------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, ins, outs):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(ins, outs, 3, 2, 1, bias=False), nn.BatchNorm2d(outs)
        self.conv2, self.bn2 = nn.Conv2d(outs, outs, 3, 1, 1, bias=False), nn.BatchNorm2d(outs)
        self.down = nn.Conv2d(ins, outs, 1, 2, bias=False)

    def forward(self, x):
        return F.relu(self.down(x) + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


class ResNet(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.layer1, self.layer2 = Residual(3, 16), Residual(16, 32)
        self.fc = nn.Linear(32, classes)

    def forward(self, x):
        return self.fc(self.layer2(self.layer1(x)).mean((2, 3)))


KINDS = torch.randn(4, 3, 12, 12, generator=K)


def pictures(k, rows=32):
    y = torch.randint(0, 4, (rows,), generator=k)
    return KINDS[y] + torch.randn(rows, 3, 12, 12, generator=k), y


def classified(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def pretrained():
    model = seeded(lambda: ResNet(10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    k = torch.Generator().manual_seed(5)
    for _ in range(20):
        x, y = pictures(k)
        optimizer.zero_grad()
        F.cross_entropy(model(x), 2 * y).backward()
        optimizer.step()
    return model


def fine_tuned():
    model = pretrained()
    model.fc = nn.Linear(32, 4)
    body = [p for name, p in model.named_parameters() if not name.startswith("fc")]
    groups = [{"params": body, "lr": 1e-4}, {"params": model.fc.parameters()}]
    optimizer = torch.optim.SGD(groups, lr=1e-3, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 700, 0.1)
    return Script(model, optimizer, classified, pictures, scheduler, steps=1000)


def mixed_up(model, batch):
    """Mixup with label smoothing."""
    x, y = batch
    share = 0.3
    soft = share * F.one_hot(y, 4).float() + (1 - share) * F.one_hot(y.flip(0), 4).float()
    return F.cross_entropy(model(share * x + (1 - share) * x.flip(0)), soft, label_smoothing=0.1)


class ViT(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 4, 4)
        self.cls, self.places = nn.Parameter(torch.zeros(1, 1, 32)), nn.Parameter(torch.zeros(1, 10, 32))
        layer = nn.TransformerEncoderLayer(32, 2, 64, 0.1, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 4)
        nn.init.zeros_(self.head.weight)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.body(x)[:, 0])


def vision_transformer():
    model = seeded(ViT)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    return Script(model, optimizer, mixed_up, pictures, warm_cosine(optimizer))


def dice(model, batch):
    x, _ = batch
    target = (x.mean(1, keepdim=True) > 0.3).float()
    p = model(x).sigmoid()
    overlap = 2 * (p * target).sum((1, 2, 3)) + 1
    return (1 - overlap / (p.sum((1, 2, 3)) + target.sum((1, 2, 3)) + 1)).mean()


def segmentation():
    parts = nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 1, 1)
    model = nn.Sequential(*parts)
    return Script(model, torch.optim.Adam(model.parameters(), 1e-3), dice, pictures)


# -- generators -----------------------------------------------------------------------------------------------------


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(432, 64), nn.ReLU(), nn.Linear(64, 16))
        self.decoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 432))

    def forward(self, x):
        mean, log = self.encoder(x).chunk(2, -1)
        return self.decoder(mean + torch.randn_like(mean) * (0.5 * log).exp()), mean, log


def elbo(model, batch):
    x = batch[0].flatten(1).sigmoid()
    out, mean, log = model(x)
    likely = F.binary_cross_entropy_with_logits(out, x, reduction="sum")
    return likely - 0.5 * (1 + log - mean.pow(2) - log.exp()).sum()


def autoencoder():
    model = seeded(VAE)
    return Script(model, torch.optim.Adam(model.parameters(), 1e-3), elbo, pictures)


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.time, self.into = nn.Embedding(50, 64), nn.Linear(8, 64)
        self.body, self.out = nn.Sequential(nn.SiLU(), nn.Linear(64, 64), nn.SiLU()), nn.Linear(64, 8)

    def forward(self, x, t):
        return self.out(self.body(self.into(x) + self.time(t)))


def noise(model, x):
    t = torch.randint(0, 50, (len(x),))
    kept = torch.cos(t / 50 * math.pi / 2)[:, None]
    eps = torch.randn_like(x)
    return F.mse_loss(model(kept * x + (1 - kept**2).sqrt() * eps, t), eps)


def diffusion():
    model = seeded(Denoiser)
    average = copy.deepcopy(model)

    def after(script):
        for p, q in zip(average.parameters(), script.model.parameters(), strict=True):
            p.data.lerp_(q.data, 0.01)

    batch = lambda k: torch.randn(64, 8, generator=k).cumsum(1) / 2  # noqa: E731
    return Script(model, torch.optim.AdamW(model.parameters(), 1e-3), noise, batch, after=after)


class GAN(nn.Module):
    """A generator; the critic is elsewhere, and trained between."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 64), nn.LeakyReLU(0.2), nn.Linear(64, 2), nn.Tanh())

    def forward(self, z):
        return self.net(z)


def generator():
    model = seeded(GAN)
    critic = nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
    other = torch.optim.Adam(critic.parameters(), 2e-4, betas=(0.5, 0.999))

    def loss(model, z):
        return F.binary_cross_entropy_with_logits(critic(model(z)), torch.ones(len(z), 1))

    def after(script):
        z = torch.randn(32, 8)
        angle = torch.rand(32) * 2 * math.pi
        real = torch.stack([angle.cos(), angle.sin()], 1)
        other.zero_grad()
        out = torch.cat([critic(real), critic(script.model(z).detach())])
        F.binary_cross_entropy_with_logits(out, torch.cat([torch.ones(32, 1), torch.zeros(32, 1)])).backward()
        other.step()

    optimizer = torch.optim.Adam(model.parameters(), 2e-4, betas=(0.5, 0.999))
    return Script(model, optimizer, loss, lambda k: torch.randn(32, 8, generator=k), after=after, steps=5000)


# -- recurrent, reinforced, compared --------------------------------------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self, batch_first=True):
        super().__init__()
        self.embed, self.lstm = nn.Embedding(17, 32), nn.LSTM(32, 48, 2, batch_first=batch_first)
        self.out = nn.Linear(48, 17)

    def forward(self, ids):
        return self.out(self.lstm(self.embed(ids))[0])


def lstm():
    model = seeded(Recurrent)
    return Script(model, torch.optim.SGD(model.parameters(), 5.0), next_token, sequences, clip=0.25)


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.pi, self.v = nn.Linear(64, 3), nn.Linear(64, 1)
        for layer, gain in ((self.pi, 0.01), (self.v, 1.0)):
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        h = self.body(x)
        return self.pi(h), self.v(h).squeeze(-1)


def rollout(k):
    x = torch.randn(64, 6, generator=k)
    action = torch.randint(0, 3, (64,), generator=k)
    gain = (x[:, :3].argmax(1) == action).float()
    return x, action, gain - gain.mean(), gain


def ppo(model, batch):
    x, action, advantage, returns = batch
    logits, value = model(x)
    log = logits.log_softmax(-1)
    ratio = (log.gather(1, action[:, None]).squeeze(1) - math.log(1 / 3)).exp()
    policy = -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
    entropy = -(log.exp() * log).sum(1).mean()
    return policy + 0.5 * F.mse_loss(value, returns) - 0.01 * entropy


def policy():
    model = seeded(ActorCritic)
    return Script(model, torch.optim.Adam(model.parameters(), 2.5e-4, eps=1e-5), ppo, rollout, clip=0.5)


class Q(nn.Module):
    """With the network of its targets in the same module, frozen and copied now and then."""

    def __init__(self):
        super().__init__()
        self.online = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3))
        self.target = copy.deepcopy(self.online).requires_grad_(False)

    def forward(self, x):
        return self.online(x)


def td(model, batch):
    x, action, _, reward = batch
    with torch.no_grad():
        wanted = reward + 0.9 * model.target(x.flip(0)).max(1).values
    return F.smooth_l1_loss(model(x).gather(1, action[:, None]), wanted[:, None])


def q_learning():
    model = seeded(Q)

    def after(script):
        for p, q in zip(script.model.target.parameters(), script.model.online.parameters(), strict=True):
            p.data.lerp_(q.data, 0.05)

    optimizer = torch.optim.AdamW(model.online.parameters(), 1e-3, amsgrad=True)
    return Script(model, optimizer, td, rollout, after=after)


def triplets(k):
    y = torch.randint(0, 4, (32,), generator=k)
    near = [KINDS[y] + 0.3 * torch.randn(32, 3, 12, 12, generator=k) for _ in range(2)]
    return (*near, KINDS[(y + 1) % 4] + 0.3 * torch.randn(32, 3, 12, 12, generator=k))


def triplet(model, batch):
    return F.triplet_margin_loss(*(model(x.flatten(1)) for x in batch), margin=0.5)


def metric():
    """After a few steps no triplet violates the margin: the loss is zero, and so are all gradients."""
    model = seeded(lambda: nn.Sequential(nn.Linear(432, 64), nn.ReLU(), nn.Linear(64, 16)))
    return Script(model, torch.optim.Adam(model.parameters(), 1e-3), triplet, triplets)


class Recommender(nn.Module):
    def __init__(self):
        super().__init__()
        self.users, self.items = nn.Embedding(200, 16, sparse=True), nn.Embedding(300, 16, sparse=True)
        self.mix = nn.Linear(16, 1)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, u, i):
        return self.mix(self.users(u) * self.items(i)).squeeze(-1)


def ratings(k):
    u, i = torch.randint(0, 200, (64,), generator=k), torch.randint(0, 300, (64,), generator=k)
    return u, i, ((u + i) % 3 == 0).float()


def recommended(model, batch):
    return F.binary_cross_entropy_with_logits(model(*batch[:2]), batch[2])


def recommender():
    model = seeded(Recommender)
    tables = [model.users.weight, model.items.weight]
    optimizers = [torch.optim.SparseAdam(tables, 1e-2), torch.optim.AdamW(model.mix.parameters(), 1e-2)]
    return Script(model, optimizers, recommended, ratings)


class Sine(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))

    def forward(self, x):
        return self.net(x)


def physics(model, x):
    """u' = −u with u(0) = 1: a second backward through the first."""
    x = x.clone().requires_grad_(True)
    u = model(x)
    (du,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    return (du + u).pow(2).mean() + (model(torch.zeros(1, 1)) - 1).pow(2).mean()


def informed():
    model = seeded(Sine)
    return Script(model, torch.optim.Adam(model.parameters(), 1e-3), physics, lambda k: torch.rand(64, 1, generator=k))


def spoken(k):
    return torch.randn(30, 8, 12, generator=k), torch.randint(1, 6, (8, 5), generator=k)


def ctc(model, batch):
    x, y = batch
    out = model(x).log_softmax(-1)
    return F.ctc_loss(out, y, torch.full((8,), 30), torch.full((8,), 5))


def speech():
    model = seeded(lambda: nn.Sequential(nn.Linear(12, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 6)))
    return Script(model, torch.optim.AdamW(model.parameters(), 1e-3), ctc, spoken)


HEALTHY = [
    *(nano_gpt, fine_tuned, vision_transformer, segmentation, autoencoder, diffusion, generator, lstm, policy),
    *(q_learning, metric, recommender, informed, speech),
]


@pytest.mark.parametrize("make", HEALTHY)
def test_a_healthy_script_is_left_alone(make):
    assert [(f.cause, f.evidence) for f in make().checked()] == []
    assert [(f.cause, f.evidence) for f in make().watched()] == []


# -- the same, broken -----------------------------------------------------------------------------------------------


def listed():
    """Blocks in a plain list: the model does not know them."""
    script = nano_gpt()
    del script.model.h
    script.model.h = [Block(), Block()]
    script.optimizer = decayed(script.model, 6e-3)
    script.scheduler = None
    return script


def head_made_late():
    script = fine_tuned()
    script.model.fc = nn.Linear(32, 4)
    return script


def backbone_without_gradients():
    """``torch.no_grad`` around a body that is meant to train."""

    def loss(model, batch):
        with torch.no_grad():
            x = model.layer2(model.layer1(batch[0]))
        return F.cross_entropy(model.fc(x.mean((2, 3))), batch[1])

    script = fine_tuned()
    script.loss = loss
    return script


def left_in_eval():
    script = fine_tuned()
    script.model.eval()
    return script


def batch_second():
    """An LSTM with its time first, given batches first: examples are mixed."""
    model = seeded(lambda: Recurrent(batch_first=False))
    return Script(model, torch.optim.SGD(model.parameters(), 5.0), next_token, sequences, clip=0.25)


def bytes_for_pixels():
    def loss(model, batch):
        x = 255 * batch[0].flatten(1).sigmoid()
        out, mean, log = model(x)
        return F.mse_loss(out, x, reduction="sum") - 0.5 * (1 + log - mean.pow(2) - log.exp()).sum()

    script = autoencoder()
    script.loss = loss
    return script


def epochs_for_steps():
    script = vision_transformer()
    script.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(script.optimizer, 5)
    return script


def probabilities_for_logits():
    script = fine_tuned()
    script.loss = lambda model, batch: F.nll_loss(model(batch[0]).softmax(-1), batch[1])
    return script


def policy_at_a_huge_rate():
    script = policy()
    script.optimizer = torch.optim.Adam(script.model.parameters(), 0.3, eps=1e-5)
    return script


def all_masked():
    """A padding mask the wrong way round: rows whose every place is hidden."""
    model = seeded(GPT)
    for block in model.h:
        mask = torch.full((24, 24), -math.inf).triu(0)
        block.forward = lambda x, block=block, mask=mask: (
            x
            + block.c_proj(
                (block.c_attn(block.ln_1(x))[..., :24] @ block.c_attn(block.ln_1(x))[..., :24].mT + mask).softmax(-1)
                @ x
            )
        )
    return Script(model, decayed(model, 6e-3), next_token, sequences)


def clipped_to_nothing():
    script = lstm()
    script.clip = 1e-3
    return script


def reshaped_for_transposed():
    """(batch, classes, places) is made by a view, which mixes classes and places."""

    def loss(model, ids):
        logits = model(ids[:, :-1])
        return F.cross_entropy(logits.view(len(ids), 17, -1), ids[:, 1:])

    script = nano_gpt()
    script.loss = loss
    return script


def huge_decay():
    script = vision_transformer()
    script.optimizer = torch.optim.AdamW(script.model.parameters(), lr=1e-3, weight_decay=300.0)
    script.scheduler = None
    return script


#: how it is broken, what names it, and which of the two ways of looking may miss it
BROKEN = [
    (listed, {"not_registered"}, ()),
    (head_made_late, {"not_in_optimizer"}, ()),
    (backbone_without_gradients, {"no_gradient", "gradient_vanished"}, ()),  # they are left from before
    (left_in_eval, {"mode_eval"}, ()),
    (batch_second, {"examples_leak", "label_visible"}, ("watch",)),
    (bytes_for_pixels, {"inputs_not_scaled"}, ()),
    (epochs_for_steps, {"horizon_too_short", "schedule_raises"}, ()),
    (probabilities_for_logits, {"nll_of_logits"}, ()),
    (policy_at_a_huge_rate, {"lr_too_high"}, ()),
    (all_masked, {"nonfinite_loss"}, ()),
    (clipped_to_nothing, {"clip_always"}, ()),
    (reshaped_for_transposed, {"outputs_reshaped"}, ()),
    (huge_decay, {"decay_dominates", "decay_on_norms"}, ()),
]


@pytest.mark.parametrize(("make", "causes", "missed"), BROKEN)
@pytest.mark.parametrize("way", ["check", "watch"])
def test_a_broken_script_is_named(make, causes, missed, way):
    script = make()
    found = script.checked() if way == "check" else script.watched()
    if way not in missed:
        assert {f.cause for f in found} & causes
    assert {f.cause for f in found} <= causes
