"""``python -m docs.generator``: build the site; a status of 1 for anything that is wrong with it."""

import sys

from docs.generator import runs
from docs.generator.site import SOURCES, build

wrong = build(runs.current(runs.load()))
print("\n".join(wrong) if wrong else f"wrote {SOURCES / 'site' / 'index.html'}")
sys.exit(bool(wrong))
