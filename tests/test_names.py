"""What `import thalweg` gives, and when torch is imported."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

import thalweg
from tests.processes import python


def test_the_package_is_imported_without_torch():
    assert python("import sys, thalweg; print('torch' in sys.modules, thalweg.__version__)").split() == [
        "False",
        thalweg.__version__,
    ]


def test_all_names_are_there():
    for name in thalweg.__all__:
        assert getattr(thalweg, name) is getattr(thalweg, name), name
    assert set(thalweg.__all__) <= set(dir(thalweg))
    names = {}
    exec("from thalweg import *", names)
    assert set(thalweg.__all__) <= set(names)


def test_type_checkers_see_the_same_names():
    (block,) = (
        node for node in ast.parse(Path(thalweg.__file__).read_text(encoding="utf-8")).body if isinstance(node, ast.If)
    )
    seen = {"__version__"}
    for line in block.body:
        for alias in line.names:
            seen |= set(import_module(line.module).__all__) if alias.name == "*" else {alias.asname}
    assert seen == set(thalweg.__all__)


@pytest.mark.parametrize("name", ["adamw", "Nothing", "__wrapped__", "_lazily"])
def test_a_name_that_is_not_there_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=f"module 'thalweg' has no attribute '{name}'"):
        getattr(thalweg, name)


def test_looking_for_a_private_name_does_not_import_torch():
    assert (
        python("import sys, thalweg; print(hasattr(thalweg, '__wrapped__'), 'torch' in sys.modules)").split()
        == ["False"] * 2
    )
