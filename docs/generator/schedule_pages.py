"""A page for each schedule, from its class."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

from docs.generator import charts
from docs.generator.optimizer_pages import markdown, table
from thalweg import schedule
from thalweg.explain import ENGLISH, Language
from thalweg.schedule.protocol import span_of

FOLDER = "schedules"
LABELS = ("Strength", "Weakness", "Source", "Example")
_LABELLED = re.compile(rf"^({'|'.join(LABELS)}): ", re.MULTILINE)


@dataclass(frozen=True)
class Text:
    """A schedule's docstring in its parts.

    Attributes:
        idea: the first paragraph.
        body: formulas and notes.
        arguments: what each argument is, by its name.
        labelled: strength, weakness, source and example.
    """

    idea: str
    body: str
    arguments: dict[str, str]
    labelled: dict[str, str]


def text_of(cls: type) -> Text:
    """The parts of a class's docstring."""
    doc = inspect.getdoc(cls) or ""
    first = _LABELLED.search(doc)
    body, tail = (doc[: first.start()], doc[first.start() :]) if first else (doc, "")
    pieces = _LABELLED.split(tail)[1:]
    labelled = {label: " ".join(said.split()) for label, said in zip(pieces[::2], pieces[1::2], strict=True)}
    body, _, args = body.partition("Args:\n")
    arguments = {
        m[1]: " ".join(m[2].split()) for m in re.finditer(r"^    (\w+): (.+(?:\n {5,}.+)*)", args, re.MULTILINE)
    }
    idea, _, rest = body.partition("\n\n")
    return Text(" ".join(idea.split()), rest.strip(), arguments, labelled)


def example(cls: type) -> Any:
    """The one that the class gives."""
    names = {name: getattr(schedule, name) for name in schedule.__all__}
    return eval(text_of(cls).labelled["Example"], names)  # our own docstring


def usage(cls: type) -> str:
    """The lines that make one and print it, as they stand on its page."""
    text = text_of(cls).labelled["Example"]
    names = sorted({n for n in re.findall(r"\b[A-Z]\w+", text) if n in schedule.__all__})
    return f"from thalweg.schedule import {', '.join(names)}\n\nprint({text})\n"


def files(say: Language = ENGLISH) -> dict[str, str]:
    """Pages and pictures, by their place below the site's sources."""
    rows, made = [], {}
    for name, cls in schedule.schedules().items():
        text = text_of(cls)
        rows.append(
            [
                f"[{cls.__name__}]({name}.md)",
                markdown(say.doc(text.idea)),
                f"![{cls.__name__}](images/{name}-small.svg)",
            ]
        )
        made[f"{FOLDER}/{name}.md"] = page(name, cls, say)
        made[f"{FOLDER}/images/{name}.svg"] = _picture(cls, say)
        made[f"{FOLDER}/images/{name}-small.svg"] = _thumb(cls)
    parts = [
        f"# {say('Schedules')}",
        say(
            "A schedule is a function of the step. Its value is a factor of the peak, which is the optimizer's `lr`. "
            "Schedules compose; [the guide](../guides/schedules.md) shows how. This list is made from the classes."
        ),
        table([say("schedule"), say("what it does"), ""], rows),
    ]
    return {f"{FOLDER}/index.md": "\n\n".join(parts) + "\n", **made}


def navigation(say: Language = ENGLISH) -> list[dict[str, Any]]:
    """In the order in which to read them."""
    pages = [{cls.__name__: f"{FOLDER}/{name}.md"} for name, cls in schedule.schedules().items()]
    return [{say("All schedules"): f"{FOLDER}/index.md"}, *pages]


def page(name: str, cls: type, say: Language = ENGLISH) -> str:
    """All that is said of a schedule."""
    text = text_of(cls)
    parts = [
        f"# {cls.__name__}",
        markdown(say.doc(text.idea)),
        *_prose(text.body, say),
        f"![{cls.__name__}](images/{name}.svg)",
    ]
    parts += [f"```python\n{usage(cls)}```"]
    if text.arguments:
        given = inspect.signature(cls).parameters
        rows = []
        for argument, meaning in text.arguments.items():
            default = given[argument].default if argument in given else inspect.Parameter.empty
            rows.append(
                [
                    f"`{argument}`",
                    "" if default is inspect.Parameter.empty else f"`{default!r}`",
                    markdown(say.doc(meaning)),
                ]
            )
        head = [say("name"), say("default"), say("what it is")]
        parts += [f"## {say('Arguments')}", table(head, rows)]
    parts += [f"## {say('When to take it')}"]
    parts += [
        f"{say(f'**{label}:**')} {markdown(say.doc(text.labelled[label]))}"
        for label in LABELS[:2]
        if label in text.labelled
    ]
    if "Source" in text.labelled:
        parts += [f"## {say('Source')}", markdown(text.labelled["Source"])]
    return "\n\n".join(parts) + "\n"


# -- pictures --------------------------------------------------------------------------------------------------------


def curve(cls: type) -> list[tuple[float, float]]:
    """Step and value of the example, through what shows its character."""
    made = example(cls)
    if cls is schedule.Plateau:
        return _plateau(made)
    span = span_of(made) or 100
    return [(float(step), float(made(step))) for step in range(span)]


def _plateau(plateau: schedule.Plateau, steps: int = 60) -> list[tuple[float, float]]:
    """That of a loss which goes half the way to a floor with each measurement; the floor is the factor itself."""
    state, loss, values = schedule.PlateauState(), 2.0, []
    for step in range(steps):
        values.append((float(step), state.factor))
        loss = loss + 0.5 * (max(state.factor, 0.05) - loss)
        state = plateau.after(round(loss, 2), state)
    return values


def _prose(body: str, say: Language) -> list[str]:
    """Paragraphs between an idea and its arguments; formulas are the same in all languages."""
    paragraphs = (" ".join(p.split()) for p in re.split(r"\n\s*\n", body) if p.strip())
    return [p if p.startswith("$$") else markdown(say.doc(p)) for p in paragraphs]


def _picture(cls: type, say: Language) -> str:
    values = curve(cls)
    x_label = (
        say("measurement, of a loss that stands still at each level") if cls is schedule.Plateau else say("update")
    )
    label = say("value") if cls is schedule.Between else say("factor of the peak")
    title = text_of(cls).labelled["Example"]
    within = None if cls is schedule.Between else (0.0, 1.05)
    return charts.lines({title: values}, title, x_label, label, y_range=within, stairs=True)


def _thumb(cls: type) -> str:
    values = curve(cls)
    last, low, high = values[-1][0], min(y for _, y in values), max(y for _, y in values)
    low = 0.0 if cls is not schedule.Between else low
    points = " ".join(f"{2 + 92 * x / last:.1f},{26 - 22 * (y - low) / (high - low):.1f}" for x, y in values)
    line = f'<polyline class="line s0" points="{points}"/>'
    return charts.svg(96, 30, cls.__name__, [line])
