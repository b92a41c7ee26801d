"""Hooks of mkdocs: the order of pages comes from docs/index.md, and links may leave docs/ as they do on a forge.

A link to a file outside docs/ leads to the repository when the environment variable MI_SOURCE_URL names the place of
its files (such as ``https://forge.example/group/micore/-/blob/main``); without it, it becomes plain text.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
FENCED = re.compile(r"(^```.*?^```)", flags=re.MULTILINE | re.DOTALL)
Nav = list[dict[str, Any]]


def on_config(config: Any) -> Any:
    """Give mkdocs the order of pages."""
    config.nav = navigation((DOCS / "index.md").read_text(encoding="utf-8"))
    return config


def navigation(index: str) -> Nav:
    """Return a section for each heading of the index; lines such as ``- Attacks: ...`` become sections in it."""
    nav: Nav = [{"Start": "index.md"}]
    for part in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        title, _, text = part.partition("\n")
        pages: Nav = []
        for item in re.split(r"^- ", text, flags=re.MULTILINE)[1:]:
            found: Nav = [{name: page} for name, page in LINK.findall(item) if inside(DOCS, page)]
            group = re.match(r"([\w ]+): ", item)
            pages += [{group[1]: found}] if group and found else found
        nav.append({title.strip(): pages})
    return nav


def on_page_markdown(markdown: str, *, page: Any, **others: Any) -> str:
    """Rewrite links that leave docs/, but not in code."""
    folder = (DOCS / page.file.src_uri).parent
    parts = FENCED.split(markdown)
    parts[::2] = [LINK.sub(lambda match: rewritten(match, folder), part) for part in parts[::2]]
    return "".join(parts)


def rewritten(match: re.Match[str], folder: Path) -> str:
    """Return a link as the site needs it."""
    text, link = match.groups()
    if re.match(r"[a-z]+:|#", link) or inside(folder, link):
        return match[0]
    path, mark, anchor = link.partition("#")
    source = os.environ.get("MI_SOURCE_URL", "").rstrip("/")
    place = (folder / path).resolve().relative_to(ROOT).as_posix()
    return f"[{text}]({source}/{place}{mark}{anchor})" if source else text


def inside(folder: Path, link: str) -> bool:
    """Tell whether a relative link leads to something that the site has: files of code are not part of it."""
    path = (folder / link.partition("#")[0]).resolve()
    return path.is_relative_to(DOCS) and path.suffix not in (".py", ".toml")
