"""A page for each optimizer, from its class and its runs."""

from __future__ import annotations

import re
from typing import Any

from docs.generator import charts
from docs.generator.runs import RATES, Run
from docs.generator.surfaces import SURFACES
from docs.generator.walking import PATH_STEPS, TRAIN_STEPS, averages
from thalweg.explain import Branch, Explanation, explain, tree
from thalweg.explain.page import OF_VECTORS, legend, value
from thalweg.explain.picture import picture
from thalweg.registry import optimizers, wrappers

FOLDER = "optimizers"
#: above this a loss over ten classes says nothing any more
CHANCE = 2.3026


def files(runs: dict[str, Run]) -> dict[str, str]:
    """Pages and pictures, by their place below the site's sources."""
    about = {name: explain(cls) for name, cls in {**optimizers(), **wrappers()}.items()}
    made = {f"{FOLDER}/index.md": _index(about), f"{FOLDER}/tree.svg": picture()}
    for name, one in about.items():
        made[f"{FOLDER}/{name.lower()}.md"] = page(one, runs.get(name))
        for kind, drawing in _pictures(one, runs.get(name)).items():
            made[f"{FOLDER}/{kind}/{name.lower()}.svg"] = drawing
    return made


def navigation() -> list[dict[str, Any]]:
    """Families in the order of the tree, then what stands around any of them."""
    order = [name for root in tree() for name in _names(root)]
    families: dict[str, list[str]] = {}
    for name in order:
        families.setdefault(optimizers()[name].__module__.rpartition(".")[-1], []).append(name)
    groups = [{_family(members[0]): [_entry(n) for n in members]} for members in families.values()]
    return [{"All of them": f"{FOLDER}/index.md"}, *groups, {"Around any of them": [_entry(n) for n in wrappers()]}]


def usage(name: str) -> str:
    """The lines that make one, as they stand on its page."""
    about = explain(name)
    lines = ["import torch", "import thalweg", ""]
    if about.cost is None:
        made = f"optimizer = thalweg.{name}(thalweg.AdamW(model.parameters(), lr=1e-3))"
    else:
        rate = next((f", lr={value(s.default)}" for s in about.settings if s.name == "lr"), "")
        made = f'optimizer = thalweg.create("{name.lower()}", model{rate})'
    layers = "torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2)"
    return "\n".join([*lines, f"model = torch.nn.Sequential({layers})", made, ""])


# -- one page --------------------------------------------------------------------------------------------------------


def page(about: Explanation, run: Run | None) -> str:
    """All that is said of an optimizer."""
    text = about.text
    parts = [f"# {about.name}", markdown(text.idea), _lineage(about)]
    parts += ["## The step", *_formula(about), *map(markdown, text.notes)]
    parts += ["## When to take it", f"**Strength:** {markdown(text.strength)}" if text.strength else ""]
    parts += [f"**Weakness:** {markdown(text.weakness)}" if text.weakness else ""]
    parts += ["## Use it", f"```python\n{usage(about.name)}```"]
    if about.settings:
        rows = [
            [f"`{s.name}`", s.symbol, f"`{value(s.default)}`", _range(s.allowed), markdown(s.doc)]
            for s in about.settings
        ]
        parts += ["## Hyperparameters", table(["name", "symbol", "default", "range", "what it is"], rows)]
    if about.cost is not None:
        parts += ["## Cost", _cost(about)]
    if run is not None:
        parts += ["## Its path and its learning rate", *_runs(about.name, run)]
    if text.source:
        parts += ["## Source", markdown(text.source)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _formula(about: Explanation) -> list[str]:
    if about.formula is None:
        return [f"$$\n{math}\n$$" for math in about.text.math]
    said = "Rendered from the graph that every backend runs:" if about.formula else ""
    rows = [[symbol, markdown(meaning)] for symbol, meaning in legend(about)]
    vectors = [OF_VECTORS, f"$$\n{about.of_vectors.latex}\n$$"] if about.of_vectors else []
    return [said, f"$$\n{about.formula.latex}\n$$", *vectors, table(["", "meaning"], rows)]


def _lineage(about: Explanation) -> str:
    *parents, _ = about.lineage
    parts = []
    if parents:
        chain = " → ".join([*(f"[{p}]({p.lower()}.md)" for p in parents), f"**{about.name}**"])
        parts.append(f"{chain}" + (f": adds {markdown(about.text.adds)}" if about.text.adds else ""))
    children = _children(about.name)
    if children:
        parts.append("Extended by " + ", ".join(f"[{c}]({c.lower()}.md)" for c in children) + ".")
    return "\n\n".join(parts)


def _range(allowed: str) -> str:
    return f"`{allowed}`" if allowed else ""


def _cost(about: Explanation) -> str:
    cost = about.cost
    assert cost is not None
    rows = [["state, bytes a parameter", f"{cost.state_bytes:.3g}"]]
    if cost.passes is not None and cost.moved_bytes is not None:
        rows += [
            ["passes over memory in a step", f"{cost.passes}"],
            ["bytes moved a parameter", f"{cost.moved_bytes:.3g}"],
            ["operations a parameter", f"{cost.flops}"],
        ]
    if cost.leaves:
        rows.append(["besides", ", ".join(f"`{leaf}`" for leaf in cost.leaves)])
    rows.append(["backends", ", ".join(f"`{b}`" for b in cost.backends)])
    return table(["of a float32 parameter in a 1024 × 1024 matrix", ""], rows)


def _runs(name: str, run: Run) -> list[str]:
    drawn = [s for s in SURFACES if run.get(s.name)]
    shown = "\n".join(f"![Path of {name}: {s.title}]({s.name}/{name.lower()}.svg)" for s in drawn)
    rates = ", ".join(f"{run[s.name]['lr']:g} on the {s.title.lower()}" for s in drawn)
    best = [(loss, lr) for lr, loss in zip(RATES, run["digits"], strict=True) if loss is not None]
    averaged = "stays there, since its mean of the weights, which is shown, takes the place of a schedule"
    course = averaged if averages(optimizers()[name]) else "falls on a line to zero"
    if drawn:
        parts = [
            f"{shown}\n{{ .surfaces }}",
            f"{PATH_STEPS} steps from ○; the lowest points are ×. The learning rate is the one of {len(RATES)} that "
            f"leads lowest on average ({rates}), and {course}. Everything else is as by default.",
        ]
    else:
        parts = ["It needs labels that a model draws, which a surface does not have: there is no path to show."]
    if best:
        loss, lr = min(best)
        parts += [
            f"![Sensitivity of {name} to its learning rate](rates/{name.lower()}.svg)",
            f"Held-out loss of a small network on 8×8 digits after {TRAIN_STEPS} steps, mean of two seeds; lowest "
            f"{loss:.3g} nats, at lr = {lr:g}. Above 5 it is drawn at 5; where the line ends, runs diverged. One small "
            "task: it shows how wide the valley is, not who is best.",
        ]
    return parts


def _pictures(about: Explanation, run: Run | None) -> dict[str, str]:
    if run is None:
        return {}
    made = {}
    for surface in SURFACES:
        if run.get(surface.name):
            flat = run[surface.name]["path"]
            points = list(zip(flat[::2], flat[1::2], strict=True))
            made[surface.name] = charts.over(surface, [charts.Path(about.name, points)])
    tried = [(lr, loss) for lr, loss in zip(RATES, run["digits"], strict=True) if loss is not None]
    if tried:
        made["rates"] = charts.lines(
            {about.name: tried},
            "8×8 digits",
            "learning rate",
            "held-out loss, nats",
            log_x=True,
            log_y=True,
            y_range=(0.05, 5.0),
        )
    return made


# -- the index -------------------------------------------------------------------------------------------------------


def _index(about: dict[str, Explanation]) -> str:
    rows = []
    for name in (n for root in tree() for n in _names(root)):
        one = about[name]
        state = f"{one.cost.state_bytes:.3g}" if one.cost else ""
        rows.append([_link(name), markdown(one.text.adds or one.text.idea), state, _year(one)])
    around = [[_link(name), markdown(about[name].text.idea)] for name in wrappers()]
    return (
        "\n\n".join(
            [
                "# Optimizers",
                f"{len(rows)} optimizers, each a class of declared hyperparameters and state and one pure "
                "function. What follows is made from the classes: `thalweg list` and `thalweg explain NAME` say the "
                "same in a terminal.",
                "![The family tree of the optimizers](tree.svg)",
                table(["optimizer", "adds to its parent", "state, bytes a parameter", "year"], rows),
                "## Around any of them",
                table(["wrapper", "what it does"], around),
            ]
        )
        + "\n"
    )


def _link(name: str) -> str:
    return f"[{name}]({name.lower()}.md)"


def _entry(name: str) -> dict[str, str]:
    return {name: f"{FOLDER}/{name.lower()}.md"}


def _year(about: Explanation) -> str:
    found = re.search(r"\b(?:19|20)\d\d\b", about.text.source)
    return found.group() if found else ""


def _family(name: str) -> str:
    return re.split(r"[:.]", explain(name).about)[0]


def _names(branch: Branch) -> list[str]:
    return [branch.name, *(name for child in branch.children for name in _names(child))]


def _children(name: str) -> list[str]:
    def found(branches: list[Branch]) -> Branch | None:
        for branch in branches:
            if branch.name == name:
                return branch
            if (below := found(branch.children)) is not None:
                return below
        return None

    branch = found(tree())
    return [child.name for child in branch.children] if branch else []


# -- text ------------------------------------------------------------------------------------------------------------


def markdown(text: str) -> str:
    """A docstring's text: roles of Sphinx and double backticks as Markdown has them, addresses as links."""
    text = re.sub(r":(?:class|func|meth|mod|data):`~?([^`]+)`", r"`\1`", text)
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    return re.sub(r"(?<![(<\"])(https?://[^\s;,)]*[^\s;,.)])", r"<\1>", text)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
