"""What a type checker must see of the constructors; mypy runs over this file, and a needless ignore is an error."""

import torch

import thalweg

params = [torch.nn.Parameter(torch.zeros(2, 2))]
thalweg.SGD(params, 0.1, 0.9, nesterov=True, maximize=False)
thalweg.AdamW(params, lr=0.1, betas=(0.9, 0.99), backend="eager", fused=True)
thalweg.Muon(torch.nn.Linear(2, 2), lr=0.1, lr_ratio=0.3, adjust_lr_fn="match_rms_adamw")
thalweg.AdamW(params, lrr=0.1)  # type: ignore[call-arg]
thalweg.AdamW(params, lr="fast")  # type: ignore[arg-type]
thalweg.Adam(params, exp_avg=None)  # type: ignore[call-arg]
