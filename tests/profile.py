"""`make profile`: pytest's --durations on standard input, summed for each file and each check of the suite."""

from __future__ import annotations

import re
import sys
from collections import defaultdict

LINE = re.compile(r"\s*([\d.]+)s (?:call|setup|teardown)\s+(\S+?)::(\w+)(?:\[[^-\]]*-(\w+))?")
SHOWN = 25


def sums(lines):
    """Seconds and numbers of tests: of each test, of each file, and of each check of the conformance suite."""
    tests, files, checks = (defaultdict(lambda: [0.0, 0]) for _ in range(3))
    for line in lines:
        if found := LINE.match(line):
            seconds, file, test, check = found.groups()
            totals = [tests[f"{file}::{test}"], files[file]]
            if test == "test_every_optimizer" and check:
                totals.append(checks[check])
            for total in totals:
                total[0] += float(seconds)
                total[1] += 1
    return tests, files, checks


def main():
    """Print what takes longest."""
    for what, found in zip(("test", "file", "check of every optimizer"), sums(sys.stdin), strict=True):
        print(f"{'seconds':>8}  {'tests':>6}  {what}")
        for name, (seconds, count) in sorted(found.items(), key=lambda item: -item[1][0])[:SHOWN]:
            print(f"{seconds:8.1f}  {count:6}  {name}")


if __name__ == "__main__":
    main()
