import pytest

from thalweg.engine import places


@pytest.fixture(autouse=True)
def _few_tensors_are_watched_like_many(monkeypatch):
    """Elsewhere so few are looked at in Python, so that both ways see the whole of the tests."""
    monkeypatch.setattr(places, "FEW", 1)
