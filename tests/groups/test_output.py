"""Which layer makes the output, where that is not a row of the table."""

import dataclasses
import warnings
from collections import OrderedDict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.groups import models
from tests.groups.test_roles import IDX, X, kinds, of_kind
from thalweg.groups import roles


def test_several_outputs_in_nested_containers_and_objects():
    @dataclasses.dataclass
    class Answer:
        parts: dict
        note: str = ""

    class Model(models.TwoHeads):
        def forward(self, x):
            x = self.body(x)
            return Answer({"both": [(self.policy(x), {"value": self.value(x)})], "hidden": x})

    assert of_kind(Model(), "head", X) == {"policy.weight", "value.weight"}


def test_an_output_that_keeps_what_it_holds_in_slots():
    @dataclasses.dataclass(slots=True)
    class Answer:
        logits: torch.Tensor
        note: str = ""

    class Slotted:
        __slots__ = "answer"

    class Model(models.TwoHeads):
        def forward(self, x):
            found = Slotted()
            found.answer = Answer(self.policy(self.body(x)))
            return found

    assert of_kind(Model(), "head", X) >= {"policy.weight"}


@pytest.mark.parametrize("targets", [IDX, None])
def test_logits_with_a_loss_or_without(targets):
    assert of_kind(models.Gpt(), "head", (IDX, targets)) == {"lm_head.weight"}


def test_nothing_but_a_loss_with_a_term_from_an_earlier_layer():
    assert of_kind(models.LossWithPenalty(), "head", X) == {"head.weight"}


def test_a_frozen_head_is_still_the_head():
    for sample in (X, None):
        model = models.mlp()
        model[5].requires_grad_(False)
        assert set(kinds(model, sample).values()) == {"hidden", "vector"}


def test_what_is_trained_beside_a_frozen_matrix_belongs_to_it():
    model = nn.Sequential(models.LowRank(4, 4), nn.Tanh(), models.LowRank(4, 2))
    for sample in (X, None):
        assert kinds(model, sample) == {"0.a": "hidden", "0.b": "hidden", "2.a": "head", "2.b": "head"}


def test_where_no_single_layer_makes_the_output_the_reason_says_so():
    for sample in (X, None):
        last = next(r for r in roles(models.Residual(), sample) if r.name == "b.1.weight")
        assert last.kind == "hidden"
        assert "not alone in making the output" in last.why


def test_torchs_transformers_end_in_a_residual_stream():
    x = torch.randn(2, 3, 8)
    transformer = nn.Transformer(8, 2, 1, 1, 16, batch_first=True)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    for model, sample in [(transformer, (x, x)), (encoder, x), (nn.Sequential(nn.Linear(8, 8), encoder), x)]:
        assert of_kind(model, "head", sample) == of_kind(model, "head") == set()
        headed = models.Headed(model, 8)
        assert of_kind(headed, "head", sample) == of_kind(headed, "head") == {"head.weight"}


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_parametrized_weights_are_those_of_their_layer(norm):
    for kind, sample in [(nn.Sequential, X), (nn.Sequential, None), (models.Branches, None)]:
        model = kind(norm(nn.Linear(4, 4)), nn.Tanh(), norm(nn.Linear(4, 2)))
        matrices = [(r.name[0], r.kind) for r in roles(model, sample) if r.kind != "vector"]
        assert matrices == [("0", "hidden"), ("2", "head")]


def test_a_forward_that_warns_is_traced():
    class Model(models.HeadFirst):
        def forward(self, x):
            warnings.warn("old", DeprecationWarning, stacklevel=1)
            return self.head(self.body(x))

    with pytest.warns(DeprecationWarning, match="old"):
        head = next(r for r in roles(Model()) if r.kind == "head")
    assert (head.name, "a symbolic trace" in head.why) == ("head.weight", True)


@pytest.mark.filterwarnings("ignore:what makes the output")
def test_shared_layers_do_not_hide_the_head_where_nothing_is_seen():
    model = models.unseen(nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(3))))
    model[1].weight = model[0].weight
    assert kinds(model) == {"0.weight": "hidden", "2.weight": "head"}


@pytest.mark.filterwarnings("ignore:what makes the output")
def test_a_recurrent_layer_that_is_registered_last_is_not_guessed_to_be_the_head():
    model = models.unseen(nn.Sequential(nn.Linear(4, 2), nn.GRU(4, 4)))
    assert of_kind(model, "head") == {"0.weight"}


def compiled(model):
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize("wrap", [nn.DataParallel, compiled, lambda model: compiled(nn.DataParallel(model))])
@pytest.mark.parametrize("sample", [X, None])
def test_wrapped_models_keep_their_names(wrap, sample):
    plain = kinds(models.mlp(), sample)
    model = wrap(models.mlp())
    assert list(kinds(model, sample)) == [name for name, _ in model.named_parameters()]
    assert list(kinds(model, sample).values()) == list(plain.values())


def test_a_compiled_part_is_looked_into_but_not_compiled():
    def refuse(graph, inputs):
        raise AssertionError("compiled")

    model = nn.Sequential(torch.compile(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), backend=refuse), nn.Linear(4, 2))
    for sample in (X, None):
        assert of_kind(model, "head", sample) == {"1.weight"}


def test_the_names_of_modules_mean_nothing():
    model = nn.Sequential(OrderedDict(head=nn.Linear(4, 4), size=nn.Tanh(), dim=nn.Linear(4, 2)))
    assert of_kind(model, "head") == of_kind(model, "head", X) == {"dim.weight"}


LAYERS = {
    "linear": (lambda: nn.Linear(4, 4), {"weight": "hidden"}),
    "masked": (lambda: models.Masked(4, 4), {"weight": "hidden"}),
    "own": (lambda: models.Own(4, 4), {"kernel": "hidden"}),
    "noisy": (lambda: models.Noisy(4, 4), {"mean": "hidden", "scale": "hidden"}),
    "norm": (lambda: nn.LayerNorm(4), {}),
    "tanh": (nn.Tanh, {}),
    "relu": (lambda: nn.ReLU(inplace=True), {}),
    "dropout": (nn.Dropout, {}),
    "residual": (models.Skip, {"inner.weight": "hidden"}),
}


@given(body=st.lists(st.sampled_from(sorted(LAYERS)), max_size=6), head=st.sampled_from(["linear", "masked", "own"]))
def test_in_any_stack_the_last_layer_is_the_head_and_every_other_matrix_is_hidden(body, head):
    model = nn.Sequential(*(LAYERS[name][0]() for name in body), LAYERS[head][0]())
    expected = {f"{i}.{p}": kind for i, name in enumerate(body) for p, kind in LAYERS[name][1].items()}
    expected |= {f"{len(body)}.{p}": "head" for p in LAYERS[head][1]}
    for sample in (X, None):
        assert {name: kind for name, kind in kinds(model, sample).items() if kind != "vector"} == expected
