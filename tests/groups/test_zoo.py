"""Real architectures against the table of what they hold: ``make models`` installs what they are from."""

import warnings

import pytest

import thalweg
from tests.groups import zoo, zoo_2026, zoo_apart, zoo_fields, zoo_further
from thalweg.groups import blocks, roles
from thalweg.optim.cutting import shapes

TABLES = [(zoo.TORCH, None), (zoo.HUB, "transformers"), (zoo.TIMM, "timm"), (zoo.PEFT, "peft")]
FURTHER = [
    (zoo_2026.TORCH, None),
    (zoo_apart.TORCH, None),
    (zoo_fields.TORCH, None),
    (zoo_further.TORCH, None),
    (zoo_further.HUB, "transformers"),
    (zoo_further.TIMM, "timm"),
]
ROWS = [
    pytest.param(row, package, id=name, marks=pytest.mark.models if package else ())
    for table, package in TABLES + FURTHER
    for name, row in table.items()
]


def of_end(name, table):
    """What the table says of a parameter: by the longest end of its name."""
    bare = name.removesuffix(".weight")
    ends = [end for end in table if bare.endswith(end)]
    return table[max(ends, key=len)] if ends else None


@pytest.mark.parametrize(("row", "package"), ROWS)
# what the libraries say of their own next versions is not ours
@pytest.mark.filterwarnings("ignore:LSTM with projections", "ignore:enable_nested_tensor", "ignore::FutureWarning")
def test_what_each_parameter_is_and_holds(row, package):
    if package:
        pytest.importorskip(package)
    model, sample = row.make()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "left uncut|what makes the output")
        found, kinds = blocks(model, sample), {role.name: role.kind for role in roles(model, sample)}
        optimizer = thalweg.Muon(model, sample=sample, blocks="auto")
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    expected = {name: sorted(held) for name in trained if (held := of_end(name, row.hidden))}
    assert {name: sorted(held) for name, held in found.items()} == expected
    rest = {name: of_end(name, row.others) or "vector" for name in trained if name not in expected}
    assert {name: kinds[name] for name in rest} == rest
    mine = [group for group in optimizer.param_groups if group["use_muon"]]
    taken = {name: sorted(held) for g in mine for name, held in zip(g["param_names"], shapes(g), strict=True)}
    assert taken == expected
    assert all(any(of_end(name, {end: True}) for name in trained) for end in (*row.hidden, *row.others))
