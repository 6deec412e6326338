"""The attention and the routers of transformers' models, by both of its ways to attend."""

import pytest
import torch

from thalweg.diagnosis.inflight.attention import attentions
from thalweg.diagnosis.inflight.routers import loads
from thalweg.diagnosis.nodes import walk

pytestmark = [pytest.mark.models, pytest.mark.filterwarnings("ignore")]
transformers = pytest.importorskip("transformers")
SMALL = {
    "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 128, "max_position_embeddings": 64,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2}
CONFIGS = {
    "llama": lambda: transformers.LlamaConfig(**SMALL),
    "qwen3": lambda: transformers.Qwen3Config(**SMALL, head_dim=16),
    "mixtral": lambda: transformers.MixtralConfig(**SMALL, **EXPERTS, num_local_experts=8),
    "qwen3-moe": lambda: transformers.Qwen3MoeConfig(
        **SMALL, **EXPERTS, head_dim=16, moe_intermediate_size=32, num_experts=8, decoder_sparse_step=1
    ),
    "gpt-oss": lambda: transformers.GptOssConfig(**SMALL, **EXPERTS, head_dim=16, num_local_experts=8),
}


def looked_at(config, way):
    """Logits by layer, loads by router, and what the routers' own outputs say."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=way).train()
    chosen = {}
    for name, module in model.named_modules():
        if name.endswith((".mlp.gate", ".mlp.router")):
            module.register_forward_hook(lambda _, __, out, name=name: chosen.update({name: out[-1]}))
    ids = torch.randint(128, (2, 16), generator=torch.Generator().manual_seed(0))
    loss = model(input_ids=ids, labels=ids).loss
    names, behind = {id(p): name for name, p in model.named_parameters()}, list(walk(loss.grad_fn))
    logits = {one.layer: float(one.largest) for one in attentions(behind, names)}
    routers = {name: counts.tolist() for name, (counts, _) in loads(loss.grad_fn, behind, names).items()}
    expected = {name: torch.bincount(index.flatten(), minlength=8).tolist() for name, index in chosen.items()}
    return logits, routers, expected


@pytest.mark.parametrize("name", CONFIGS)
def test_both_ways_to_attend_are_seen_alike_and_routers_as_they_choose(name):
    ways = ["eager"] if name == "gpt-oss" else ["eager", "sdpa"]
    seen = [looked_at(CONFIGS[name](), way) for way in ways]
    for logits, routers, expected in seen:
        assert {*logits} == {f"model.layers.{i}.self_attn" for i in range(2)}
        assert logits == pytest.approx(seen[0][0], rel=1e-4)
        assert routers == expected
        assert len(routers) == (0 if name in ("llama", "qwen3") else 2)
