"""The report of a race: pages that need nothing else, and one picture.

`svg` (a small chart kit), `figures` (one function a figure), `tables` (cell by cell), `data` (JSON and CSV), `page`
(the HTML around them; its templates, CSS and script lie beside it).
"""

from thalweg.lab.report.data import as_csv, as_json
from thalweg.lab.report.figures import picture
from thalweg.lab.report.ladder import write_ladder
from thalweg.lab.report.page import render, render_overview, write_overview, write_report

__all__ = [
    "as_csv",
    "as_json",
    "picture",
    "render",
    "render_overview",
    "write_ladder",
    "write_overview",
    "write_report",
]
