"""The site has every page in the index's order, and is not built where a link or an anchor leads nowhere."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from docs import make_site
from tests.test_docs import DOCS, INDEX, PAGES, ROOT

BESIDE = [ROOT / name for name in make_site.BESIDE]


def test_every_page_stands_once_in_the_site() -> None:
    nav: list[Any] = make_site.navigation(INDEX.read_text(encoding="utf-8"))
    pages = [
        page for one in nav for inside in one.values() for page in ([inside] if isinstance(inside, str) else inside)
    ]
    files = [ROOT / (page if isinstance(page, str) else next(iter(page.values()))) for page in pages]
    assert sorted(files) == sorted([*PAGES, *BESIDE])


class Needs(HTMLParser):
    """What a browser fetches to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.files: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        name = {"script": "src", "img": "src", "source": "src", "iframe": "src"}.get(tag)
        if tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload"):
            name = "href"
        if name and given.get(name):
            self.files.append(str(given[name]))


def test_the_site_builds_without_a_warning_and_fetches_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason="the site's generator is not installed: make site")
    assert make_site.main(tmp_path) == 0
    site = tmp_path / "site"
    built = sorted(path.relative_to(site).with_suffix(".md").as_posix() for path in site.rglob("*.html"))
    expected = {path.relative_to(ROOT).as_posix() for path in (*PAGES, *BESIDE)} - {"README.md"}
    assert set(built) == expected | {"index.md", "404.md"}
    for page in site.rglob("*.html"):
        needs = Needs()
        needs.feed(page.read_text(encoding="utf-8"))
        assert needs.files and [file for file in needs.files if "//" in file] == []
        if page.name != "404.html":  # It is served at any address, so what it needs begins at the root.
            assert [file for file in needs.files if not (page.parent / file.partition("?")[0]).is_file()] == []


@pytest.mark.long
def test_a_page_with_an_anchor_that_is_not_there_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("zensical", reason="the site's generator is not installed: make site")
    copy = make_site.copy_pages

    def broken(folder: Path) -> None:
        copy(folder)
        page = folder / "docs" / "gates.md"
        page.write_text(page.read_text(encoding="utf-8") + "\n[gone](laws.md#gone)\n", encoding="utf-8")

    monkeypatch.setattr(make_site, "copy_pages", broken)
    assert make_site.main(tmp_path) == 1
    assert (DOCS / "gates.md").is_file()
