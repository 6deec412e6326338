"""Small models of the kinds that people train."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Gpt(nn.Module):
    """A byte-level GPT with control flow in forward, as symbolic tracing cannot read; returns (logits, loss)."""

    def __init__(self, vocabulary=256, d=16, tied=False):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(vocabulary, d),
                "wpe": nn.Embedding(8, d),
                "h": nn.ModuleList([Block(d) for _ in range(2)]),
                "ln_f": nn.LayerNorm(d),
            }
        )
        self.lm_head = nn.Linear(d, vocabulary, bias=False)
        if tied:
            self.transformer["wte"].weight = self.lm_head.weight

    def forward(self, idx, targets=None):
        if idx.shape[1] > 8:
            raise ValueError("too long")
        x = self.transformer["wte"](idx) + self.transformer["wpe"](torch.arange(idx.shape[1]))
        for block in self.transformer["h"]:
            x = block(x)
        logits = self.lm_head(self.transformer["ln_f"](x))
        return logits, None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())


class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x):
        q, k, v = self.qkv(self.ln_1(x)).chunk(3, -1)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return x + self.down(F.gelu(self.up(self.ln_2(x))))


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.policy, self.value = nn.Linear(8, 3), nn.Linear(8, 1)  # registered before the body
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())

    def forward(self, x):
        x = self.body(x)
        return {"policy": self.policy(x).softmax(-1), "value": self.value(x)}


class HeadFirst(nn.Module):
    """Registers its head first and runs it last; its forward branches on a value."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 2)
        self.body = nn.Linear(4, 8)

    def forward(self, x):
        if x.sum() > 1e9:
            x = x * 2
        return self.head(torch.relu(self.body(x)))


class Residual(nn.Module):
    """Ends in a residual block, without a head."""

    def __init__(self):
        super().__init__()
        self.a = nn.ModuleList([nn.Linear(4, 8), nn.Linear(4, 8)])
        self.b = nn.ModuleList([nn.Linear(8, 4), nn.Linear(8, 4)])

    def forward(self, x):
        for a, b in zip(self.a, self.b, strict=True):
            x = x + b(torch.relu(a(x)))
        return x


class OwnMatrix(nn.Module):
    """A hand-made linear layer, learned positions, and a table that is looked up by index."""

    def __init__(self, branches=False):
        super().__init__()
        self.branches = branches
        self.table = nn.Parameter(torch.randn(10, 6))
        self.position = nn.Parameter(torch.randn(5, 6))
        self.weight = nn.Parameter(torch.randn(6, 6))
        self.out = nn.Linear(6, 3)

    def forward(self, idx):
        if self.branches and idx.sum() < 0:
            return self.out(self.table[idx])
        x = self.table[idx] + self.position
        return self.out(torch.tanh(x @ self.weight.t()))


class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.lstm = nn.LSTM(6, 8, batch_first=True)
        self.head = nn.Linear(8, 20)

    def forward(self, idx):
        return self.head(self.lstm(self.embedding(idx))[0])


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10),
    )  # fmt: skip


def mlp():
    return nn.Sequential(nn.Linear(4, 8), nn.RMSNorm(8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0])


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.encoder(x))


def autoencoder():
    return nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 6), nn.Sigmoid())


class UNet(nn.Module):
    """Skips by concatenation, and, at the end, by addition of the input."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 2, 1)
        self.up = nn.ConvTranspose2d(4, 4, 2, 2)
        self.merge, self.out = nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(4, 1, 1)

    def forward(self, x):
        high = F.relu(self.down1(x))
        low = self.up(F.relu(self.down2(high)))
        return x + self.out(F.relu(self.merge(torch.cat([high, low], 1))))


class Positions(nn.Module):
    """Learned positions of any shape, longer than the sample, and a class token, in front of residual blocks."""

    def __init__(self, shape):
        super().__init__()
        self.position = nn.Parameter(torch.randn(*shape, 6))
        self.token = nn.Parameter(torch.randn(1, 1, 6))
        self.embedding = nn.Embedding(10, 6)
        self.blocks = Residual6()
        self.head = nn.Linear(6, 3)

    def forward(self, idx):
        x = self.embedding(idx) + self.position[..., : idx.shape[1], :]
        x = torch.cat([self.token.expand(idx.shape[0], -1, -1), x], 1)
        return self.head(F.layer_norm(self.blocks(x), (6,)))


class Residual6(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 12), nn.Linear(12, 6)

    def forward(self, x):
        return x + self.down(F.relu(self.up(x)))


class Masked(nn.Linear):
    """A linear layer whose weight meets a mask before it meets activations."""

    def __init__(self, fan_in, fan_out):
        super().__init__(fan_in, fan_out)
        self.register_buffer("mask", torch.ones(fan_out, fan_in).tril())

    def forward(self, x):
        return F.linear(x, self.weight * self.mask, self.bias)


class Own(nn.Module):
    """A linear layer of one's own, as (in, out)."""

    def __init__(self, fan_in, fan_out):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(fan_in, fan_out))

    def forward(self, x):
        return x @ self.kernel


class Noisy(nn.Module):
    """A weight that is drawn anew in each step, also in evaluation."""

    def __init__(self, fan_in, fan_out):
        super().__init__()
        self.mean = nn.Parameter(torch.randn(fan_out, fan_in))
        self.scale = nn.Parameter(torch.randn(fan_out, fan_in))

    def forward(self, x):
        return F.linear(x, self.mean + self.scale * torch.randn_like(self.mean))


class LowRank(nn.Module):
    """A frozen matrix and a low-rank update that is trained."""

    def __init__(self, fan_in, fan_out):
        super().__init__()
        self.base = nn.Linear(fan_in, fan_out)
        self.base.requires_grad_(False)
        self.a, self.b = nn.Parameter(torch.randn(2, fan_in)), nn.Parameter(torch.randn(fan_out, 2))

    def forward(self, x):
        return F.linear(x, self.base.weight + self.b @ self.a, self.base.bias)


class Latents(nn.Module):
    """Learned queries, which linear layers act on as on activations."""

    def __init__(self):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(3, 4))
        self.norm = nn.LayerNorm(4)
        self.q, self.k, self.v = nn.Linear(4, 4, bias=False), nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        q = self.q(self.norm(self.latents))
        return self.head(F.scaled_dot_product_attention(q, self.k(x), self.v(x)))


class TiedTable(nn.Module):
    """One table of one's own that is looked up first and multiplied with last."""

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(10, 6))
        self.body = nn.Linear(6, 6)

    def forward(self, idx):
        return torch.tanh(self.body(self.table[idx])) @ self.table.t()


class TiedByUse(nn.Module):
    """The head's weight, looked up: tied without an embedding module."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 10, bias=False)
        self.body = nn.Linear(6, 6)

    def forward(self, idx):
        return self.head(torch.tanh(self.body(F.embedding(idx, self.head.weight))))


class Scaled(nn.Module):
    """What scales activations one by one, a stack of expert matrices, and a bilinear output."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Parameter(torch.ones(3, 6))
        self.gain = nn.Parameter(torch.ones(1, 6))
        self.experts = nn.Parameter(torch.randn(2, 6, 6))
        self.out = nn.Bilinear(6, 6, 3)

    def forward(self, x):
        x = torch.einsum("bti,hij->bthj", x * self.gate * self.gain, self.experts).sum(2)
        return self.out(x, x)


class Vae(nn.Module):
    """Returns what it reconstructs and two layers on the way to it."""

    def __init__(self):
        super().__init__()
        self.encode, self.mean, self.spread = nn.Linear(8, 6), nn.Linear(6, 2), nn.Linear(6, 2)
        self.decode = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 8))

    def forward(self, x):
        h = torch.tanh(self.encode(x))
        mean, spread = self.mean(h), self.spread(h).exp()
        return self.decode(mean + spread * torch.randn_like(spread)), mean, spread


class LossWithPenalty(nn.Module):
    """Returns nothing but a loss, to which a router in its middle adds a term."""

    def __init__(self):
        super().__init__()
        self.body, self.router, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        h = torch.tanh(self.body(x))
        gates = self.router(h).softmax(-1)
        return F.mse_loss(self.head(h * gates), x[:, :2]) + 0.1 * (gates.mean(0) ** 2).sum()


class Restless(nn.Module):
    """Changes itself, its buffers, its weights, its input and the random state whenever it runs."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 6, max_norm=0.1)
        self.norm = nn.BatchNorm1d(6, affine=False, momentum=None)
        self.head = nn.Linear(6, 3)
        self.register_buffer("count", torch.zeros(()))
        self.calls, self.log, self.last = 0, [], None

    def forward(self, idx):
        self.calls += 1
        self.log.append(self.calls)
        self.count += 1
        self.count = self.count + 1
        idx.clamp_(0, 3)
        self.last = self.head(self.norm(self.embedding(idx)) + torch.rand(6))
        self.head.weight.data.mul_(2)
        return self.last


class Opaque(nn.Module):
    """A matrix that enters code which autograd cannot see into."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(Product.apply(x, self.kernel))


class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, kernel):
        return x @ kernel

    @staticmethod
    def backward(ctx, grad):
        return grad, None


class Headed(nn.Module):
    """A body of one or two inputs with a head."""

    def __init__(self, body, d):
        super().__init__()
        self.head = nn.Linear(d, 3)
        self.body = body

    def forward(self, x, y=None):
        return self.head(self.body(x) if y is None else self.body(x, y))


class Skip(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        return x + self.inner(x)


class Branches(nn.Sequential):
    """Layers in a row with control flow, which symbolic tracing cannot read."""

    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


class BareAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


class LearnedImage(nn.Module):
    """A learned image that a convolution acts on as on activations, as in StyleGAN."""

    def __init__(self):
        super().__init__()
        self.image = nn.Parameter(torch.randn(1, 4, 4, 4))
        self.conv = nn.Conv2d(4, 4, 1, bias=False)
        self.out = nn.Conv2d(4, 1, 1)

    def forward(self, x):
        return self.out(self.conv(self.image) * x[:, :, None, None])


class Sliced(nn.Module):
    """Uses as much of its kernel as the input is wide."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(9, 5))
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        return self.head(torch.tanh(x @ self.kernel[: x.shape[-1]]))


@torch.fx.wrap
def wrapped_product(x, kernel):
    """What ``torch.fx`` does not look into."""
    return x @ kernel


class Wrapped(nn.Module):
    """A matrix that enters a function of another file."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 4))
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(wrapped_product(x, self.kernel))


class TinyRMSNorm(nn.Module):
    """A norm of one's own, as every model on Hugging Face's hub has one."""

    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x):
        return x * x.square().mean(-1, keepdim=True).add(1e-6).rsqrt() * self.weight


class GroupedRMSNorm(TinyRMSNorm):
    """A norm whose gain is a matrix, which its name alone gives away."""

    def forward(self, x):
        groups = x.unflatten(-1, self.weight.shape)
        return super().forward(groups).flatten(-2)


class Llama(nn.Module):
    """As in transformers: model.layers.0.self_attn.q_proj, rotary positions left out, an output that may be tied."""

    def __init__(self, d=16, layers=3, vocabulary=32, tied=False):
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(vocabulary, d)
        self.model.layers = nn.ModuleList([LlamaDecoderLayer(d) for _ in range(layers)])
        self.model.norm = TinyRMSNorm(d)
        self.lm_head = nn.Linear(d, vocabulary, bias=False)
        if tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(self, input_ids):
        x = self.model.embed_tokens(input_ids)
        for layer in self.model.layers:
            x = layer(x)
        return self.lm_head(self.model.norm(x))


class LlamaDecoderLayer(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.self_attn, self.mlp = nn.Module(), nn.Module()
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self.self_attn, name, nn.Linear(d, d, bias=False))
        self.self_attn.qk_norm = GroupedRMSNorm((2, d // 2))
        self.mlp.gate_proj, self.mlp.up_proj = nn.Linear(d, 2 * d, bias=False), nn.Linear(d, 2 * d, bias=False)
        self.mlp.down_proj = nn.Linear(2 * d, d, bias=False)
        self.input_layernorm, self.post_attention_layernorm = TinyRMSNorm(d), TinyRMSNorm(d)

    def forward(self, x):
        attn, mlp, h = self.self_attn, self.mlp, self.input_layernorm(x)
        q, k, v = attn.qk_norm(attn.q_proj(h)), attn.qk_norm(attn.k_proj(h)), attn.v_proj(h)
        x = x + attn.o_proj(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        h = self.post_attention_layernorm(x)
        return x + mlp.down_proj(F.silu(mlp.gate_proj(h)) * mlp.up_proj(h))


class Vit(nn.Module):
    """As in timm: patches, a class token, learned positions, blocks in nn.Sequential, a scale for each layer."""

    def __init__(self, d=16, layers=3):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, d))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 5, d))
        self.patch_embed = nn.Conv2d(3, d, 4, 4)
        self.blocks = nn.Sequential(*(VitBlock(d) for _ in range(layers)))
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, 10)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class VitBlock(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attn = nn.MultiheadAttention(d, 2, batch_first=True)
        self.gamma = nn.Parameter(torch.ones(d))
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

    def forward(self, x):
        h = self.norm1(x)
        x = x + self.gamma * self.attn(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class ResNet(nn.Module):
    """As in torchvision: a stem, stages of blocks, the first of one block alone, and a head."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(BasicBlock(4, 4))
        self.layer2 = nn.Sequential(BasicBlock(4, 8), BasicBlock(8, 8))
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x)))))
        return self.fc(x.mean((2, 3)))


class BasicBlock(nn.Module):
    def __init__(self, fan_in, fan_out):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(fan_in, fan_out, 3, padding=1, bias=False), nn.BatchNorm2d(fan_out)
        self.conv2, self.bn2 = nn.Conv2d(fan_out, fan_out, 3, padding=1, bias=False), nn.BatchNorm2d(fan_out)
        self.downsample = nn.Sequential(nn.Conv2d(fan_in, fan_out, 1, bias=False), nn.BatchNorm2d(fan_out))

    def forward(self, x):
        return F.relu(self.downsample(x) + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))


def unseen(model):
    """The model as one of which no forward pass can be seen without a sample: it does not say what it takes."""

    class Unseen(type(model)):
        def forward(self, *given):
            return super().forward(given[0])

    model.__class__ = Unseen
    return model


class Mixture(nn.Module):
    """Stacks of expert matrices with biases, of which no module tells what they are, chosen by control flow."""

    def __init__(self, d=8):
        super().__init__()
        self.layers = nn.ModuleList([Experts(d) for _ in range(2)])
        self.head = nn.Linear(d, 3)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x) if x.sum() < 1e9 else x
        return self.head(x)


class Experts(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.router = nn.Linear(d, 2)
        self.up = nn.Parameter(torch.randn(2, d, 2 * d))
        self.up_bias = nn.Parameter(torch.zeros(2, 2 * d))
        self.down = nn.Parameter(torch.randn(2, 2 * d, d))

    def forward(self, x):
        h = torch.einsum("bi,eio->beo", x, self.up) + self.up_bias
        return x + torch.einsum("beo,eoi,be->bi", F.relu(h), self.down, self.router(x).softmax(-1))


class Auxiliary(nn.Module):
    """A classifier in the middle that runs in training alone, as GoogLeNet and Inception have them."""

    def __init__(self, always=False):
        super().__init__()
        self.always = always
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.aux = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10))
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        aux = self.aux(x) if self.training else None
        y = self.fc(torch.relu(self.body(x)).mean((2, 3)))
        return (y, aux) if self.training else y


class Tasks(nn.Module):
    """A head for each task, of which a pass takes one."""

    def __init__(self, deep=False):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8))
        make = (
            (lambda n: nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, n)))
            if deep
            else (lambda n: nn.Linear(8, n))
        )
        self.heads = nn.ModuleDict({name: make(n) for name, n in zip("abc", (3, 8, 5), strict=True)})

    def forward(self, x, task="a"):
        return self.heads[task](self.body(x))


class ActorCritic(nn.Module):
    """Returns a distribution and a value; its heads are registered before its body."""

    def __init__(self, distribution=torch.distributions.Categorical):
        super().__init__()
        self.value, self.policy = nn.Linear(8, 1), nn.Linear(8, 3)
        self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.distribution = distribution

    def forward(self, x):
        h = self.body(x)
        if self.distribution is torch.distributions.Categorical:
            return self.distribution(logits=self.policy(h)), self.value(h)
        return self.distribution(self.policy(h), torch.ones(3)), self.value(h)


class Depthwise(nn.Module):
    """Kernels that filter each channel by itself, of torch's modules and hand-made."""

    def __init__(self):
        super().__init__()
        self.stem, self.filter, self.mix = (
            nn.Conv2d(3, 8, 3),
            nn.Conv2d(8, 8, 3, groups=8),
            nn.Conv2d(8, 8, 1, groups=2),
        )
        self.up, self.own = nn.ConvTranspose2d(8, 8, 2, groups=8), nn.Parameter(torch.randn(8, 1, 3, 3))
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = F.conv2d(self.up(self.mix(self.filter(self.stem(x)))), self.own, groups=8)
        return self.head(x.mean((2, 3)))


class Pairs(nn.Module):
    """Takes two inputs that are alike, looks at values, and has its head first."""

    def __init__(self):
        super().__init__()
        self.head, self.body = nn.Linear(8, 2), nn.Linear(4, 8)

    def forward(self, x, y, scale=1.0):
        return self.head(torch.tanh(self.body(x) - self.body(y))) if x.sum() < 1e9 else y


class Picks(nn.Module):
    """Picks a matrix from a stack by an index that the input decides, and a row of a table."""

    def __init__(self):
        super().__init__()
        self.first, self.gate = nn.Linear(4, 6), nn.Linear(6, 3)
        self.experts, self.bias = nn.Parameter(torch.randn(3, 6, 6)), nn.Parameter(torch.randn(3, 6))
        self.out = nn.Linear(6, 2)

    def forward(self, x):
        x = self.first(x)
        gates = self.gate(x).softmax(-1)
        best = gates.argmax(-1)
        x = torch.bmm(x[:, None], self.experts[best])[:, 0] + self.bias[best]
        return self.out(x * gates.amax(-1, keepdim=True))


class Standardized(nn.Conv2d):
    """A convolution that normalises its kernel, with a gain for each channel, as NFNet's."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

    def forward(self, x):
        return self._conv_forward(x, self.weight / self.weight.std((1, 2, 3), keepdim=True) * self.gain, self.bias)


class Ensemble(nn.Module):
    """Several nets at once, whose biases are part of their products, and a parameter without elements."""

    def __init__(self, n=3):
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.randn(n, *shape) / 2) for shape in ((4, 6), (6, 6)))
        self.first_bias, self.second_bias = nn.Parameter(torch.zeros(n, 6)), nn.Parameter(torch.zeros(n, 6))
        self.nothing, self.head = nn.Parameter(torch.zeros(2, 0, 5)), nn.Linear(6, 2)

    def forward(self, x):
        y = torch.baddbmm(self.first_bias[:, None], x.expand(len(self.first), -1, -1), self.first).relu()
        return self.head(torch.baddbmm(self.second_bias[:, None], y, self.second).mean(0))


class Fourier(nn.Module):
    """A layer that multiplies frequencies by complex matrices, and a complex linear layer."""

    def __init__(self, d=6, n=3):
        super().__init__()
        self.enter, self.modes = nn.Linear(2, d), nn.Parameter(torch.randn(n, d, d, dtype=torch.cfloat) / 2)
        self.turn, self.head = nn.Linear(d, d, dtype=torch.cfloat), nn.Linear(d, 1)

    def forward(self, x):
        x = self.enter(x)
        f = torch.fft.rfft(x, dim=1)[:, : len(self.modes)]
        f = self.turn(torch.einsum("bmi,mio->bmo", f, self.modes))
        return self.head(x + torch.fft.irfft(f, n=x.shape[1], dim=1))
