"""The site: ``python docs/make_site.py`` builds it into build/site, and ends with 1 where anything is to be warned of.

Pages stay as they are, so that they read as well in a checkout: they are copied, with README, CONTRIBUTING and
CHANGELOG above them as there, and their order is that of the tables of docs/index.md.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
BESIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
OURS = {".py", ".pyc"}
"""What lies in docs/ and is no part of it for readers."""


def main(build: Path = ROOT / "build") -> int:
    """Build the site from nothing, in the folder ``site`` of ``build``.

    Returns:
        0, or 1 where a reference page is old, or a page has a link, an anchor or a footnote that leads nowhere.
    """
    from docs import generate

    if generate.main(["--check"]):
        return 1
    for old in (build / "pages", build / "site"):
        shutil.rmtree(old, ignore_errors=True)
    copy_pages(build / "pages")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    nav = json.dumps(navigation((ROOT / "docs" / "index.md").read_text(encoding="utf-8")), ensure_ascii=False)
    config = build / "mkdocs.yml"
    config.write_text(f"{settings}docs_dir: pages\nsite_dir: site\nnav: {nav}\n", encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", str(config)])
    if done.returncode == 0:
        print(f"{build / 'site' / 'index.html'}")
    return min(done.returncode, 1)


def copy_pages(folder: Path) -> None:
    """Pages, pictures and what else they link to, each at its place."""
    for file in [*(ROOT / name for name in BESIDE), *(ROOT / "docs").rglob("*")]:
        if file.is_file() and file.suffix not in OURS:
            target = folder / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def navigation(index: str) -> list[dict[str, object]]:
    """The site's sections from the tables of docs/index.md, each page under the words that link to it there."""
    parts = re.split(r"^## (.+)$", index, flags=re.MULTILINE)
    tables = {
        title: [{words: f"docs/{page}"} for words, page in re.findall(r"^\| \[(.+?)\]\((.+?)\) \|", body, re.MULTILINE)]
        for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }
    listed: list[dict[str, object]] = [{title: pages} for title, pages in tables.items() if pages]
    project = {"Project": [{"Contributing": "CONTRIBUTING.md"}, {"Changes": "CHANGELOG.md"}]}
    return [{"ladder": "README.md"}, {"All pages, and words": "docs/index.md"}, *listed, project]


if __name__ == "__main__":
    sys.exit(main())
