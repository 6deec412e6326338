"""Which matrices the weights of models of ``transformers`` hold, written from their papers and code, by hand."""

import pytest

from thalweg.groups import blocks

transformers = pytest.importorskip("transformers")

D, HEADS, INNER = 32, 4, 64
SIZES = {"hidden_size": D, "num_hidden_layers": 1, "num_attention_heads": HEADS, "vocab_size": 64}
GROUPED = {**SIZES, "intermediate_size": INNER, "num_key_value_heads": 2, "max_position_embeddings": 64}
FALCON = {**SIZES, "bos_token_id": 1, "eos_token_id": 2}
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8}
SQUARE, NARROW, UP, DOWN = (D, D), (16, D), (INNER, D), (D, INNER)

#: model, settings of its configuration, and the weights that hold several matrices, by the end of their names
TABLE = {
    "GPT2LMHeadModel": (
        {"n_embd": D, "n_layer": 1, "n_head": HEADS, "vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2},
        {"c_attn.weight": [SQUARE] * 3},
    ),
    "LlamaForCausalLM": (GROUPED, {}),
    "Phi3ForCausalLM": (
        {**GROUPED, "pad_token_id": 0, "eos_token_id": 2},
        {"qkv_proj.weight": [SQUARE, NARROW, NARROW], "gate_up_proj.weight": [UP] * 2},
    ),
    "GPTNeoXForCausalLM": ({**SIZES, "intermediate_size": INNER}, {"query_key_value.weight": [SQUARE] * 3}),
    "BloomForCausalLM": (
        {"hidden_size": D, "n_layer": 1, "n_head": HEADS, "vocab_size": 64},
        {"query_key_value.weight": [SQUARE] * 3},
    ),
    "FalconForCausalLM": (
        {**FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
        {"query_key_value.weight": [SQUARE, NARROW, NARROW]},
    ),
    "MixtralForCausalLM": (
        {**GROUPED, "num_local_experts": 3},
        {"experts.gate_up_proj": [UP] * 6, "experts.down_proj": [DOWN] * 3},
    ),
    "GptOssForCausalLM": (
        {**GROUPED, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
        {"experts.gate_up_proj": [UP] * 8, "experts.down_proj": [DOWN] * 4},
    ),
    "DeepseekV3ForCausalLM": (
        {**GROUPED, **LATENT, "num_key_value_heads": HEADS, "first_k_dense_replace": 1},
        {"kv_a_proj_with_mqa.weight": [NARROW, (4, D)], "kv_b_proj.weight": [(D, 16)] * 2},
    ),
    "MambaForCausalLM": (
        {"hidden_size": D, "num_hidden_layers": 1, "vocab_size": 64, "state_size": 4},
        {"in_proj.weight": [UP] * 2, "x_proj.weight": [(2, INNER), (4, INNER), (4, INNER)]},
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_models_of_transformers(name):
    settings, several = TABLE[name]
    model_type = getattr(transformers, name)
    found = blocks(model_type(model_type.config_class(**settings)))
    ends = {end: shapes for key, shapes in found.items() for end in several if key.endswith(end)}
    assert ends == several
    assert all(len(shapes) == 1 for key, shapes in found.items() if not key.endswith(tuple(several) or ("?",)))
