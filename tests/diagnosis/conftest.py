def pytest_collection_modifyitems(config, items):
    """What takes longer runs where it is asked for: ``make faults``."""
    if "faults" in config.option.markexpr:
        return
    kept = [item for item in items if not item.get_closest_marker("faults")]
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("faults")])
        items[:] = kept
