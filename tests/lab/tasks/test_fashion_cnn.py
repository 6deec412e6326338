"""Fashion-MNIST is read from the user's folder, and what is wrong with it is said."""

import gzip

import pytest
import torch

from tests.lab.tasks.idx import idx, write_fashion
from thalweg._base.errors import ThalwegError
from thalweg.lab.tasks import fashion_cnn
from thalweg.lab.tasks.fashion_cnn import FILES, VARIABLE, FashionCnn, pictures, read_idx


@pytest.mark.parametrize("packed", [True, False])
def test_the_users_folder_is_read_packed_or_not(tmp_path, monkeypatch, packed):
    write_fashion(tmp_path, packed=packed)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    task = FashionCnn()
    assert task.examples().x.shape == (256, 1, 28, 28)
    x, y = next(task.batches(0))
    assert x.dtype == torch.float32
    assert 0 <= float(x.min()) <= float(x.max()) <= 1
    assert torch.equal(y, (x.mean((1, 2, 3)) * 255 / 25 - 0.5).round().long())
    assert float(task.examples().held_x.max()) <= 1


@pytest.mark.parametrize("shape", [(3,), (2, 5), (4, 3, 2)])
def test_an_idx_file_keeps_its_shape_and_bytes(tmp_path, shape):
    tensor = torch.randint(0, 256, shape, dtype=torch.uint8)
    (tmp_path / "some").write_bytes(idx(tensor))
    assert torch.equal(read_idx(tmp_path, "some"), tensor)


def test_without_the_variable_debians_folder_is_used(tmp_path, monkeypatch):
    write_fashion(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(fashion_cnn, "DEBIAN", tmp_path)
    assert len(FashionCnn().examples().held_x) == 64


@pytest.mark.parametrize("missing", FILES)
def test_a_missing_file_is_named_with_the_two_ways_to_get_it(tmp_path, missing):
    write_fashion(tmp_path)
    (tmp_path / f"{missing}.gz").unlink()
    with pytest.raises(ThalwegError, match=rf"{missing}.*dataset-fashion-mnist.*{VARIABLE}"):
        pictures(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08", b"not an idx file", bytes([0, 0, 13, 1, 0, 0, 0, 1, 7]), bytes([0, 0, 8, 1, 0, 0, 0, 9, 7])],
    ids=["empty", "short", "text", "floats", "cut"],
)
def test_another_format_is_refused(tmp_path, content):
    (tmp_path / "some").write_bytes(content)
    with pytest.raises(ThalwegError, match="is not an idx file"):
        read_idx(tmp_path, "some")


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(bytes(100))[:-9]], ids=["other", "cut"])
def test_a_broken_archive_is_refused(tmp_path, content):
    (tmp_path / "some.gz").write_bytes(content)
    with pytest.raises(ThalwegError, match=r"cannot read .*some\.gz"):
        read_idx(tmp_path, "some")
