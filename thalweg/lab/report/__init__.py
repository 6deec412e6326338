"""The report (draft)."""
from pathlib import Path
def write_report(result, path):
    Path(path).write_text(result["headline"])
