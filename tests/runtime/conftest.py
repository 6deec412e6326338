import pytest

from thalweg.runtime import guards


@pytest.fixture(params=["C", "Python"])
def either_look(request, monkeypatch):
    """Tensors are looked at in C, and in Python as where there is no compiler."""
    if request.param == "Python":
        monkeypatch.setattr(guards, "functions", lambda: None)
