"""The former place of `thalweg.runtime.formats`, by which pickled optimizers name the class of their storage."""

from thalweg.runtime.formats import Storage as Storage
