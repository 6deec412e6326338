"""A process of ours ends without looking for garbage."""

from tests.processes import python

SEEN_LAST = """
import atexit, gc
from thalweg._base.leaving import leave_quickly
atexit.register(lambda: print(gc.get_freeze_count() > 1000))  # after what is registered later
{}
"""


def test_nothing_is_left_to_be_searched_at_the_end():
    assert python(SEEN_LAST.format("leave_quickly()")).strip() == "True"
    assert python(SEEN_LAST.format("")).strip() == "False"
