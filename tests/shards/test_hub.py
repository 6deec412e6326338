"""Models of transformers, sharded: Llama, whose heads share keys and values, and GPT-2, which keeps (in, out)."""

import warnings

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

import tests.torchvision  # noqa: F401
import thalweg
from tests.shards.layouts import whole
from tests.shards.models import repeat, words

pytestmark = pytest.mark.models
pytest.importorskip("transformers")

MAKE = {
    "Muon": lambda model: thalweg.Muon(model),
    "Muon by head": lambda model: thalweg.Muon(model, blocks="heads"),
    "SOAP": lambda model: thalweg.SOAP(model),
}
#: of a layer of Llama
PLAN = {
    **{f"self_attn.{name}_proj": ColwiseParallel() for name in "qkv"},
    **{f"mlp.{name}_proj": ColwiseParallel() for name in ("gate", "up")},
    "self_attn.o_proj": RowwiseParallel(),
    "mlp.down_proj": RowwiseParallel(),
}


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=40, tie_word_embeddings=True, **sizes, **heads))


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=16, n_embd=32, n_layer=2, n_head=4))


def layers(model):
    return model.model.layers if hasattr(model, "model") else model.transformer.h


def by_rows(model):
    for layer in layers(model):
        fully_shard(layer)
    return fully_shard(model)


def tensor_parallel(model):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in layers(model):
        parallelize_module(layer, mesh, PLAN)
    return model


def differing(build, wrap, name):
    torch.manual_seed(0)
    one = build().eval()
    torch.manual_seed(0)
    many = wrap(build().eval())
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of weights that are not seen
        optimizer, other = MAKE[name](many), MAKE[name](one)
    for step in range(1, 4):
        x = words(step)
        many(input_ids=x, labels=x).loss.backward()
        gradients = [whole(p.grad) for p in many.parameters()]
        optimizer.step()
        optimizer.zero_grad()
        repeat(one, other, [gradients])
    pairs = zip(one.named_parameters(), many.parameters(), strict=True)
    return [n for (n, p), q in pairs if not torch.equal(p, whole(q))]


def run(build, wrap):
    found = {name: differing(build, wrap, name) for name in MAKE}
    return {name: bad for name, bad in found.items() if bad}


@pytest.mark.parametrize(("build", "wrap"), [(llama, by_rows), (llama, tensor_parallel), (gpt2, by_rows)])
def test_it_ends_as_in_one_process(two, build, wrap):
    assert two.run(run, build, wrap) == [{}, {}]
