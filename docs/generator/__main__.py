"""``python -m docs.generator``: build the site; a status of 1 for anything that is wrong with it."""

import sys

from docs.generator.site import SITE, build

wrong = build()
print("\n".join(wrong) if wrong else f"wrote {SITE / 'index.html'}")
sys.exit(bool(wrong))
