"""The changelog as a page of the site."""

import re
from pathlib import Path

_LINK = re.compile(r"\[([^]\n]*)\]\((?!https?://|#)([^)\s]*)\)")


def page(root: Path) -> str:
    """Return CHANGELOG.md with its links adapted to the site.

    Links into docs/ lead to the page of the site. Other files of the repository are not on the site: a link to them
    becomes plain text.
    """
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    return _LINK.sub(_on_the_site, text)


def _on_the_site(link: re.Match[str]) -> str:
    text, target = link.groups()
    return f"[{text}]({target.removeprefix('docs/')})" if target.startswith("docs/") else text
