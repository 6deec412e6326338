"""A page for each optimizer, from its class and its runs."""

from __future__ import annotations

import re
from typing import Any

from docs.generator import charts, usage
from docs.generator.runs import RATES, Run, best_rate
from docs.generator.surfaces import SURFACES
from docs.generator.walking import PATH_STEPS, TRAIN_STEPS, averages
from tests.peers.second_opinion import OPINIONS
from thalweg.explain import ENGLISH, Branch, Explanation, Language, explain, tree
from thalweg.explain.page import OF_VECTORS, legend, value
from thalweg.explain.picture import picture
from thalweg.registry import find, optimizers, wrappers

FOLDER = "optimizers"
#: above this, losses are drawn at it
HIGHEST = 5.0


def files(runs: dict[str, Run], say: Language = ENGLISH) -> dict[str, str]:
    """Pages and pictures, by their place below the site's sources."""
    about = {name: explain(cls) for name, cls in {**optimizers(), **wrappers()}.items()}
    made = {f"{FOLDER}/index.md": _index(about, say), f"{FOLDER}/tree.svg": picture(say)}
    for name, one in about.items():
        made[f"{FOLDER}/{name.lower()}.md"] = page(one, runs.get(name), say)
        for kind, drawing in _pictures(one, runs.get(name), say).items():
            made[f"{FOLDER}/{kind}/{name.lower()}.svg"] = drawing
    return made


def navigation(say: Language = ENGLISH) -> list[dict[str, Any]]:
    """Families in the order of the tree, then the wrappers."""
    order = [name for root in tree() for name in _names(root)]
    families: dict[str, list[str]] = {}
    for name in order:
        families.setdefault(optimizers()[name].__module__.rpartition(".")[-1], []).append(name)
    groups = [{_family(members[0], say): [_entry(n) for n in members]} for members in families.values()]
    around = {say("Around any optimizer"): [_entry(n) for n in wrappers()]}
    return [{say("All optimizers"): f"{FOLDER}/index.md"}, *groups, around]


# -- one page --------------------------------------------------------------------------------------------------------


#: what a page says of the keywords that its table leaves out
COMMON = (
    "All optimizers except L-BFGS also take [a set of common keywords](../guides/wrappers.md#modifiers), "
    "such as `clip_global_norm` and `clip_value`; the Schedule-Free optimizers take only some of these keywords."
)


def page(about: Explanation, run: Run | None, say: Language = ENGLISH) -> str:
    """All that is said of an optimizer."""
    text = say.words(about.name, about.text)
    parts = [f"# {about.name}", markdown(text.idea), _lineage(about, say)]
    parts += [f"## {say('The step')}", *_formula(about, say), *_body(about, text.body, say)]
    parts += [f"## {say('When to take it')}", _said(say("**Strength:**"), text.strength)]
    parts += [_said(say("**Weakness:**"), text.weakness)]
    parts += [f"## {say('Use it')}", f"```python\n{_commented(usage.lines(about.name, run), say)}```"]
    parts += _settings(about, say)
    if about.cost is not None:
        parts += [f"## {say('Cost')}", _cost(about, say)]
    if run is not None:
        parts += [f"## {say('Its path and its learning rate')}", *_runs(about.name, run, say)]
    parts += [f"## {say('Differs from its paper, and from torch')}", *differences(about, say)]
    if text.source:
        parts += [f"## {say('Source')}", markdown(text.source)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _body(about: Explanation, body: str, say: Language) -> list[str]:
    """The class's own words, which begin with the formula as its paper has it."""
    if not body or about.formula is None:
        return [markdown(body)]
    return [say("As papers usually write it:") if body.startswith("$$") else "", markdown(body)]


def _said(label: str, text: str) -> str:
    return f"{label} {markdown(text)}" if text else ""


def _commented(code: str, say: Language) -> str:
    """Code with its comments in this language."""
    return re.sub(r"# (.+)", lambda comment: f"# {say(comment[1])}", code)


def _settings(about: Explanation, say: Language) -> list[str]:
    if not about.settings:
        return []
    rows = [
        [f"`{s.name}`", s.symbol, f"`{value(s.default)}`", _range(s.allowed), markdown(say.doc(s.doc))]
        for s in about.settings
    ]
    head = [say(word) for word in ("name", "symbol", "default", "range", "what it is")]
    parts = [f"## {say('Hyperparameters')}", table(head, rows)]
    if "independent_weight_decay" in getattr(find(about.name), "hypers", {}):
        parts.append(say(COMMON))
    return parts


def _formula(about: Explanation, say: Language) -> list[str]:
    if about.formula is None:
        return [] if say.words(about.name, about.text).body else [f"$$\n{math}\n$$" for math in about.text.math]
    said = say("This formula is made from the code that runs:")
    rows = [[symbol, markdown(meaning)] for symbol, meaning in legend(about, say)]
    vectors = [say(OF_VECTORS), f"$$\n{about.of_vectors.latex}\n$$"] if about.of_vectors else []
    return [said, f"$$\n{about.formula.latex}\n$$", *vectors, table(["", say("meaning")], rows)]


def _lineage(about: Explanation, say: Language) -> str:
    *parents, _ = about.lineage
    parts = []
    adds = say.words(about.name, about.text).adds
    if parents:
        chain = " → ".join([*(_link(p) for p in parents), f"**{about.name}**"])
        parts.append(f"{chain}" + (say(": adds {what}", what=markdown(adds)) if adds else ""))
    children = _children(about.name)
    if children:
        parts.append(say("It is extended by {names}.", names=say.listed(map(_link, children))))
    return "\n\n".join(parts)


def _range(allowed: str) -> str:
    return f"`{allowed}`" if allowed else ""


def _cost(about: Explanation, say: Language) -> str:
    cost = about.cost
    assert cost is not None
    rows = [[say("bytes of state per parameter"), f"{cost.state_bytes:.3g}"]]
    without = say(", without the functions below") if cost.leaves else ""
    if cost.passes is not None and cost.moved_bytes is not None:
        rows += [
            [f"{say('passes over memory in a step')}{without}", f"{cost.passes}"],
            [f"{say('bytes moved per parameter')}{without}", f"{cost.moved_bytes:.3g}"],
            [f"{say('operations per parameter')}{without}", f"{cost.flops}"],
        ]
    if cost.leaves:
        rows.append(
            [say("calls of functions that take whole tensors"), say.listed(f"`{leaf}`" for leaf in cost.leaves)]
        )
    rows.append([say("backends"), say.listed(f"`{b}`" for b in cost.backends)])
    return table([say("for a float32 matrix of 1024 × 1024"), ""], rows)


def differences(about: Explanation, say: Language = ENGLISH) -> list[str]:
    """From the paper, from torch, and from other libraries; what is compared with what in the tests."""
    differs = say.words(about.name, about.text).differs
    parts = [markdown(differs)] if differs else []
    torchs = about.reference if about.reference.startswith("torch.optim.") else ""
    if torchs and differs:
        parts.append(
            say(
                "No difference from `{torchs}` is known, except for what is named here: the tests compare every step "
                "with it, on parameters in float64, and load its checkpoints.",
                torchs=torchs,
            )
        )
    elif torchs:
        parts.append(
            say(
                "No difference from `{torchs}` is known: the tests compare every step with it, on parameters in "
                "float64, and load its checkpoints.",
                torchs=torchs,
            )
        )
    elif not differs:
        parts.append(
            say(
                "No difference from the paper is known: the tests compare every step, in float64, with a second, "
                "plain implementation of it."
            )
        )
    rows = list(dict.fromkeys((_peer(o.peer), say.doc(o.differs)) for o in OPINIONS if o.rule == about.name))
    same = sorted({peer for peer, why in rows if not why})
    unlike = [[peer, why] for peer, why in rows if why]
    if same:
        parts.append(say("The same settings give the same path in {peers}.", peers=say.listed(same)))
    if unlike:
        parts.append(table([say("other library"), say("how its step differs")], unlike))
    return parts


def _peer(address: str) -> str:
    module, _, name = address.partition(":")
    return f"`{module}.{name}`"


def _runs(name: str, run: Run, say: Language) -> list[str]:
    drawn = [s for s in SURFACES if run.get(s.name)]
    parts = []
    if drawn:
        shown = "\n".join(
            f"![{say('Path of {name}: {surface}', name=name, surface=say(s.title))}]({s.name}/{name.lower()}.svg)"
            for s in drawn
        )
        rates = [say("{rate} ({surface})", rate=f"{run[s.name]['lr']:g}", surface=say(s.title).lower()) for s in drawn]
        course = (
            "The learning rate is constant here: the mean of the weights replaces a schedule. The picture shows "
            "the path of this mean."
            if averages(optimizers()[name])
            else "It falls linearly to zero."
        )
        parts = [
            f"{shown}\n{{ .surfaces }}",
            say(
                "The pictures show {steps} steps from ○; the lowest points are marked ×. The learning rate is the "
                "best of {rates} that were tried, judged by the mean logarithm of the path's height; it is {found}.",
                steps=PATH_STEPS,
                rates=len(RATES),
                found=say(", ").join(rates),
            )
            + " "
            + say(course),
        ]
    else:
        parts = [
            say("This optimizer needs labels that a model draws; a surface has none, so there is no path to show.")
        ]
    best = best_rate(run)
    if best is not None:
        loss, lr = best
        parts += [
            f"![{say('Sensitivity of {name} to its learning rate', name=name)}](rates/{name.lower()}.svg)",
            say(
                "Held-out loss of a small network on 8×8 digits after {steps} steps, as the mean of two seeds. It is "
                "lowest at lr = {lr}, with {loss} nats. Losses above {highest} are drawn at {highest}; the line ends "
                "where runs diverged. This is one small task: it shows how wide the range of good learning rates is, "
                "not which optimizer is best.",
                steps=TRAIN_STEPS,
                lr=f"{lr:g}",
                loss=f"{loss:.3g}",
                highest=f"{HIGHEST:g}",
            ),
        ]
    return parts


def _pictures(about: Explanation, run: Run | None, say: Language) -> dict[str, str]:
    if run is None:
        return {}
    made = {}
    for surface in SURFACES:
        if run.get(surface.name):
            flat = run[surface.name]["path"]
            points = list(zip(flat[::2], flat[1::2], strict=True))
            made[surface.name] = charts.over(surface, [charts.Path(about.name, points)], title=say(surface.title))
    tried = [(lr, loss) for lr, loss in zip(RATES, run["digits"], strict=True) if loss is not None]
    if tried:
        made["rates"] = charts.lines(
            {about.name: tried},
            say("8×8 digits"),
            say("learning rate"),
            say("held-out loss, nats"),
            log_x=True,
            log_y=True,
            y_range=(0.05, HIGHEST),
        )
    return made


# -- the index -------------------------------------------------------------------------------------------------------


def _index(about: dict[str, Explanation], say: Language) -> str:
    rows = []
    for name in (n for root in tree() for n in _names(root)):
        one = about[name]
        text = say.words(name, one.text)
        state = f"{one.cost.state_bytes:.3g}" if one.cost else ""
        rows.append([_link(name), markdown(text.adds or text.idea), state, _year(one)])
    around = [[_link(name), markdown(say.words(name, about[name].text).idea)] for name in wrappers()]
    parts = [
        f"# {say('Optimizers')}",
        say(
            "There are {count} optimizers. Each is a class that declares its hyperparameters and its state, with one "
            "pure function. This list is made from the classes; `thalweg list` and `thalweg explain NAME` show the "
            "same in a terminal. If you do not know which to take, see [which one to "
            "take](../story.md#which-one-shall-i-take).",
            count=len(rows),
        ),
        f"![{say('The family tree of the optimizers')}](tree.svg)",
        table([say(w) for w in ("optimizer", "adds to its parent", "bytes of state per parameter", "year")], rows),
        f"## {say('Around any optimizer')}",
        table([say("wrapper"), say("what it does")], around),
    ]
    return "\n\n".join(parts) + "\n"


def _link(name: str) -> str:
    return f"[{name}]({name.lower()}.md)"


def _entry(name: str) -> dict[str, str]:
    return {name: f"{FOLDER}/{name.lower()}.md"}


def _year(about: Explanation) -> str:
    found = re.search(r"\b(?:19|20)\d\d\b", about.text.source)
    return found.group() if found else ""


def _family(name: str, say: Language) -> str:
    about = explain(find(name))
    return re.split(r"[:.：。]", say.family(about.family, about.about))[0]


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


#: an address ends before the punctuation of its sentence, which may be Chinese
_ADDRESS = re.compile(r"(?<!\]\()(?<![<\"])(https?://[^\s;,)\u0080-\uffff]*[^\s;,.)\u0080-\uffff])")


def markdown(text: str) -> str:
    """A docstring's text: roles of Sphinx and double backticks as Markdown has them, addresses as links."""
    text = re.sub(r":(?:class|func|meth|mod|data):`~?([^`]+)`", r"`\1`", text)
    text = re.sub(r"``(.+?)``", r"`\1`", text)
    return _ADDRESS.sub(r"<\1>", text)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
