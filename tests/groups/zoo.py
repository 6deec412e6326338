"""Real architectures from small configurations, and what their parameters are, written by hand from the architectures.

What a line says stands for every parameter whose name ends so (without ``.weight``): hidden weights with the (out, in)
shapes of their matrices, then the others by kind; whatever no line names is a vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

#: numbers of a position, of a perceptron's inside, of keys and values where two heads share them; heads, symbols
D, INNER, SHARED, HEADS, SYMBOLS = 32, 64, 16, 4, 64
SQUARE, NARROW, UP, DOWN, WIDE, BACK = (D, D), (SHARED, D), (INNER, D), (D, INNER), (4 * D, D), (D, 4 * D)
Shapes = list[tuple[int, int]]


@dataclass(frozen=True)
class Row:
    """One architecture.

    Attributes:
        make: gives the model, and an input where it has none of its own.
        hidden: matrices by the end of a weight's name.
        others: kinds by the end of a name.
    """

    make: Callable[[], tuple[nn.Module, Any]]
    hidden: dict[str, Shapes]
    others: dict[str, str] = field(default_factory=dict)


def kinds(**names: str) -> dict[str, str]:
    return {name: kind for kind, listed in names.items() for name in listed.split()}


# -- transformers -----------------------------------------------------------------------------------------------------

SIZES = {"hidden_size": D, "num_hidden_layers": 1, "num_attention_heads": HEADS, "vocab_size": SYMBOLS}
GROUPED = {**SIZES, "intermediate_size": INNER, "num_key_value_heads": 2, "max_position_embeddings": 64}
OLD = {"n_embd": D, "n_layer": 1, "n_head": HEADS, "vocab_size": SYMBOLS}
ENDS = {"bos_token_id": 1, "eos_token_id": 2}
PADDED = {**ENDS, "pad_token_id": 0}
IMAGES = {"num_hidden_layers": 1, "num_attention_heads": HEADS, "image_size": 16, "patch_size": 8}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
SPARSE = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "first_k_dense_replace": 0}


def of_hub(name: str, **settings: Any) -> Callable[[], tuple[nn.Module, Any]]:
    def make() -> tuple[nn.Module, Any]:
        import transformers

        model_type = getattr(transformers, name)
        return model_type(model_type.config_class(**settings)), None

    return make


def attention(o: str = "o_proj", narrow: bool = True) -> dict[str, Shapes]:
    kv = NARROW if narrow else SQUARE
    return {"q_proj": [SQUARE], "k_proj": [kv], "v_proj": [kv], o: [SQUARE]}


LLAMA = {**attention(), "gate_proj": [UP], "up_proj": [UP], "down_proj": [DOWN]}
TOKENS = {"embed_tokens": "embedding"}
BERT = {
    **{name: [SQUARE] for name in ("query", "key", "value", "attention.output.dense", "transform.dense")},
    "intermediate.dense": [UP],
    "0.output.dense": [DOWN],
}
T5 = {
    **{f"Attention.{one}": [SQUARE] for one in "qkvo"},
    "wi": [UP], "wo": [DOWN],
}  # fmt: skip
FALCON = {"self_attention.dense": [SQUARE], "dense_h_to_4h": [WIDE], "dense_4h_to_h": [BACK]}
MLP = {"fc1": [UP], "fc2": [DOWN]}
CLIP = {"hidden_size": D, "intermediate_size": INNER, "num_hidden_layers": 1, "num_attention_heads": HEADS}


def clip() -> tuple[nn.Module, Any]:
    import transformers

    text = {**CLIP, **PADDED, "vocab_size": SYMBOLS, "max_position_embeddings": 16}
    vision = {**CLIP, "image_size": 16, "patch_size": 8}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    return transformers.CLIPModel(config), None


def dbrx() -> tuple[nn.Module, Any]:
    import transformers

    attention = {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0}
    experts = {"ffn_hidden_size": INNER, "moe_num_experts": 2, "moe_top_k": 1}
    sizes = {"d_model": D, "n_heads": HEADS, "n_layers": 1, "vocab_size": SYMBOLS, "max_seq_len": 32}
    return transformers.DbrxForCausalLM(
        transformers.DbrxConfig(**sizes, attn_config=attention, ffn_config=experts)
    ), None


def detr() -> tuple[nn.Module, Any]:
    import transformers

    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic", out_features=["stage1"]
    )
    sides = {f"{side}_{what}": n for side in ("encoder", "decoder")
             for what, n in (("layers", 1), ("attention_heads", HEADS), ("ffn_dim", INNER))}  # fmt: skip
    config = transformers.DetrConfig(
        use_timm_backbone=False, backbone=None, use_pretrained_backbone=False, backbone_config=backbone, d_model=D,
        num_queries=5, num_labels=3, **sides,
    )  # fmt: skip
    return transformers.DetrForObjectDetection(config), {"pixel_values": torch.randn(2, 3, 64, 64)}


def xlnet() -> tuple[nn.Module, Any]:
    model, _ = of_hub("XLNetLMHeadModel", d_model=D, n_layer=1, n_head=HEADS, d_inner=INNER, vocab_size=SYMBOLS)()
    return model, {"input_ids": IDS, "token_type_ids": IDS % 2}


def experts(count: int, inner: int) -> dict[str, Shapes]:
    return {"gate_up_proj": [(inner, D)] * 2 * count, "experts.down_proj": [(D, inner)] * count}


SHARED_EXPERT = {f"shared_expert.{one}_proj": [(24, D)] for one in ("gate", "up")} | {
    "shared_expert.down_proj": [(D, 24)]
}

IDS = torch.arange(12).view(2, 6)
HUB = {
    "GPT-2": Row(
        of_hub("GPT2LMHeadModel", **OLD, **ENDS),
        {"c_attn": [SQUARE] * 3, "attn.c_proj": [SQUARE], "c_fc": [WIDE], "mlp.c_proj": [BACK]},
        kinds(embedding="wte wpe"),
    ),
    "Llama": Row(of_hub("LlamaForCausalLM", **GROUPED), LLAMA, {**TOKENS, "lm_head": "head"}),
    "Mistral": Row(of_hub("MistralForCausalLM", **GROUPED), LLAMA, {**TOKENS, "lm_head": "head"}),
    "Qwen3": Row(of_hub("Qwen3ForCausalLM", **GROUPED, head_dim=8), LLAMA, {**TOKENS, "lm_head": "head"}),
    "Qwen3-MoE": Row(
        of_hub(
            "Qwen3MoeForCausalLM", **GROUPED, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
        ),
        {**attention(), "mlp.gate": [(4, D)], "gate_up_proj": [(16, D)] * 8, "down_proj": [(D, 16)] * 4},
        {**TOKENS, "lm_head": "head"},
    ),
    "Mixtral": Row(
        of_hub("MixtralForCausalLM", **GROUPED, num_local_experts=3),
        {**attention(), "mlp.gate": [(3, D)], "gate_up_proj": [UP] * 6, "down_proj": [DOWN] * 3},
        {**TOKENS, "lm_head": "head"},
    ),
    "Gemma": Row(of_hub("GemmaForCausalLM", **GROUPED, head_dim=8), LLAMA, TOKENS),
    "Phi-3": Row(
        of_hub("Phi3ForCausalLM", **GROUPED, pad_token_id=0, eos_token_id=2),
        {"qkv_proj": [SQUARE, NARROW, NARROW], "o_proj": [SQUARE], "gate_up_proj": [UP] * 2, "down_proj": [DOWN]},
        {**TOKENS, "lm_head": "head"},
    ),
    "GPT-NeoX": Row(
        of_hub("GPTNeoXForCausalLM", **SIZES, intermediate_size=INNER),
        {"query_key_value": [SQUARE] * 3, "dense": [SQUARE], "dense_h_to_4h": [UP], "dense_4h_to_h": [DOWN]},
        kinds(embedding="embed_in", head="lm_head"),
    ),
    "Falcon": Row(
        of_hub("FalconForCausalLM", **SIZES, **ENDS, new_decoder_architecture=True, num_kv_heads=2),
        {"query_key_value": [SQUARE, NARROW, NARROW], **FALCON},
        kinds(embedding="word_embeddings"),
    ),
    "Falcon, one key and value": Row(
        of_hub("FalconForCausalLM", **SIZES, **ENDS),
        {"query_key_value": [SQUARE, (8, D), (8, D)], **FALCON},
        kinds(embedding="word_embeddings"),
    ),
    "BERT": Row(
        of_hub("BertForMaskedLM", **SIZES, intermediate_size=INNER),
        BERT,
        kinds(embedding="word_embeddings position_embeddings token_type_embeddings"),
    ),
    "T5": Row(
        of_hub("T5ForConditionalGeneration", d_model=D, d_kv=8, d_ff=INNER, num_layers=1, num_heads=HEADS,
               vocab_size=SYMBOLS),
        T5,
        kinds(embedding="shared relative_attention_bias"),
    ),
    "ViT": Row(
        of_hub("ViTForImageClassification", hidden_size=D, intermediate_size=INNER, **IMAGES),
        {**attention(narrow=False), **MLP, "projection": [(D, 3 * 8 * 8)]},
        kinds(embedding="position_embeddings", head="classifier"),
    ),
    "Swin": Row(
        of_hub(
            "SwinForImageClassification", embed_dim=16, depths=[1, 1], num_heads=[2, 4], image_size=32, patch_size=4,
            window_size=4,
        ),
        {
            **{f"layers.0.blocks.0.attention.{one}_proj": [(16, 16)] for one in "qkvo"},
            **{f"layers.1.blocks.0.attention.{one}_proj": [(32, 32)] for one in "qkvo"},
            "layers.0.blocks.0.mlp.fc1": [(64, 16)], "layers.0.blocks.0.mlp.fc2": [(16, 64)],
            "layers.1.blocks.0.mlp.fc1": [(128, 32)], "layers.1.blocks.0.mlp.fc2": [(32, 128)],
            "projection": [(16, 3 * 4 * 4)], "reduction": [(32, 64)],
        },
        kinds(embedding="relative_position_bias_table", head="classifier"),
    ),
    "ConvNeXt": Row(
        of_hub("ConvNextForImageClassification", hidden_sizes=[16, 32], depths=[1, 1], num_stages=2, image_size=32),
        {
            "patch_embeddings": [(16, 3 * 4 * 4)], "downsampling_layer.1": [(32, 16 * 2 * 2)],
            "stages.0.layers.0.pwconv1": [(64, 16)], "stages.0.layers.0.pwconv2": [(16, 64)],
            "stages.1.layers.0.pwconv1": [(128, 32)], "stages.1.layers.0.pwconv2": [(32, 128)],
        },
        kinds(other="dwconv", head="classifier"),
    ),
    "Mamba": Row(
        of_hub("MambaForCausalLM", hidden_size=D, num_hidden_layers=1, vocab_size=SYMBOLS, state_size=4),
        {
            "in_proj": [UP] * 2, "x_proj": [(2, INNER), (4, INNER), (4, INNER)], "dt_proj": [(INNER, 2)],
            "out_proj": [DOWN],
        },
        kinds(embedding="embeddings", other="conv1d"),
    ),
    "Whisper": Row(
        of_hub(
            "WhisperForConditionalGeneration", d_model=D, encoder_layers=1, decoder_layers=1, num_mel_bins=8,
            encoder_attention_heads=HEADS, decoder_attention_heads=HEADS, encoder_ffn_dim=INNER, decoder_ffn_dim=INNER,
            vocab_size=SYMBOLS, max_source_positions=32, max_target_positions=16, decoder_start_token_id=1, **PADDED,
        ),
        {**attention("out_proj", narrow=False), **MLP, "conv1": [(D, 8 * 3)], "conv2": [(D, D * 3)]},
        kinds(embedding="embed_tokens decoder.embed_positions"),
    ),
    "CLIP": Row(
        clip,
        {**attention("out_proj", narrow=False), **MLP, "patch_embedding": [(D, 3 * 8 * 8)]},
        kinds(embedding="token_embedding position_embedding", head="visual_projection text_projection"),
    ),
    # beyond the list that was promised
    "BLOOM": Row(
        of_hub("BloomForCausalLM", hidden_size=D, n_layer=1, n_head=HEADS, vocab_size=SYMBOLS),
        {"query_key_value": [SQUARE] * 3, **FALCON},
        kinds(embedding="word_embeddings"),
    ),
    "OPT": Row(
        of_hub("OPTForCausalLM", **SIZES, ffn_dim=INNER, max_position_embeddings=32, word_embed_proj_dim=D),
        {**attention("out_proj", narrow=False), **MLP},
        kinds(embedding="embed_tokens embed_positions"),
    ),
    "GPT-J": Row(
        of_hub("GPTJForCausalLM", **OLD, **ENDS, rotary_dim=4),
        {**attention("out_proj", narrow=False), "fc_in": [WIDE], "fc_out": [BACK]},
        kinds(embedding="wte", head="lm_head"),
    ),
    "GPT-OSS": Row(
        of_hub("GptOssForCausalLM", **GROUPED, head_dim=8, num_local_experts=4, num_experts_per_tok=2),
        {**attention(), "router": [(4, D)], "gate_up_proj": [UP] * 8, "down_proj": [DOWN] * 4},
        {**TOKENS, "lm_head": "head", "gate_up_proj_bias": "embedding", "down_proj_bias": "embedding"},
    ),
    "DeepSeek-V3": Row(
        of_hub("DeepseekV3ForCausalLM", **{**GROUPED, "num_key_value_heads": HEADS}, **LATENT, **SPARSE,
               n_shared_experts=1, n_group=1, topk_group=1),
        {
            "q_a_proj": [NARROW], "q_b_proj": [(48, 16)], "kv_a_proj_with_mqa": [NARROW, (4, D)],
            "kv_b_proj": [(D, 16)] * 2, "o_proj": [SQUARE], "mlp.gate": [(4, D)], "gate_up_proj": [(16, D)] * 8,
            "experts.down_proj": [(D, 16)] * 4, "shared_experts.gate_proj": [(16, D)],
            "shared_experts.up_proj": [(16, D)], "shared_experts.down_proj": [(D, 16)],
        },
        {**TOKENS, "lm_head": "head"},
    ),
    "DBRX": Row(
        dbrx,
        {
            "Wqkv": [SQUARE, NARROW, NARROW], "out_proj": [SQUARE], "router.layer": [(2, D)],
            "w1": [UP] * 2, "v1": [UP] * 2, "w2": [DOWN] * 2,
        },
        kinds(embedding="wte", head="lm_head"),
    ),
    "Swin v2": Row(
        of_hub("Swinv2ForImageClassification", embed_dim=16, depths=[1], num_heads=[2], image_size=16, patch_size=4,
               window_size=4),
        {
            **{f"self.{one}": [(16, 16)] for one in ("query", "key", "value")}, "attention.output.dense": [(16, 16)],
            "intermediate.dense": [(64, 16)], "blocks.0.output.dense": [(16, 64)], "projection": [(16, 3 * 4 * 4)],
            "mlp.0": [(512, 2)], "mlp.2": [(2, 512)],
        },
        kinds(head="classifier"),
    ),
    "DeBERTa": Row(
        of_hub("DebertaForMaskedLM", **SIZES, intermediate_size=INNER, relative_attention=True,
               pos_att_type=["c2p", "p2c"], max_position_embeddings=32),
        {
            "self.in_proj": [SQUARE] * 3, "pos_proj": [SQUARE], "pos_q_proj": [SQUARE],
            **{end: held for end, held in BERT.items() if end.endswith("dense")},
        },
        kinds(embedding="word_embeddings position_embeddings rel_embeddings"),
    ),
    "Mamba 2": Row(
        of_hub("Mamba2ForCausalLM", hidden_size=D, num_hidden_layers=1, vocab_size=SYMBOLS, state_size=4, head_dim=8,
               num_heads=8, n_groups=2, expand=2),
        {"in_proj": [UP, UP, (8, D), (8, D), (8, D)], "out_proj": [DOWN]},
        kinds(embedding="embeddings", other="conv1d", head="lm_head"),
    ),
    "DETR": Row(  # queries begin at zero
        detr,
        {
            **attention(narrow=False), **MLP, "input_projection": [(D, 8)],
            "bbox_predictor.layers.0": [SQUARE], "bbox_predictor.layers.1": [SQUARE],
        },
        kinds(embedding="query_position_embeddings", head="class_labels_classifier bbox_predictor.layers.2"),
    ),
    "XLNet": Row(
        xlnet,
        {
            **{f"rel_attn.{one}": [SQUARE] for one in "qkvor"}, "seg_embed": [(2, 8)] * HEADS,
            "layer_1": [UP], "layer_2": [DOWN],
        },
        kinds(embedding="word_embedding r_r_bias r_s_bias r_w_bias"),
    ),
    "CodeGen": Row(  # query, value and key in each of four parts
        of_hub("CodeGenForCausalLM", **OLD, **ENDS, rotary_dim=4, n_positions=32, n_ctx=32),
        {"qkv_proj": [SQUARE] * 3, "out_proj": [SQUARE], "fc_in": [WIDE], "fc_out": [BACK]},
        kinds(embedding="wte", head="lm_head"),
    ),
    "GPT-BigCode": Row(
        of_hub("GPTBigCodeForCausalLM", **OLD, **ENDS, multi_query=True),
        {"c_attn": [SQUARE, (8, D), (8, D)], "attn.c_proj": [SQUARE], "c_fc": [WIDE], "mlp.c_proj": [BACK]},
        kinds(embedding="wte wpe"),
    ),
    "ModernBERT": Row(
        of_hub("ModernBertForMaskedLM", **SIZES, **PADDED, intermediate_size=INNER, cls_token_id=3, sep_token_id=4,
               max_position_embeddings=32),
        {"Wqkv": [SQUARE] * 3, "attn.Wo": [SQUARE], "Wi": [UP] * 2, "mlp.Wo": [DOWN], "head.dense": [SQUARE]},
        kinds(embedding="tok_embeddings"),
    ),
    "Qwen3-Next": Row(
        of_hub("Qwen3NextForCausalLM", **{**GROUPED, "num_hidden_layers": 2}, head_dim=8, num_experts=3,
               layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2, linear_num_value_heads=4,
               linear_key_head_dim=8, linear_value_head_dim=8, num_experts_per_tok=2, moe_intermediate_size=16,
               shared_expert_intermediate_size=24, decoder_sparse_step=1),
        {
            **attention(), "q_proj": [SQUARE] * 2, "mlp.gate": [(3, D)], **experts(3, 16), **SHARED_EXPERT,
            "shared_expert_gate": [(1, D)], "in_proj_qkvz": [NARROW, NARROW, SQUARE, SQUARE],
            "in_proj_ba": [(4, D)] * 2, "linear_attn.out_proj": [SQUARE],
        },
        {**TOKENS, "lm_head": "head", "conv1d": "other"},
    ),
    "Llama-4": Row(
        of_hub("Llama4ForCausalLM", **{**GROUPED, "intermediate_size": 24}, intermediate_size_mlp=INNER, head_dim=8,
               num_local_experts=3, num_experts_per_tok=1, interleave_moe_layer_step=1, pad_token_id=0),
        {**attention(), "router": [(3, D)], **experts(3, 24), **SHARED_EXPERT},
        {**TOKENS, "lm_head": "head"},
    ),
}  # fmt: skip


# -- timm -------------------------------------------------------------------------------------------------------------


def of_timm(name: str, size: int, **settings: Any) -> Callable[[], tuple[nn.Module, Any]]:
    def make() -> tuple[nn.Module, Any]:
        import timm

        return timm.create_model(name, num_classes=5, **settings), torch.randn(2, 3, size, size)

    return make


def mobile(*stages: tuple[str, int, int, int]) -> dict[str, Shapes]:
    """Inverted residuals: what is expanded, squeezed and projected, by (block, in, inside, out)."""
    found: dict[str, Shapes] = {}
    for block, taken, inside, out in stages:
        if inside != taken:
            found[f"{block}.conv_pw"] = [(inside, taken)]
        found[f"{block}.conv_pwl"] = [(out, inside)]
    return found


TIMM = {
    "timm vit": Row(
        of_timm("vit_tiny_patch16_224", 32, depth=1, embed_dim=D, num_heads=HEADS, img_size=32),
        {"qkv": [SQUARE] * 3, "attn.proj": [SQUARE], "fc1": [WIDE], "fc2": [BACK], "patch_embed.proj": [(D, 768)]},
        kinds(embedding="pos_embed", head="head"),
    ),
    "timm convnext": Row(
        of_timm("convnext_atto", 64, depths=(1, 1, 1, 1), dims=(16, 16, 32, 32)),
        {
            "stem.0": [(16, 48)], "stages.1.downsample.1": [(16, 64)], "stages.2.downsample.1": [(32, 64)],
            "stages.3.downsample.1": [(32, 128)],
            **{f"stages.{i}.blocks.0.mlp.fc1": [(64, 16)] for i in (0, 1)},
            **{f"stages.{i}.blocks.0.mlp.fc2": [(16, 64)] for i in (0, 1)},
            **{f"stages.{i}.blocks.0.mlp.fc1": [(128, 32)] for i in (2, 3)},
            **{f"stages.{i}.blocks.0.mlp.fc2": [(32, 128)] for i in (2, 3)},
        },
        kinds(other="conv_dw", head="head.fc"),
    ),
    "timm mobilenet": Row(
        of_timm("mobilenetv2_050", 32),
        {
            "conv_stem": [(16, 27)], "conv_head": [(1280, 160)], "blocks.0.0.conv_pw": [(8, 16)],
            **mobile(
                ("blocks.1.0", 8, 48, 16), ("blocks.1.1", 16, 96, 16), ("blocks.2.0", 16, 96, 16),
                ("blocks.2.1", 16, 96, 16), ("blocks.2.2", 16, 96, 16), ("blocks.3.0", 16, 96, 32),
                ("blocks.3.1", 32, 192, 32), ("blocks.3.2", 32, 192, 32), ("blocks.3.3", 32, 192, 32),
                ("blocks.4.0", 32, 192, 48), ("blocks.4.1", 48, 288, 48), ("blocks.4.2", 48, 288, 48),
                ("blocks.5.0", 48, 288, 80), ("blocks.5.1", 80, 480, 80), ("blocks.5.2", 80, 480, 80),
                ("blocks.6.0", 80, 480, 160),
            ),
        },
        kinds(other="conv_dw", head="classifier"),
    ),
    "timm maxvit": Row(  # its table of positions is picked from by products with ones and zeros
        of_timm("maxvit_tiny_tf_224", 64, depths=(1,), embed_dim=(32,), img_size=64, stem_width=16),
        {
            "stem.conv1": [(16, 27)], "stem.conv2": [(16, 144)], "expand": [(32, 16)], "conv1_1x1": [(128, 16)],
            "se.fc1": [(8, 128)], "se.fc2": [(128, 8)], "conv3_1x1": [(32, 128)], "qkv": [SQUARE] * 3,
            "attn.proj": [SQUARE], "mlp.fc1": [WIDE], "mlp.fc2": [BACK], "pre_logits.fc": [(512, 32)],
        },
        kinds(other="conv2_kxk relative_position_bias_table", head="head.fc"),
    ),
    "timm eva": Row(
        of_timm("eva02_tiny_patch14_224", 28, depth=1, embed_dim=D, num_heads=HEADS, img_size=28),
        {
            "qkv": [SQUARE] * 3, "attn.proj": [SQUARE], "fc1": [(85, D)] * 2, "fc2": [(D, 85)],
            "patch_embed.proj": [(D, 588)],
        },
        kinds(embedding="pos_embed", head="head"),
    ),
}  # fmt: skip


# -- torch alone ------------------------------------------------------------------------------------------------------


class Sequences(nn.Module):
    """Encoder and decoder of torch between an embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.emb, self.head = nn.Embedding(SYMBOLS, D), nn.Linear(D, SYMBOLS)
        self.body = nn.Transformer(D, HEADS, 1, 1, INNER, batch_first=True)

    def forward(self, i: torch.Tensor) -> torch.Tensor:
        x = self.emb(i)
        return self.head(self.body(x, x))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb, self.head = nn.Embedding(SYMBOLS, D), nn.Linear(D, SYMBOLS)
        self.body = nn.LSTM(D, D, num_layers=2, bidirectional=True, proj_size=16, batch_first=True)

    def forward(self, i: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.emb(i))[0])


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.middle, self.up = nn.Conv2d(16, 16, 3, padding=1), nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.join, self.leave = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shallow = F.relu(self.enter(x))
        deep = F.relu(self.middle(F.relu(self.down(shallow))))
        return self.leave(F.relu(self.join(torch.cat([shallow, self.up(deep)], 1))))


class Nano(nn.Module):
    """nanoGPT: q, k and v in one weight, the output tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe, self.lm_head = (
            nn.Embedding(SYMBOLS, D),
            nn.Embedding(16, D),
            nn.Linear(D, SYMBOLS, bias=False),
        )
        self.lm_head.weight = self.wte.weight
        self.c_attn, self.c_proj = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.c_fc, self.back = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)
        self.ln = nn.LayerNorm(D)

    def forward(self, i: torch.Tensor) -> torch.Tensor:
        x = self.wte(i) + self.wpe(torch.arange(i.shape[1]))
        q, k, v = (z.unflatten(-1, (HEADS, -1)).transpose(1, 2) for z in self.c_attn(self.ln(x)).split(D, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.c_proj(y)
        return self.lm_head(x + self.back(F.gelu(self.c_fc(x))))


class Mixer(nn.Module):
    """Perceptrons across patches and across channels in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.head = nn.Conv2d(3, D, 8, stride=8), nn.Linear(D, 5)
        self.token_in, self.token_out = nn.Linear(16, 24), nn.Linear(24, 16)
        self.channel_in, self.channel_out = nn.Linear(D, INNER), nn.Linear(INNER, D)
        self.ln = nn.LayerNorm(D)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.token_out(F.gelu(self.token_in(self.ln(x).transpose(1, 2)))).transpose(1, 2)
        x = x + self.channel_out(F.gelu(self.channel_in(self.ln(x))))
        return self.head(x.mean(1))


def adapted() -> tuple[nn.Module, Any]:
    """LoRA on GPT-2's fused weight and on its perceptron: only the pairs are trained."""
    import peft

    model, _ = of_hub("GPT2LMHeadModel", **OLD, **ENDS)()
    config = peft.LoraConfig(r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    return peft.get_peft_model(model, config), torch.arange(6).view(2, 3)


TORCH = {
    "nn.Transformer": Row(
        lambda: (Sequences(), IDS),
        {"in_proj_weight": [SQUARE] * 3, "out_proj": [SQUARE], "linear1": [UP], "linear2": [DOWN]},
        kinds(embedding="emb", head="head"),
    ),
    "nn.LSTM": Row(
        lambda: (Recurrent(), IDS),
        {
            **{f"weight_ih_l{end}": [SQUARE] * 4 for end in ("0", "0_reverse", "1", "1_reverse")},
            **{f"weight_hh_l{end}": [(D, 16)] * 4 for end in ("0", "0_reverse", "1", "1_reverse")},
            **{f"weight_hr_l{end}": [(16, D)] for end in ("0", "0_reverse", "1", "1_reverse")},
        },
        kinds(embedding="emb", head="head"),
    ),
    "U-Net": Row(
        lambda: (UNet(), torch.randn(2, 3, 8, 8)),
        {
            "enter": [(8, 27)], "down": [(16, 72)], "middle": [(16, 144)], "up": [(8, 16 * 4)], "join": [(8, 16 * 9)],
        },
        kinds(head="leave"),
    ),
    "nanoGPT, tied": Row(
        lambda: (Nano(), IDS),
        {"c_attn": [SQUARE] * 3, "c_proj": [SQUARE], "c_fc": [WIDE], "back": [BACK]},
        kinds(embedding="wte wpe"),
    ),
    "MLP-Mixer": Row(
        lambda: (Mixer(), torch.randn(2, 3, 32, 32)),
        {
            "patches": [(D, 192)], "token_in": [(24, 16)], "token_out": [(16, 24)], "channel_in": [UP],
            "channel_out": [DOWN],
        },
        kinds(head="head"),
    ),
}  # fmt: skip

PEFT = {
    "LoRA": Row(
        adapted,
        {
            "c_attn.lora_A.default": [(4, D)], "c_attn.lora_B.default": [(D, 4)] * 3,
            "c_fc.lora_A.default": [(4, D)], "c_fc.lora_B.default": [(4 * D, 4)],
        },
    ),
}  # fmt: skip
