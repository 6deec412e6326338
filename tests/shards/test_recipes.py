"""The scripts of docs/scaling.md, run by torchrun on two processes; those whose packages are missing are left out."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "docs/scaling.md", ROOT / "docs/zh/scaling.md")
#: seconds
PATIENCE = 280
#: by its first line, what a script needs
NEEDS = {
    "# torchrun": (),
    "# transformers": ("transformers", "accelerate"),
    "# accelerate": ("accelerate",),
    "# lightning": ("lightning",),
}
#: what stands before a script here: Accelerate shards on accelerators alone, and takes processors for one
BEFORE = """
import accelerate.state
_begin = accelerate.state.AcceleratorState.__init__
def begin(self, *args, fsdp_plugin=None, **more):
    _begin(self, *args, fsdp_plugin=fsdp_plugin, **more)
    if fsdp_plugin is not None:
        self.distributed_type, self.fsdp_plugin = accelerate.utils.DistributedType.FSDP, fsdp_plugin
accelerate.state.AcceleratorState.__init__ = begin
"""


def scripts(page):
    """The scripts of a page, by their first line."""
    found = re.findall(r"```python\n(# \w+\n.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return {script.partition("\n")[0]: script for script in found}


def test_both_editions_have_the_same():
    here, there = map(scripts, PAGES)
    assert here == there
    assert here.keys() == NEEDS.keys()


@pytest.mark.ranks
@pytest.mark.parametrize("name", NEEDS)
def test_a_script_learns_on_two_ranks(name, tmp_path):
    missing = [package for package in NEEDS[name] if find_spec(package) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}")
    path = tmp_path / "script.py"
    path.write_text((BEFORE if "accelerate" in NEEDS[name] else "") + scripts(PAGES[0])[name], encoding="utf-8")
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(path)]
    given = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    out = subprocess.run(run, cwd=tmp_path, env=given, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert out.returncode == 0, out.stdout[-2000:] + out.stderr[-4000:]
    said = re.findall(r"(\w+): loss ([\d.]+) to ([\d.]+)", out.stdout)
    assert [kind for kind, *_ in said] == ["DTensor"] * 2, out.stdout
    assert all(float(last) < float(first) for _, first, last in said)
