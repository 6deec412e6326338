"""Stand-ins for models of ``transformers``: the same protocol, and the same traps, without the package."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F


class ModelOutput(OrderedDict):
    """What such models return."""

    __getattr__ = OrderedDict.__getitem__


class Pretrained(nn.Module):
    """Has a ``config``, says what its main input is called, and has an example of it."""

    main_input_name = "input_ids"

    def __init__(self, **config):
        super().__init__()
        self.config = SimpleNamespace(**{"hidden_size": 8, **config})

    @property
    def dummy_inputs(self):
        return {"input_ids": torch.tensor([[7, 6, 0, 0, 1], [1, 2, 3, 0, 0], [0, 0, 0, 4, 5]])}

    def get_output_embeddings(self):
        return getattr(self, "lm_head", None)


class Conv1D(nn.Module):
    """GPT-2's linear layer: (in, out)."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf = nf
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.zeros(nf))

    def forward(self, x):
        size = (*x.size()[:-1], self.nf)
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(size)


class Layer(nn.Module):
    def __init__(self, d, linear):
        super().__init__()
        self.ln = nn.LayerNorm(d)
        self.c_attn, self.c_proj = linear(3 * d, d), linear(d, d)

    def forward(self, x):
        q, k, v = self.c_attn(self.ln(x)).split(x.shape[-1], dim=-1)
        return x + self.c_proj(F.scaled_dot_product_attention(q, k, v)), (k, v)


class GPT2(Pretrained):
    """Made of Conv1D; returns logits and a cache of keys and values that its layers have made."""

    def __init__(self, tied=True, conv=True, d=8):
        super().__init__(vocab_size=20)
        linear = Conv1D if conv else (lambda nf, nx: nn.Linear(nx, nf))
        self.wte, self.wpe = nn.Embedding(20, d), nn.Embedding(16, d)
        self.h, self.ln_f = nn.ModuleList([Layer(d, linear) for _ in range(2)]), nn.LayerNorm(d)
        self.lm_head = nn.Linear(d, 20, bias=False)
        if tied:
            self.lm_head.weight = self.wte.weight

    def forward(self, input_ids=None, labels=None, use_cache=True, **kwargs):
        if (input_ids < 0).any() or input_ids.shape[1] > 16:
            raise ValueError("indices")
        x, cache = self.wte(input_ids) + self.wpe(torch.arange(input_ids.shape[1], device=input_ids.device)), []
        for layer in self.h:
            x, kept = layer(x)
            cache.append(kept)
        return ModelOutput(logits=self.lm_head(self.ln_f(x)), past_key_values=SimpleNamespace(layers=cache))


class Pretraining(Pretrained):
    """BERT's two heads: one tied, one of the pooled state, and registered before the body."""

    def __init__(self, d=8):
        super().__init__(vocab_size=20)
        self.seq_relationship = nn.Linear(d, 2)
        self.decoder = nn.Linear(d, 20)
        self.embedding, self.layer, self.pooler = nn.Embedding(20, d), nn.Linear(d, d), nn.Linear(d, d)
        self.transform = nn.Linear(d, d)
        self.decoder.weight = self.embedding.weight

    def get_output_embeddings(self):
        return self.decoder

    def forward(self, input_ids=None, labels=None):
        if input_ids is None:
            raise ValueError("You have to specify input_ids")
        x = F.gelu(self.layer(self.embedding(input_ids)))
        pooled = torch.tanh(self.pooler(x[:, 0]))
        return ModelOutput(
            prediction_logits=self.decoder(F.gelu(self.transform(x))),
            seq_relationship_logits=self.seq_relationship(pooled),
        )


class Clip(Pretrained):
    """Two towers whose projections meet in a product of activations."""

    def __init__(self, d=8):
        super().__init__(
            text_config=SimpleNamespace(vocab_size=20), vision_config=SimpleNamespace(image_size=16, num_channels=3)
        )
        self.text_projection, self.visual_projection = nn.Linear(d, 4, bias=False), nn.Linear(d, 4, bias=False)
        self.embedding, self.text = nn.Embedding(20, d), nn.Linear(d, d)
        self.patches, self.vision = nn.Conv2d(3, d, 8, 8), nn.Linear(d, d)
        self.logit_scale = nn.Parameter(torch.tensor(2.6))

    def forward(self, input_ids=None, pixel_values=None, return_loss=None):
        if pixel_values.shape[-1] != 16:
            raise ValueError("image size")
        text = self.text_projection(torch.tanh(self.text(self.embedding(input_ids)))[:, -1])
        image = self.patches(pixel_values).flatten(2).mean(-1)
        image = self.visual_projection(torch.tanh(self.vision(image)))
        text, image = (x / x.norm(dim=-1, keepdim=True) for x in (text, image))
        logits = self.logit_scale.exp() * text @ image.t()
        return ModelOutput(logits_per_text=logits, logits_per_image=logits.t(), text_embeds=text, image_embeds=image)


class Detection(Pretrained):
    """DETR: two heads on a decoder that begins with learned queries."""

    main_input_name = "pixel_values"

    def __init__(self, d=8):
        super().__init__(num_channels=3, is_encoder_decoder=True)
        self.class_labels_classifier = nn.Linear(d, 4)
        self.bbox_predictor = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, 4))
        self.queries, self.backbone = nn.Embedding(5, d), nn.Conv2d(3, d, 16, 16)
        self.q, self.k, self.v = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)

    def forward(self, pixel_values, pixel_mask=None, labels=None):
        x = self.backbone(pixel_values).flatten(2).transpose(1, 2)
        q = self.q(self.queries.weight.unsqueeze(0).repeat(x.shape[0], 1, 1))
        x = F.scaled_dot_product_attention(q, self.k(x), self.v(x))
        return ModelOutput(logits=self.class_labels_classifier(x), pred_boxes=self.bbox_predictor(x).sigmoid())


class Seq2Seq(Pretrained):
    """T5: an encoder, and a decoder that needs an input of its own."""

    def __init__(self, d=8):
        super().__init__(vocab_size=20, is_encoder_decoder=True)
        self.lm_head = nn.Linear(d, 20, bias=False)
        self.shared, self.encoder, self.decoder = nn.Embedding(20, d), nn.Linear(d, d), nn.Linear(d, d)
        self.k = nn.Linear(d, d)

    def forward(self, input_ids=None, decoder_input_ids=None):
        if decoder_input_ids is None:
            raise ValueError("You have to specify decoder_input_ids")
        memory = torch.tanh(self.encoder(self.shared(input_ids)))
        x = torch.tanh(self.decoder(self.shared(decoder_input_ids)))
        x = F.scaled_dot_product_attention(x, self.k(memory), memory)
        return ModelOutput(logits=self.lm_head(x), encoder_last_hidden_state=memory)


class Experts(Pretrained):
    """Stacks of matrices, of which an index picks one at a time, by values, as Mixtral has them."""

    def __init__(self, d=8, n=4):
        super().__init__(vocab_size=20)
        self.embed_tokens, self.gate = nn.Embedding(20, d), nn.Parameter(torch.randn(n, d))
        self.gate_up_proj, self.down_proj = (nn.Parameter(torch.randn(n, a, b)) for a, b in ((2 * d, d), (d, d)))
        self.lm_head = nn.Linear(d, 20, bias=False)

    def forward(self, input_ids=None):
        x = self.embed_tokens(input_ids).flatten(0, 1)
        weights = F.linear(x, self.gate).softmax(-1)
        chosen = F.one_hot(weights.topk(2).indices, weights.shape[-1]).permute(2, 1, 0)
        out = torch.zeros_like(x)
        for expert in (chosen.sum((-1, -2)) > 0).nonzero():
            i = expert[0]
            _, tokens = torch.where(chosen[i])
            gate, up = F.linear(x[tokens], self.gate_up_proj[i]).chunk(2, dim=-1)
            made = F.linear(F.silu(gate) * up, self.down_proj[i]) * weights[tokens, i, None]
            out.index_add_(0, tokens, made)
        return ModelOutput(logits=self.lm_head(x + out))


class Mamba(Pretrained):
    """A state space: rates of decay, a skip, and a convolution of each channel by itself."""

    def __init__(self, d=8, n=4):
        super().__init__(vocab_size=20)
        self.embeddings, self.in_proj, self.out_proj = nn.Embedding(20, d), nn.Linear(d, 2 * d), nn.Linear(d, d)
        self.conv1d = nn.Conv1d(d, d, 4, groups=d, padding=3)
        self.x_proj, self.dt_proj = nn.Linear(d, 2 + 2 * n, bias=False), nn.Linear(2, d)
        self.A_log, self.D = nn.Parameter(torch.arange(1.0, n + 1).log().repeat(d, 1)), nn.Parameter(torch.ones(d))
        self.dt_bias = nn.Parameter(torch.zeros(d, 1))
        self.lm_head = nn.Linear(d, 20, bias=False)
        self.lm_head.weight = self.embeddings.weight
        self.n = n

    def forward(self, input_ids=None):
        h = self.embeddings(input_ids)
        x, gate = self.in_proj(h).transpose(1, 2).chunk(2, dim=1)
        x = F.silu(self.conv1d(x)[..., : x.shape[-1]])
        dt, b, c = self.x_proj(x.transpose(1, 2)).split([2, self.n, self.n], dim=-1)
        dt = F.softplus(self.dt_proj(dt).transpose(1, 2) + self.dt_bias)
        decay = torch.exp(-torch.exp(self.A_log)[None, :, None, :] * dt[..., None])
        state, out = torch.zeros_like(decay[:, :, 0]), []
        for i in range(x.shape[-1]):
            state = decay[:, :, i] * state + dt[:, :, i, None] * b[:, None, i] * x[:, :, i, None]
            out.append((state * c[:, None, i]).sum(-1))
        y = (torch.stack(out, -1) + x * self.D[:, None]) * F.silu(gate)
        return ModelOutput(logits=self.lm_head(h + self.out_proj(y.transpose(1, 2))))


class Blind(Pretrained):
    """One that no example suits; what makes its output it can say."""

    def __init__(self, d=8):
        super().__init__()
        self.lm_head, self.body = nn.Linear(d, 20, bias=False), nn.Linear(d, d)
        self.heads = nn.ModuleDict({"a": nn.Linear(d, 2)})

    def forward(self, states, actions):
        return self.lm_head(self.body(states) if actions.sum() > 0 else states)


#: model, heads, what is embedded beside nn.Embedding, "other", without a sample and with one
TABLE = {
    "gpt2": (GPT2, "", "", ""),
    "gpt2 untied": (lambda: GPT2(tied=False), "lm_head.weight", "", ""),
    "gpt2 of linear layers": (lambda: GPT2(conv=False, tied=False), "lm_head.weight", "", ""),
    "bert pretraining": (Pretraining, "seq_relationship.weight", "", ""),
    "clip": (Clip, "text_projection.weight visual_projection.weight", "", ""),
    "detr": (Detection, "class_labels_classifier.weight bbox_predictor.2.weight", "", ""),
    "t5": (Seq2Seq, "lm_head.weight", "", ""),
    "mixtral": (Experts, "lm_head.weight", "", "gate_up_proj down_proj"),
    "mamba": (Mamba, "", "", "conv1d.weight"),
}
