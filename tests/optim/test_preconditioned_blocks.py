"""Several matrices in one weight: each is stepped as in a weight of its own, by every rule with factors."""

import pytest
import torch

import thalweg
from tests.groups import models
from thalweg.groups import Blocks

RULES = [
    (thalweg.SOAP, {"precondition_frequency": 2}),
    (thalweg.SOAP, {"precondition_frequency": 2, "kl": True, "max_precond_dim": 5}),
    (thalweg.SOAPMuon, {"precondition_frequency": 2}),
    (thalweg.Shampoo, {"precondition_frequency": 2}),
    (thalweg.Shampoo, {"precondition_frequency": 2, "max_preconditioner_dim": 3}),
    (thalweg.PSGDKron, {"max_size_triangular": 5}),
]
#: shape of a weight, how matrices lie in it, and the places of these
WEIGHTS = [
    ((6, 4), 3, [(slice(i, i + 2), slice(None)) for i in (0, 2, 4)]),
    ((6, 4), (3, 2, 1), [(slice(0, 3),), (slice(3, 5),), (slice(5, 6),)]),
    ((6, 4), Blocks(2, along="in"), [(slice(None), slice(0, 2)), (slice(None), slice(2, 4))]),
    ((3, 6, 4), Blocks(layout="n out in"), [(i,) for i in range(3)]),
]


def stepped(cls, params, grads, **options):
    optimizer = cls(params, lr=0.01, **options)
    for g in grads:
        for p, part in zip(params, g, strict=True):
            p.grad = part.clone()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize(("shape", "blocks", "places"), WEIGHTS)
@pytest.mark.parametrize(("cls", "options"), RULES)
@pytest.mark.parametrize("backend", ["eager", "foreach"])
def test_a_matrix_of_several_moves_as_it_would_alone(cls, options, shape, blocks, places, backend):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(shape, generator=generator, dtype=torch.float64)
    grads = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(5)]
    whole = [torch.nn.Parameter(start.clone())]
    parts = [torch.nn.Parameter(start[place].clone()) for place in places]
    stepped(cls, whole, [[g] for g in grads], blocks=blocks, backend=backend, **options)
    stepped(cls, parts, [[g[place] for place in places] for g in grads], **options)
    for place, part in zip(places, parts, strict=True):
        torch.testing.assert_close(whole[0].detach()[place], part.detach(), rtol=0, atol=1e-6)
    assert (whole[0] - start).abs().min() > 0


@pytest.mark.parametrize(("cls", "options"), RULES)
def test_a_models_fused_weights_are_cut_where_that_is_asked(cls, options):
    model = models.Gpt()
    optimizer = cls(model, lr=0.01, blocks="auto", **options)
    told = [blocks for group in optimizer.param_groups if group["use_muon"] for blocks in [group["blocks"]]]
    assert any(blocks is not None for blocks in told)
    x = torch.randint(0, 256, (2, 8))
    for _ in range(3):
        model(x, x)[1].backward()
        optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())


def test_factors_take_the_room_of_their_matrices():
    params = [torch.nn.Parameter(torch.randn(6, 4))]
    optimizer = stepped(thalweg.SOAP, params, [[torch.randn(6, 4)]], blocks=3)
    state = optimizer.state[params[0]]
    assert (state["left"].numel(), state["right"].numel()) == (3 * 2 * 2, 3 * 4 * 4)


@pytest.mark.parametrize(("cls", "options"), RULES)
def test_a_checkpoint_goes_on_where_each_weight_has_blocks_of_its_own(cls, options):
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(3)]
    grads = [[torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in weights] for _ in range(4)]

    def run(halves):
        params, saved = [torch.nn.Parameter(x.clone()) for x in weights], None
        held = dict(zip(map(id, params), (None, 3, Blocks(2, along="in")), strict=True))
        for some in halves:
            optimizer = cls([{"params": params, "blocks": lambda p: held[id(p)]}], lr=0.01, **options)
            if saved is not None:
                optimizer.load_state_dict(saved)
            for step in some:
                for p, g in zip(params, grads[step], strict=True):
                    p.grad = g.clone()
                optimizer.step()
            saved = optimizer.state_dict()
        return params

    for p, q in zip(run([range(4)]), run([range(2), range(2, 4)]), strict=True):
        assert torch.equal(p, q)


def test_a_checkpoint_is_refused_before_anything_changes_where_a_parameter_has_no_blocks():
    def made(**options):
        params = [torch.nn.Parameter(torch.randn(6, 4)) for _ in range(2)]
        held = {id(params[0]): None, id(params[1]): 3}
        optimizer = thalweg.SOAP([{"params": params, "blocks": lambda p: held[id(p)]}], **options)
        optimizer.param_groups[0]["params"].append(torch.nn.Parameter(torch.randn(6, 4)))
        return optimizer

    saved, optimizer = made(lr=0.5).state_dict(), made(lr=0.25)
    with pytest.raises(ValueError, match="one for each of the 3 parameters"):
        optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["lr"] == 0.25
