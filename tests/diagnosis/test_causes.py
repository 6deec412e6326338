"""The table of causes: each can become a finding, and says what it must."""

import json
import string

import pytest

from docs.generator.site import editions
from thalweg._base.errors import ThalwegError
from thalweg.diagnosis.causes import PILLARS, cause_of, causes
from thalweg.diagnosis.finding import finding, layers


def words_of(cause):
    texts = (cause.remedy, cause.patch)
    return {name for text in texts for _, name, *_ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("cause", causes().values(), ids=lambda c: c.name)
def test_a_cause_becomes_a_finding(cause):
    words = dict.fromkeys(words_of(cause) - {"layer", "first", "module", "cause"}, "7")
    found = finding(cause.name, "measured 1 against 2.", ["block.weight", "block.bias", "head.weight"], step=3, **words)
    assert (found.cause, found.pillar, found.layer) == (cause.name, cause.pillar, "block, head.weight")
    assert cause.pillar in PILLARS
    assert cause.meaning.endswith(".")
    assert found.remedy.endswith(".")
    assert found.link.endswith(f"docs/my-run-does-not-learn.md#{cause.name}")
    assert "{" not in found.remedy.replace('{"params"', "")
    assert json.loads(json.dumps(found.as_dict()))["step"] == 3
    assert str(found).startswith(f"{cause.name} in block, head.weight, since step 3\n")


def test_a_cause_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(ThalwegError, match="no cause 'lr_to_high'; did you mean lr_too_high"):
        cause_of("lr_to_high")


def test_a_patch_gets_at_the_module_as_python_does():
    found = finding("not_in_optimizer", "2 of 4.", ["blocks.0.up.weight", "blocks.0.up.bias"])
    assert found.patch == 'optimizer.add_param_group({"params": model.blocks[0].up.parameters()})'
    found = finding("no_gradient", "1 of 4.", ["blocks.0.up.weight"])
    assert found.patch == "model.blocks[0].up.requires_grad_(False)"
    assert finding("mode_eval", "1.", "drop").patch == "model.train()"


def test_layers_are_named_by_module_and_the_others_counted():
    names = ["a.weight", "a.bias", "b.c.weight", "d.weight", "e.weight", "f.weight", "scale"]
    assert layers(names) == "a, b.c.weight, d.weight, e.weight and 2 more"
    assert layers(["scale"]) == "scale"


@pytest.mark.parametrize("edition", editions()[1:], ids=lambda e: e.name)
def test_every_cause_is_translated(edition):
    texts = {text for cause in causes().values() for text in (cause.meaning, cause.remedy)}
    assert sorted(texts - edition.say.docs.keys()) == [], "add these to [docs] in docs/zh/phrases.toml"
