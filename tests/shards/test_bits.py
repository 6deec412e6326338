"""Every optimizer on parts of tensors gives the bits of one process."""

from tests.shards.layouts import differing

RULES = {
    "SGD": {"lr": 0.1, "momentum": 0.9},
    "AdamW": {"lr": 0.01},
    "LAMB": {"lr": 0.01},
    "Adafactor": {"lr": 0.01},
    "Prodigy": {},
    "Muon": {"lr": 0.02},
    "NorMuon": {"lr": 0.02},
    "CAME": {"lr": 0.01},
    "SM3": {"lr": 0.01},
    "NovoGrad": {"lr": 0.01},
    "LARS": {"lr": 0.01},
    "GaLore": {"lr": 0.01, "rank": 2},
    "APOLLO": {"lr": 0.01, "rank": 2},
    "Lion": {"lr": 0.01},
    "ScheduleFreeAdamW": {"lr": 0.01},
    "Adan": {"lr": 0.01},
}


def run(rules, layouts):
    return {
        (rule, layout): bad for rule in rules for layout in layouts if (bad := differing(rule, RULES[rule], layout))
    }


def test_rules(two):
    assert two.run(run, list(RULES), ["Shard(0)", "Shard(1)"]) == [{}, {}]
