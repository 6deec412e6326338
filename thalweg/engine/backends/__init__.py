"""The former place of `thalweg.runtime.backends`; see `triton_formats`."""
