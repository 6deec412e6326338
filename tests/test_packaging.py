"""What is written in several places about the package, and must be the same in each."""

import re
import tomllib
from pathlib import Path

import pytest

import thalweg
from thalweg._base.optional import LAB

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: conda calls it otherwise
CONDA = {"torch": "pytorch"}


def read(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def needed(requirements):
    """Lowest version by name: ``torch>=2.9`` and ``pytorch >=2.9`` alike."""
    return dict(re.fullmatch(r"([\w-]+) ?>=([\d.]+)", one).groups() for one in requirements)


def of_recipe(output):
    (found,) = (one for one in read("conda-recipe/recipe.yaml")["outputs"] if one["package"]["name"] == output)
    return needed(one for one in found["requirements"]["run"] if not one.startswith(("python ", "${{")))


def test_the_version_is_one():
    assert read("conda-recipe/recipe.yaml")["context"]["version"] == thalweg.__version__
    assert read("CITATION.cff")["version"] == thalweg.__version__


def test_the_address_is_one():
    address = PROJECT["urls"]["Repository"]
    assert all(url.startswith(address) for url in PROJECT["urls"].values())
    assert read("CITATION.cff")["repository-code"] == address
    assert read("conda-recipe/recipe.yaml")["about"]["repository"] == address
    for page in ("README.md", "README.zh-CN.md", "docs/start.md"):
        assert f'pip install "thalweg[lab] @ git+{address}"' in (ROOT / page).read_text(encoding="utf-8"), page


def test_the_conda_recipe_needs_what_the_package_needs():
    ours = {CONDA.get(name, name): version for name, version in needed(PROJECT["dependencies"]).items()}
    assert of_recipe("thalweg") == ours
    assert of_recipe("thalweg-lab") == needed(PROJECT["optional-dependencies"]["lab"])


def test_the_command_names_what_the_lab_needs():
    assert set(LAB.values()) == set(needed(PROJECT["optional-dependencies"]["lab"]))


def test_every_python_torch_and_system_that_is_promised_is_tested():
    jobs = read(".github/workflows/ci.yml")["jobs"]
    rows = jobs["tests"]["strategy"]["matrix"]["include"]
    (gate,) = (step["with"]["python-version"] for step in jobs["gate"]["steps"] if "with" in step)
    promised = re.findall(r"Python :: (\d\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert sorted({gate, *(row["python"] for row in rows)}) == promised
    assert f">={promised[0]}" == PROJECT["requires-python"]
    oldest = needed(PROJECT["dependencies"])["torch"]
    assert [row["torch"] for row in rows if "torch" in row] == [f"=={oldest}.*"]
    assert {"macos-latest", "windows-latest"} <= {row.get("os") for row in rows}


@pytest.mark.parametrize("path", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_every_job_has_a_limit_of_time(path):
    for name, job in read(path)["jobs"].items():
        assert job["timeout-minutes"], name


def test_only_the_job_that_publishes_may_ask_for_a_token():
    release = read(".github/workflows/release.yml")
    assert release["permissions"] == {"contents": "read"}
    assert [name for name, job in release["jobs"].items() if "permissions" in job] == ["publish"]
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
