"""What a task opens to read is part of what it is: by any route, whenever it is opened, and nothing else."""

import csv
import json
import os
import pickle
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.lab.tasks.test_user import GOOD
from thalweg._base.errors import ThalwegError
from thalweg.lab.tasks import check, get_task, opened

#: users leave files open
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def task(folder, route, where="at import"):
    """A task whose file reads a number, 1.0 at first, by one of the routes: at import or in a method."""
    text = "import csv, json, os, pickle, sqlite3\nimport numpy as np\nfrom pathlib import Path\n"
    text += f"HERE = Path({str(folder)!r})\n{GOOD}"
    if where == "at import":
        text = text.replace("class Mine", f"SCALE = {route}\n\nclass Mine")
    else:
        text = text.replace("    def loss", f"    def scale(self):\n        return {route}\n\n    def loss")
    name = "SCALE" if where == "at import" else "self.scale()"
    line = {
        "at import": "return model(batch)",
        "in loss": "return model(batch)",
        "in model": "        return nn.Sequential",
        "in batches": "            yield ",
        "in evaluate": "        model.eval()",
    }[where]
    if where in ("at import", "in loss"):
        text = text.replace(line, f"return {name} * model(batch)")
    else:
        text = text.replace(line, f"{line[: len(line) - len(line.lstrip())]}{name}\n{line}")
    path = folder / "mine.py"
    path.write_text(text)
    return str(path)


def rows(path, value):
    with sqlite3.connect(path) as connection:
        connection.execute("create table if not exists numbers (x real)")
        connection.execute("delete from numbers")
        connection.execute("insert into numbers values (?)", (value,))
    connection.close()


def table(path, value):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["x"], [value]])


ROUTES = {  # file: how it is written, how it is read
    "a.json": (lambda p, v: p.write_text(json.dumps({"x": v})), "json.loads((HERE / 'a.json').read_text())['x']"),
    "a.csv": (table, "float(list(csv.reader(open(HERE / 'a.csv')))[1][0])"),
    "a.npy": (lambda p, v: np.save(p, np.full(3, v)), "float(np.load(HERE / 'a.npy')[0])"),
    "mapped.npy": (lambda p, v: np.save(p, np.full(3, v)), "float(np.load(HERE / 'mapped.npy', mmap_mode='r')[0])"),
    "a.npz": (lambda p, v: np.savez(p, x=np.full(3, v)), "float(np.load(HERE / 'a.npz')['x'][0])"),
    "a.bin": (lambda p, v: np.full(3, v).tofile(p), "float(np.fromfile(HERE / 'a.bin')[0])"),
    "map.bin": (lambda p, v: np.full(3, v).tofile(p), "float(np.memmap(HERE / 'map.bin', dtype=float)[0])"),
    "a.txt": (lambda p, v: np.savetxt(p, [v]), "float(np.loadtxt(HERE / 'a.txt'))"),
    "a.pt": (lambda p, v: torch.save(torch.full((3,), v), p), "float(torch.load(HERE / 'a.pt')[0])"),
    "map.pt": (lambda p, v: torch.save(torch.full((3,), v), p), "float(torch.load(HERE / 'map.pt', mmap=True)[0])"),
    "a.pkl": (lambda p, v: p.write_bytes(pickle.dumps(v)), "pickle.load(open(HERE / 'a.pkl', 'rb'))"),
    "a.db": (rows, "sqlite3.connect(HERE / 'a.db').execute('select x from numbers').fetchone()[0]"),
    "uri.db": (
        rows,
        "sqlite3.connect(f'file:{HERE}/uri.db?mode=ro', uri=True).execute('select x from numbers').fetchone()[0]",
    ),
    "lines.txt": (
        lambda p, v: p.write_text(f"{v}\n"),
        "__import__('linecache').clearcache() or float(__import__('linecache').getline(str(HERE / 'lines.txt'), 1))",
    ),
    "tokens.py": (
        lambda p, v: p.write_text(str(v)),
        "float(__import__('tokenize').open(HERE / 'tokens.py').read())",
    ),
    "descriptor": (
        lambda p, v: p.write_text(str(v)),
        "float(os.read(os.open(HERE / 'descriptor', os.O_RDONLY), 99))",
    ),
}


#: each route at import or in the loss, which do not affect it; one of text and one of mapped memory in both
PLACES = [(name, ("at import", "in loss")[k % 2]) for k, name in enumerate(ROUTES)]
PLACES += [("a.json", "in loss"), ("mapped.npy", "at import")]


@pytest.mark.parametrize(("name", "where"), PLACES)
def test_the_content_of_a_file_is_part_of_the_task_by_every_route(tmp_path, name, where):
    write, route = ROUTES[name]
    data = tmp_path / name
    write(data, 1.0)
    path = task(tmp_path, route, where)
    first = check(get_task(path))
    assert [file.path for file in first.files] == [str(data)]
    assert check(get_task(path)) == first
    write(data, 2.0)
    assert first.files[0].changed()
    second = check(get_task(path))
    assert second.fingerprint != first.fingerprint
    write(data, 1.0)
    if name.endswith((".json", ".csv", ".npy", ".bin", ".txt")):  # the others hold more than the number
        assert check(get_task(path)).fingerprint == first.fingerprint


@pytest.mark.parametrize("where", ["in model", "in batches", "in evaluate"])
def test_a_file_is_seen_whichever_method_opens_it_and_whatever_is_done_with_it(tmp_path, where):
    data = tmp_path / "a.json"
    data.write_text('{"x": 1.0}')
    path = task(tmp_path, ROUTES["a.json"][1], where)
    first = check(get_task(path))
    data.write_text('{"x": 1.0, "y": 2.0}')
    assert check(get_task(path)).fingerprint != first.fingerprint


def test_a_file_that_is_touched_is_the_same(tmp_path):
    data = tmp_path / "a.json"
    data.write_text('{"x": 1.0}')
    path = task(tmp_path, ROUTES["a.json"][1])
    first = check(get_task(path))
    os.utime(data, (1, 1))
    assert not first.files[0].changed()
    assert check(get_task(path)).fingerprint == first.fingerprint


def test_an_edit_that_keeps_size_and_time_is_seen(tmp_path):
    data = tmp_path / "a.json"
    data.write_text('{"x": 1.0}')
    was = data.stat()
    first = opened.kept(str(data))
    data.write_text('{"x": 2.0}')
    os.utime(data, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert first.changed()


def test_swapped_files_are_other_data(tmp_path):
    for name, value in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).write_text(str(value))
    path = task(tmp_path, "[float((HERE / n).read_text()) for n in 'ab'][0] ** 0.0")
    first = check(get_task(path)).fingerprint
    (tmp_path / "a").write_text("2.0")
    (tmp_path / "b").write_text("1.0")
    assert check(get_task(path)).fingerprint != first


def test_files_of_one_name_that_change_places_are_other_data(tmp_path):
    for name, value in (("dev", 1.0), ("test", 2.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(str(value))
    path = task(tmp_path, "[float((HERE / n / 'x').read_text()) for n in ('dev', 'test')][0] ** 0.0")
    first = check(get_task(path)).fingerprint
    assert check(get_task(path)).fingerprint == first
    (tmp_path / "dev").rename(tmp_path / "was")
    (tmp_path / "test").rename(tmp_path / "dev")
    (tmp_path / "was").rename(tmp_path / "test")
    assert check(get_task(path)).fingerprint != first


@pytest.mark.parametrize(("where", "cached"), [("at import", False), ("in evaluate", True)])
def test_a_module_that_is_imported_by_a_computed_name_is_part_of_the_task(tmp_path, where, cached):
    """In new processes: a module that is loaded is not read again."""
    name = "computed_neighbour"
    path = task(tmp_path, f"1.0 + 0.0 * __import__('importlib').import_module('{name}'[:]).WIDTH", where)
    code = "import sys; from thalweg.lab.tasks import check, get_task; probe = check(get_task(sys.argv[1]));"
    code += "print(probe.fingerprint, *(file.path for file in probe.files))"
    flags = [] if cached else ["-B"]

    def found():
        done = subprocess.run([sys.executable, *flags, "-c", code, path], capture_output=True, text=True, check=True)
        return done.stdout.split()

    neighbour = tmp_path / f"{name}.py"
    neighbour.write_text("WIDTH = 1\n")
    first = found()
    assert first[1:] == [str(neighbour)]
    if cached:
        assert found() == first
    neighbour.write_text("WIDTH = 22\n")
    assert found()[0] != first[0]


@pytest.mark.parametrize(
    "route",
    [
        "__import__('json').__name__ and 1.0",
        "len(Path('/proc/self/stat').read_text()) * 0.0 + 1.0",
        "len(open('/dev/null').read()) + 1.0",
        "len(Path(os.__file__).read_text()) * 0.0 + 1.0",
        "len(Path(torch.__file__).read_text()) * 0.0 + 1.0",
        "(HERE / 'log').open('a').write('x') * 1.0",
        "(HERE / 'scratch').write_text('1.0') and float((HERE / 'scratch').read_text())",
        "np.save(HERE / 'scratch.npy', np.random.rand(3)) or np.load(HERE / 'scratch.npy').size / 3",
    ],
)
def test_what_is_no_data_does_not_count(tmp_path, route):
    path = task(tmp_path, route, "in loss")
    assert check(get_task(path)).files == ()
    assert check(get_task(path)).files == ()


def test_what_is_downloaded_once_is_data_the_first_time_too(tmp_path, monkeypatch):
    monkeypatch.setattr(opened.tempfile, "gettempdir", lambda: "/nowhere")
    data = tmp_path / "downloaded"
    get = "((HERE / 'downloaded').exists() or (HERE / 'downloaded').write_text('1.0'))"
    path = task(tmp_path, f"{get} and float((HERE / 'downloaded').read_text())", "in loss")
    first = check(get_task(path))
    assert [file.path for file in first.files] == [str(data)]
    assert check(get_task(path)) == first


def test_of_many_files_the_folder_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "MANY", 10)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for k in range(11):
        (pictures / f"{k}.txt").write_text("1.0")
    path = task(tmp_path, "sum(float(p.read_text()) for p in sorted(HERE.glob('pictures/*'))) / 11")
    first = check(get_task(path))
    assert [file.path for file in first.files] == [str(pictures)]
    assert not first.files[0].changed()
    (pictures / "7.txt").write_text("2.0")
    assert first.files[0].changed()
    assert check(get_task(path)).fingerprint != first.fingerprint


def test_a_file_that_changes_while_the_task_is_tried_is_named(tmp_path):
    path = task(tmp_path, "float((HERE / 'a').read_text())")
    (tmp_path / "a").write_text("1.0")
    loaded = get_task(path)
    (tmp_path / "a").write_text("2.0")
    with pytest.raises(ThalwegError, match=rf"{tmp_path}/a, which the task reads, changed after it had been read"):
        check(loaded)


def test_an_edit_during_the_race_names_the_file(tmp_path):
    (tmp_path / "a").write_text("1.0")
    files = [opened.kept(str(tmp_path / "a"))]
    opened.unchanged(files)
    (tmp_path / "a").write_text("2.0")
    with pytest.raises(ThalwegError, match=r"/a, which the task reads, changed while the race ran; put it back"):
        opened.unchanged(files)
    (tmp_path / "a").unlink()
    with pytest.raises(ThalwegError, match="changed while the race ran"):
        opened.unchanged(files)


WITH_WORKERS = """
class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, k):
        return torch.full((3,), k + float((HERE / 'a').read_text()))
"""


@pytest.mark.slow(reason="each look at the task forks workers again and again")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no process is forked here")
def test_what_the_workers_of_a_dataloader_open_is_seen(tmp_path):
    (tmp_path / "a").write_text("1.0")
    path = Path(task(tmp_path, "1.0"))
    text = path.read_text().replace("class Mine", f"{WITH_WORKERS}\nclass Mine")
    begin, end = text.index("        generator ="), text.index("    def loss")
    loader = "torch.utils.data.DataLoader(Numbers(), 4, True, num_workers=1, multiprocessing_context='fork')"
    path.write_text(f"{text[:begin]}        while True:\n            yield from {loader}\n\n{text[end:]}")
    first = check(get_task(str(path)))
    assert [file.path for file in first.files] == [str(tmp_path / "a")]
    (tmp_path / "a").write_text("2.0")
    assert check(get_task(str(path))).fingerprint != first.fingerprint


def test_two_watches_at_once_see_the_same_and_end_apart(tmp_path):
    one, two = opened.Opened(), opened.Opened()
    with opened.watching(one):
        with opened.watching(two):
            Path(__file__).read_bytes()
        (tmp_path / "later").write_text("")
        (tmp_path / "later").read_bytes()
    assert __file__ in one.read
    assert __file__ in two.read
    assert str(tmp_path / "later") in one.read
    assert str(tmp_path / "later") not in two.read


def test_nothing_is_watched_outside_and_a_strange_name_does_no_harm(tmp_path):
    what = opened.Opened()
    with opened.watching(what):
        for strange in ("\0", b"x", tmp_path / "missing"):
            with pytest.raises((OSError, ValueError)):
                Path(os.fsdecode(strange)).read_bytes()
        Path(__file__).read_bytes()
    Path(sys.executable).stat()
    open(opened.__file__).close()
    assert [file.path for file in what.files()] == [__file__]


@pytest.mark.slow(reason="a process that imports torch and counts")
def test_the_watch_costs_little_where_nothing_is_opened():
    """`id` and many others tell the hook too."""
    code = (
        "import timeit\n"
        "from thalweg.lab.tasks import opened\n"
        "before = min(timeit.repeat('id(x)', 'x = 1', number=100_000))\n"
        "with opened.watching(opened.Opened()): pass\n"
        "after = min(timeit.repeat('id(x)', 'x = 1', number=100_000))\n"
        "print((after - before) / 100_000)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 5e-6
