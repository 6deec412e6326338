"""Lines of code by room; growth that the changelog does not name is an error.

The section "Lines by room" of the changelog's newest version holds a number for each folder of the package. Whoever
adds more than two in a hundred to a room writes the new number there, and beside it what the lines are for.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENDINGS = (".py", ".c", ".h", ".js", ".css", ".j2")
#: growth that need not be named
SLACK = 0.02


def counted() -> dict[str, int]:
    """Lines of each room."""
    lines: dict[str, int] = {}
    for path in sorted((ROOT / "thalweg").rglob("*")):
        if path.suffix in ENDINGS:
            inside = path.relative_to(ROOT / "thalweg").parts
            room = inside[0] if len(inside) > 1 else "thalweg"
            lines[room] = lines.get(room, 0) + len(path.read_text(encoding="utf-8").splitlines())
    return lines


def named() -> dict[str, int]:
    """What the changelog says of them."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## ")[1]
    section = text.partition("### Lines by room\n")[2].partition("\n###")[0]
    return {room: int(number.replace(",", "")) for room, number in re.findall(r"`(\w+)` ([\d,]+)", section)}


def main() -> None:
    lines, known = counted(), named()
    total = sum(lines.values())
    largest = sorted(lines.items(), key=lambda item: -item[1])
    print("lines:", ", ".join(f"{room} {count:,}" for room, count in largest), f"= {total:,}")
    grown = [room for room, count in lines.items() if count > known.get(room, 0) * (1 + SLACK)]
    for room in grown:
        before = f"{known[room]:,} lines" if room in known else "no such room"
        print(f"{room} has {lines[room]:,} lines, CHANGELOG.md knows {before}: write there what has grown, and why")
    sys.exit(bool(grown))


if __name__ == "__main__":
    main()
