"""Who runs a rule: one file for each backend, and `select`, which picks one and says why."""
