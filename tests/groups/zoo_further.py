"""Further architectures: stacks of gates, learned queries, pictures among words, state spaces beside attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tests.groups import zoo
from tests.groups.zoo import HEADS, IDS, INNER, SYMBOLS, D, Row, Shapes, attention, experts, kinds, of_hub, of_timm

SQUARE, NARROW, UP, DOWN, WIDE, BACK = zoo.SQUARE, zoo.NARROW, zoo.UP, zoo.DOWN, zoo.WIDE, zoo.BACK
GROUPED, SIZES, LLAMA, MLP, TOKENS = zoo.GROUPED, zoo.SIZES, zoo.LLAMA, zoo.MLP, zoo.TOKENS
THREE = [SQUARE] * 3
HEAD = {**TOKENS, "lm_head": "head"}
TWO_LAYERS = {**GROUPED, "num_hidden_layers": 2}
GATED = {"gate_proj": [UP], "up_proj": [UP], "down_proj": [DOWN]}
STATES = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 2, "mamba_d_state": 4, "mamba_expand": 2}


def llava() -> tuple[nn.Module, Any]:
    """Words and a picture of four patches, each in the place of one word."""
    import transformers

    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**GROUPED), image_token_index=63, vision_feature_layer=-1,
        vision_config=transformers.CLIPVisionConfig(**zoo.CLIP, image_size=16, patch_size=8),
    )  # fmt: skip
    ids = torch.ones(1, 10, dtype=torch.long)
    ids[0, 1:5] = 63
    return transformers.LlavaForConditionalGeneration(config), {
        "input_ids": ids,
        "pixel_values": torch.randn(1, 3, 16, 16),
    }


def qwen_vl() -> tuple[nn.Module, Any]:
    import transformers

    vision = {"depth": 1, "embed_dim": D, "hidden_size": D, "num_heads": HEADS, "mlp_ratio": 2, "patch_size": 4}
    text = {**GROUPED, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}}
    tokens = {"image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62, "vision_end_token_id": 63}
    ids = torch.tensor([[1, 62, 60, 60, 60, 60, 63, 2]])
    given = {
        "input_ids": ids, "pixel_values": torch.randn(16, 3 * 2 * 4 * 4), "image_grid_thw": torch.tensor([[1, 4, 4]]),
        "mm_token_type_ids": (ids == 60).int(),
    }  # fmt: skip
    config = transformers.Qwen2VLConfig(text_config=text, vision_config=vision, **tokens)
    return transformers.Qwen2VLForConditionalGeneration(config), given


def perceiver_layer(place: str, given: int, queries: int, inner: int) -> dict[str, Shapes]:
    """Attention and perceptron of a layer: its keys and values are of what is given, its queries of its own."""
    return {
        f"{place}.attention.self.query": [(inner, queries)], f"{place}.attention.self.key": [(inner, given)],
        f"{place}.attention.self.value": [(queries, given)], f"{place}.attention.output.dense": [(queries, queries)],
        f"{place}.mlp.dense1": [(queries, queries)], f"{place}.mlp.dense2": [(queries, queries)],
    }  # fmt: skip


HUB = {
    "Qwen2-MoE": Row(
        of_hub("Qwen2MoeForCausalLM", **GROUPED, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
               shared_expert_intermediate_size=24),
        {**attention(), "mlp.gate": [(4, D)], **experts(4, 16), **zoo.SHARED_EXPERT, "shared_expert_gate": [(1, D)]},
        HEAD,
    ),
    "Granite-MoE": Row(
        of_hub("GraniteMoeForCausalLM", **GROUPED, num_local_experts=3, num_experts_per_tok=2),
        {**attention(), "router": [(3, D)], **experts(3, INNER)},
        HEAD,
    ),
    "DeepSeek-V2": Row(
        of_hub("DeepseekV2ForCausalLM", **{**GROUPED, "num_key_value_heads": HEADS}, **zoo.LATENT, **zoo.SPARSE,
               n_shared_experts=1, n_group=1, topk_group=1, head_dim=4),
        {
            "q_a_proj": [NARROW], "q_b_proj": [(48, 16)], "kv_a_proj_with_mqa": [NARROW, (4, D)],
            "kv_b_proj": [(D, 16)] * 2, "o_proj": [SQUARE], "mlp.gate": [(4, D)], **experts(4, 16),
            **{f"shared_experts.{one}_proj": [NARROW] for one in ("gate", "up")}, "shared_experts.down_proj": [(D, 16)],
        },
        HEAD,
    ),
    "RecurrentGemma": Row(  # gates of each of four blocks of channels, with biases in the same product
        of_hub("RecurrentGemmaForCausalLM", **{**SIZES, "num_hidden_layers": 2}, intermediate_size=2 * INNER,
               head_dim=8, lru_width=D, block_types=["recurrent", "attention"], attention_window_size=16,
               pad_token_id=0),
        {
            **{f"linear_{one}": [SQUARE] for one in ("x", "y", "out")}, **attention(narrow=False), **GATED,
            "input_gate_weight": [(8, 8)] * 4, "recurrent_gate_weight": [(8, 8)] * 4,
        },
        {**TOKENS, **kinds(other="conv_1d", embedding="input_gate_bias recurrent_gate_bias")},
    ),
    "LFM2": Row(  # two gates around a convolution of each channel
        of_hub("Lfm2ForCausalLM", **TWO_LAYERS, layer_types=["conv", "full_attention"], pad_token_id=0,
               block_auto_adjust_ff_dim=False),
        {
            **attention("out_proj"), "conv.in_proj": THREE, "conv.out_proj": [SQUARE], "w1": [UP], "w3": [UP],
            "w2": [DOWN],
        },
        {**TOKENS, "conv.conv": "other"},
    ),
    "Bamba": Row(
        of_hub("BambaForCausalLM", **TWO_LAYERS, **STATES, attn_layer_indices=[1], pad_token_id=0),
        {**LLAMA, "mamba.in_proj": [UP, UP, (8, D), (8, D), (8, D)], "mamba.out_proj": [DOWN]},
        {**HEAD, "conv1d": "other"},
    ),
    "Jamba": Row(
        of_hub("JambaForCausalLM", **TWO_LAYERS, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2,
               expert_layer_offset=1, num_experts=3, num_experts_per_tok=1, mamba_d_state=4, mamba_dt_rank=2),
        {
            **attention(), **GATED, "router": [(3, D)], **experts(3, INNER), "in_proj": [UP] * 2,
            "x_proj": [(2, INNER), (4, INNER), (4, INNER)], "dt_proj": [(INNER, 2)], "mamba.out_proj": [DOWN],
        },
        {**HEAD, "conv1d": "other"},
    ),
    "MiniMax": Row(  # a layer of linear attention, in blocks of places
        of_hub("MiniMaxForCausalLM", **TWO_LAYERS, head_dim=8, num_local_experts=3, num_experts_per_tok=2, block_size=8,
               layer_types=["linear_attention", "full_attention"]),
        {
            **attention(), "qkv_proj": THREE, "out_proj": [SQUARE], "output_gate": [SQUARE], "mlp.gate": [(3, D)],
            **experts(3, INNER),
        },
        HEAD,
    ),
    "SegFormer": Row(
        of_hub("SegformerForSemanticSegmentation", num_encoder_blocks=1, depths=[1], sr_ratios=[2], hidden_sizes=[D],
               patch_sizes=[7], strides=[4], num_attention_heads=[HEADS], mlp_ratios=[2], decoder_hidden_size=24,
               image_size=32, num_labels=5),
        {
            **attention(narrow=False), **MLP, "patch_embeddings.proj": [(D, 3 * 49)],
            "sequence_reduction": [(D, 4 * D)],
            "linear_projections.0.proj": [(24, D)], "linear_fuse": [(24, 24)],
        },
        kinds(other="dwconv", head="classifier"),
    ),
    "Perceiver": Row(  # queries that are parameters, once for the latents and once for the output
        of_hub("PerceiverForMaskedLM", num_latents=4, d_latents=16, d_model=D, num_blocks=1, qk_channels=24,
               num_self_attends_per_block=1, num_self_attention_heads=2, num_cross_attention_heads=2, v_channels=16,
               vocab_size=SYMBOLS, max_position_embeddings=8),
        {
            **perceiver_layer("encoder.cross_attention", D, 16, 24), **perceiver_layer("self_attends.0", 16, 16, 24),
            **perceiver_layer("decoder.decoding_cross_attention", 16, D, 256),
        },
        kinds(embedding="input_preprocessor.embeddings position_embeddings latents"),
    ),
    "YOLOS": Row(  # a parameter without elements
        of_hub("YolosForObjectDetection", hidden_size=D, num_hidden_layers=1, num_attention_heads=HEADS,
               intermediate_size=INNER, image_size=[32, 32], patch_size=8, num_detection_tokens=4, num_labels=3),
        {
            **{f"attention.{one}": [SQUARE] for one in ("query", "key", "value", "output.dense")},
            "intermediate.dense": [UP], "0.output.dense": [DOWN], "projection": [(D, 192)],
            **{f"{one}.layers.{i}": [SQUARE] for one in ("class_labels_classifier", "bbox_predictor") for i in (0, 1)},
        },
        kinds(embedding="detection_tokens embeddings.position_embeddings",
              head="class_labels_classifier.layers.2 bbox_predictor.layers.2"),
    ),
    "SAM, its eye": Row(
        of_hub("SamVisionModel", hidden_size=D, num_hidden_layers=1, num_attention_heads=HEADS, image_size=64,
               patch_size=16, mlp_dim=INNER, output_channels=16, window_size=2, global_attn_indexes=[0]),
        {
            "qkv": THREE, "attn.proj": [SQUARE], "lin1": [UP], "lin2": [DOWN], "projection": [(D, 3 * 256)],
            "neck.conv1": [(16, D)],
        },
        kinds(embedding="pos_embed rel_pos_h rel_pos_w", head="neck.conv2"),
    ),
    "LLaVA": Row(
        llava,
        {
            **{f"vision_tower.encoder.layers.0.self_attn.{one}_proj": [SQUARE] for one in ("q", "k", "v", "out")},
            **LLAMA, **MLP, "patch_embedding": [(D, 192)], "linear_1": [SQUARE], "linear_2": [SQUARE],
        },
        {**HEAD, "position_embedding": "embedding"},
    ),
    "Qwen2-VL": Row(
        qwen_vl,
        {
            **LLAMA, **MLP, "attn.qkv": THREE, "attn.proj": [SQUARE], "patch_embed.proj": [(D, 96)],
            "merger.mlp.0": [(4 * D, 4 * D)], "merger.mlp.2": [BACK],
        },
        HEAD,
    ),
}  # fmt: skip

TIMM = {
    "timm cait": Row(  # heads are mixed before and after the softmax
        of_timm("cait_xxs24_224", 32, depth=1, depth_token_only=1, embed_dim=D, num_heads=HEADS, img_size=32),
        {
            "attn.qkv": THREE, "attn.proj": [SQUARE], "proj_l": [(4, 4)], "proj_w": [(4, 4)], "fc1": [WIDE],
            "fc2": [BACK], **{f"attn.{one}": [SQUARE] for one in "qkv"}, "patch_embed.proj": [(D, 768)],
        },
        kinds(embedding="pos_embed", head="head"),
    ),
    "timm xcit": Row(
        of_timm("xcit_nano_12_p16_224", 32, depth=1, embed_dim=D, num_heads=HEADS),
        {
            "proj.0.0": [(4, 27)], "proj.2.0": [(8, 36)], "proj.4.0": [(16, 72)], "proj.6.0": [(32, 144)],
            "token_projection": [UP[::-1]], "qkv": THREE, "attn.proj": [SQUARE], "fc1": [WIDE], "fc2": [BACK],
            **{f"attn.{one}": [SQUARE] for one in "qkv"},
        },
        kinds(other="local_mp.conv1 local_mp.conv2", head="head"),
    ),
}  # fmt: skip


class Net(nn.Module):
    """A body between an embedding and a head."""

    def __init__(self, forward: Any, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.emb, self.head, self.run = nn.Embedding(SYMBOLS, D), nn.Linear(D, SYMBOLS), forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, i: torch.Tensor) -> torch.Tensor:
        return self.head(self.run(self, self.emb(i)))


def heads(x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def flux(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Attention and perceptron beside each other, from one weight and into one weight."""
    qkv, inner = s.enter(x).split([3 * D, INNER], -1)
    q, k, v = qkv.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(F.rms_norm(q, (8,)), F.rms_norm(k, (8,)), v).transpose(1, 2).flatten(2)
    return x + s.leave(torch.cat([y, F.gelu(inner)], -1))


def sparse(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Three attentions with one query, each with keys and values of its own, and a gate for each and each head."""
    q, kv = heads(s.q(x)), s.kv(x).view(*x.shape[:2], 3, 2, HEADS, -1).permute(2, 3, 0, 4, 1, 5)
    gate = s.gate(x).sigmoid().view(*x.shape[:2], HEADS, 3).permute(3, 0, 2, 1)[..., None]
    y = sum(g * F.scaled_dot_product_attention(q, k, v) for g, (k, v) in zip(gate, kv, strict=True))
    return s.out(y.transpose(1, 2).flatten(2))


def differing(s: Any, x: torch.Tensor) -> torch.Tensor:
    """Differential attention: the scores of one pair of queries and keys less those of another."""
    one, other = (
        (heads(q) @ heads(k).mT).softmax(-1) for q, k in zip(s.q(x).chunk(2, -1), s.k(x).chunk(2, -1), strict=True)
    )
    return s.out(((one - s.less * other) @ heads(s.v(x))).transpose(1, 2).flatten(2))


class Recommender(nn.Module):
    """DLRM: bags of features and numbers, of which the products of all pairs go on."""

    def __init__(self) -> None:
        super().__init__()
        self.bags = nn.ModuleList(nn.EmbeddingBag(20, 16, mode="sum") for _ in range(3))
        self.bottom = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU())
        self.top = nn.Sequential(nn.Linear(22, 24), nn.ReLU(), nn.Linear(24, 1))

    def forward(self, numbers: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        x = self.bottom(numbers)
        z = torch.stack([x, *(bag(features[:, i]) for i, bag in enumerate(self.bags))], 1)
        i, j = torch.tril_indices(4, 4, -1)
        return self.top(torch.cat([x, (z @ z.mT)[:, i, j]], 1)).sigmoid()


def linear(taken: int, given: int) -> nn.Linear:
    return nn.Linear(taken, given)


ENDS = kinds(embedding="emb", head="head")
TORCH = {
    "FLUX, a single block": Row(
        lambda: (Net(flux, enter=linear(D, 3 * D + INNER), leave=linear(D + INNER, D)), IDS),
        {"enter": [*THREE, UP], "leave": [(D, D + INNER)]},
        ENDS,
    ),
    "three attentions in one": Row(
        lambda: (Net(sparse, q=linear(D, D), kv=linear(D, 6 * D), gate=linear(D, 12), out=linear(D, D)), IDS),
        {"q": [SQUARE], "kv": [SQUARE] * 6, "gate": [(12, D)], "out": [SQUARE]},
        ENDS,
    ),
    "differential attention": Row(
        lambda: (
            Net(
                differing, q=linear(D, 2 * D), k=linear(D, 2 * D), v=linear(D, D), out=linear(D, D),
                less=nn.Parameter(torch.tensor(0.8)),
            ),
            IDS,
        ),
        {"q": [SQUARE] * 2, "k": [SQUARE] * 2, "v": [SQUARE], "out": [SQUARE]},
        ENDS,
    ),
    "DLRM": Row(
        lambda: (Recommender(), (torch.randn(4, 8), torch.randint(0, 20, (4, 3, 2)))),
        {"bottom.0": [(24, 8)], "bottom.2": [(16, 24)], "top.0": [(24, 22)]},
        kinds(embedding="bags.0 bags.1 bags.2", head="top.2"),
    ),
}  # fmt: skip
