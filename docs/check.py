"""
Checks that every relative link in the project's pages leads to a file, and every anchor in it to a heading, and that
what is generated from the table of parameters is up to date.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from smtpreuse.config.reference import render_main_cf, render_markdown

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md"), *ROOT.glob("tests/**/*.md")]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, made as the usual renderers make them."""
    headings = HEADING.findall(FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            found.append(f"{page.relative_to(ROOT)}: {link} leads nowhere")
    return found


def outdated() -> list[str]:
    """The generated files that are not what the table of parameters gives."""
    generated = {"conf/main.cf": render_main_cf(), "docs/parameters.md": render_markdown()}
    return [f"{name} is out of date" for name, text in generated.items() if (ROOT / name).read_text() != text]


if __name__ == "__main__":
    problems = [line for page in PAGES for line in broken(page)] + outdated()
    print("\n".join(problems) or f"{len(PAGES)} pages, all links lead somewhere, generated files are up to date")
    sys.exit(1 if problems else 0)
