"""The face of `torch.optim.Optimizer`, written once for all rules: construction, checkpoints, reports."""
