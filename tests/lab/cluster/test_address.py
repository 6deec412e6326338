"""What ``--cluster``, ``--cpus`` and ``--gpus`` take."""

import pytest

from thalweg._base.errors import ThalwegError
from thalweg.lab.cluster.address import Resources, nodes_here
from thalweg.lab.cluster.on_ray import RayCluster


@pytest.mark.parametrize(
    ("address", "count"),
    [("auto", 0), ("slurm", 0), ("local:3", 3), ("ray://head:10001", 0), ("10.0.0.7:6379", 0), ("[::1]:6379", 0)],
)
def test_addresses(address, count):
    assert nodes_here(address) == count


@pytest.mark.parametrize("address", ["", "local", "local:0", "local:x", "ray://", "head", "http://head:1", "a b:1"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match=r"^--cluster='.*: expected .*local:N"):
        nodes_here(address)


@pytest.mark.parametrize("given", [{"cpus": 0}, {"cpus": -1}, {"cpus": float("nan")}, {"gpus": -0.5}])
def test_resources_that_nobody_has_are_refused(given):
    [name] = given
    with pytest.raises(ValueError, match=f"^--{name}="):
        Resources(**given)


def test_without_ray_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ThalwegError, match=r"thalweg\[ray\].*pip install"):
        RayCluster("local:2")
