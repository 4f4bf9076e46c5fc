"""Markdown to HTML that is safe to show, whoever wrote it."""

from __future__ import annotations

import re
from typing import Final

import nh3
from markdown_it import MarkdownIt
from markdown_it.rules_core import StateCore
from markupsafe import Markup

_TAGS: Final = set(
    "a abbr b blockquote br caption code col colgroup dd del details div dl dt em figcaption figure h2 h3 h4 h5 h6 hr "
    "i img ins kbd li mark ol p pre q s small span strong sub summary sup table tbody td tfoot th thead tr u ul".split()
)
_ATTRIBUTES: Final = {
    "a": {"href", "title"},
    "abbr": {"title"},
    "img": {"src", "alt", "title", "width", "height"},
    "ol": {"start"},
    "td": {"colspan", "rowspan", "align"},
    "th": {"colspan", "rowspan", "align", "scope"},
}
_ABSOLUTE: Final = re.compile(r"(?i)[a-z][a-z0-9+.-]*:|//|\\")
_OUTER: Final = re.compile(r"(?i)https?://|mailto:|tel:")


def _lower_headings(state: StateCore) -> None:
    """The page's title is its only h1, so '# Part' in a body is an h2."""
    for token in state.tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1]) + 1)}"


_MARKDOWN: Final = MarkdownIt("commonmark", {"html": True, "typographer": True}).enable(
    ["table", "strikethrough", "replacements", "smartquotes"]
)
_MARKDOWN.core.ruler.push("lower_headings", _lower_headings)


def render(body: str, root: str = "") -> Markup:
    """The HTML of a Markdown body. Relative addresses are taken from the root of the site.

    Scripts, styles, forms, frames and event handlers go; pictures of other hosts go too, since fetching one tells that
    host who reads this page.
    """

    def address(tag: str, attribute: str, value: str) -> str | None:
        if attribute not in ("href", "src"):
            return value
        value = value.strip()
        if _ABSOLUTE.match(value):
            return value if attribute == "href" and _OUTER.match(value) else None
        return value if value.startswith(("#", "?")) else f"{root}/{value.lstrip('/')}"

    html = nh3.clean(
        _MARKDOWN.render(body),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=address,
        url_schemes={"http", "https", "mailto", "tel"},
        link_rel="noopener noreferrer nofollow",
    )
    return Markup(
        re.sub(r"<table>(.*?)</table>", r'<div class="scroll" tabindex="0"><table>\1</table></div>', html, flags=re.S)
    )


_MARKS: Final = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|[*_`#>|~]+|-{3,}|<[^>]*>")


def plain(markdown: str) -> str:
    """The words alone, for summaries and search results."""
    return " ".join(_MARKS.sub(lambda match: match[1] or " ", markdown).split())


def minutes(body: str) -> int:
    """How long reading takes, in whole minutes, at 220 words a minute."""
    return max(1, round(len(body.split()) / 220))
