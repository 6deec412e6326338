"""Who runs a rule: one file each, and `choice`, which picks one and says why."""
