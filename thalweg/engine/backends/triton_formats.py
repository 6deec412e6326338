"""The former place of `thalweg.runtime.backends.triton_formats`, by which generated kernels name it.

The text of a generated kernel, of which `tests/golden` keeps some, does not change when our modules move.
"""

from thalweg.runtime.backends.triton_formats import *  # noqa: F403
