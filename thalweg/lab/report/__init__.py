"""The report of a race: one page that needs nothing else, and one picture.

`svg` (a small chart kit), `figures` (one function a figure), `page` (the HTML around them).
"""

from thalweg.lab.report.figures import picture
from thalweg.lab.report.page import render, write_report

__all__ = ["picture", "render", "write_report"]
