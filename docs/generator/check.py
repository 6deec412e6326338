"""What must be true of the built site: links lead somewhere, nothing is fetched from elsewhere, formulas were read."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: attributes that fetch something as a page is shown, by element; a link that a reader may click is none
FETCHING = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data"}
#: relations of a <link> that fetch nothing
HARMLESS = {"canonical", "next", "prev", "alternate"}


class _Page(HTMLParser):
    """What a page links to, fetches, and can be linked at."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.text: list[str] = []
        self._quoted = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: text or "" for name, text in attrs}
        self._quoted += tag in ("code", "script", "style", "math")
        self.anchors |= {found[key] for key in ("id", "name") if key in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag in FETCHING and FETCHING[tag] in found and found.get("rel") not in HARMLESS:
            self.fetched.append(found[FETCHING[tag]])

    def handle_endtag(self, tag: str) -> None:
        self._quoted -= tag in ("code", "script", "style", "math")

    def handle_data(self, data: str) -> None:
        if not self._quoted:
            self.text.append(data)


def problems(site: Path) -> list[str]:
    """Everything that is wrong, a line each."""
    pages = {file: _read(file) for file in sorted(site.rglob("*.html"))}
    found = [] if pages else [f"no page in {site}"]
    for file, page in pages.items():
        where = file.relative_to(site)
        for address in page.fetched:
            if urlsplit(address).scheme not in ("", "data") or address.startswith("//"):
                found.append(f"{where} fetches {address}")
            elif not _leads(site, file, address, pages):
                found.append(f"{where} needs {address}, which is not there")
        found += [f"{where} links to {a}, which is not there" for a in page.links if not _leads(site, file, a, pages)]
        text = "".join(page.text)
        if "$$" in text or "\\frac" in text or "``" in text:
            found.append(f"{where} shows markup that was meant to be read")
    return found


def _read(file: Path) -> _Page:
    page = _Page()
    page.feed(file.read_text(encoding="utf-8"))
    return page


def _leads(site: Path, file: Path, address: str, pages: dict[Path, _Page]) -> bool:
    """Whether an address within the site is there, its anchor too; others are not asked."""
    parts = urlsplit(address)
    if parts.scheme or address.startswith("//"):
        return True
    base = site if parts.path.startswith("/") else file.parent
    target = (base / unquote(parts.path).lstrip("/")).resolve() if parts.path not in ("", ".") else file
    if target.is_dir():
        target /= "index.html"
    if not target.exists():
        return False
    return not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].anchors
