"""The field: contestants with a row of their own, and what is fixed and searched about them."""

from __future__ import annotations

from thalweg.lab.contestant import Contestant

_ADAPTIVE = {"betas": ((0.9, 0.95), (0.9, 0.999)), "eps": (1e-8, 1e-3)}

CONTESTANTS: dict[str, Contestant] = {
    c.label: c
    for c in (
        Contestant("sgd", "SGD", 1.0),
        Contestant("momentum", "SGD", 0.1, {"momentum": 0.9, "nesterov": True}, {"momentum": (0.9, 0.95)}),
        Contestant("rmsprop", "RMSprop", 3e-3, {"alpha": 0.95}, {"alpha": (0.95, 0.99), "eps": (1e-8, 1e-3)}),
        Contestant("adam", "Adam", 3e-3, {"betas": (0.9, 0.95)}, _ADAPTIVE),
        Contestant("adamw", "AdamW", 3e-3, {"betas": (0.9, 0.95)}, _ADAPTIVE),
        Contestant("adamw-bf16", "AdamW", 3e-3, {"betas": (0.9, 0.95), "state_dtype": "bfloat16"}, _ADAPTIVE),
        Contestant("adamw-int8", "AdamW", 3e-3, {"betas": (0.9, 0.95), "state_dtype": "int8"}, _ADAPTIVE),
        Contestant("muon", "Muon", 1e-2, {"adjust_lr_fn": "match_rms_adamw"}, {"betas": _ADAPTIVE["betas"]}),
        Contestant("normuon", "NorMuon", 1e-2, {"adjust_lr_fn": "match_rms_adamw"}, {"betas": _ADAPTIVE["betas"]}),
    )
}
