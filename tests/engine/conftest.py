import pytest

from thalweg.engine import places


@pytest.fixture(params=["C", "Python"])
def either_look(request, monkeypatch):
    """Tensors are looked at in C, and in Python as where there is no compiler."""
    if request.param == "Python":
        monkeypatch.setattr(places, "_functions", lambda: None)
