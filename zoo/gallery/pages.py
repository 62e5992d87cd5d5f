"""Markdown of others and of our own pages, as HTML of which nothing is a script, and nothing is fetched from elsewhere."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from sb3_genoffline.errors import printable_lines

from ..runs.reading import read_text

LARGEST_PAGE = 2**20
_OUTSIDE = ("http", "https")
_PARSER = MarkdownIt("js-default", {"html": False, "linkify": False, "typographer": False})


@dataclass(frozen=True)
class Section:
    """
    A part of a page.

    :param title: for the site
    :param page: path within the checkout
    :param text: Markdown, without the heading
    :param pictures: of the checkout, by the target that the text names
    """

    title: str
    page: str
    text: str
    pictures: Mapping[str, Path]


def read_section(root: Path, page: str, heading: str, title: str) -> Section | None:
    """
    :param root: of the checkout
    :param page: path of a Markdown file in it
    :param heading: of the section, which ends at the next heading
    :param title: for the site
    :return: None if there is no such page or heading, or if the page is a link that leads out of the checkout
    """
    path = _inside(root, root / page)
    if path is None:
        return None
    text = read_text(path, "page", LARGEST_PAGE)
    tokens = _PARSER.parse(text)
    heads = [(tokens[i + 1].content, token.map) for i, token in enumerate(tokens) if token.type == "heading_open"]
    lines = text.splitlines()
    for (name, place), after in zip(heads, [*heads[1:], ("", None)], strict=True):
        if name == heading and place:
            body = "\n".join(lines[place[1] : after[1][0] if after[1] else None])
            found = {target: _inside(root, path.parent / unquote(target)) for target in _pictures(body)}
            return Section(title, page, body, {target: file for target, file in found.items() if file is not None})
    return None


def _inside(root: Path, path: Path) -> Path | None:
    """The file that a path leads to, if it lies in the checkout; None for what is no path, too."""
    try:
        file = Path(os.path.realpath(path))
    except (OSError, ValueError):
        return None
    return file if os.path.isfile(file) and file.is_relative_to(os.path.realpath(root)) else None


def without_front_matter(card: str) -> str:
    """A model card without the YAML between its first two lines of dashes."""
    head, dashes, body = card.partition("\n---\n")
    return body if dashes and head.startswith("---") else card


def as_html(text: str, files: Mapping[str, str] | None = None, below: int = 1) -> Markup:
    """
    Tags in the text are shown, not obeyed. A link that leads neither to a web page nor to one of the files is text, and so is
    a picture that is none of the files: nothing is asked of another server.

    :param text: Markdown
    :param files: addresses on the site, by the target that the text names
    :param below: level of the heading that it stands under; its own highest heading is one lower
    """
    files = files or {}
    tokens = _PARSER.parse(printable_lines(text))
    levels = [int(token.tag[1:]) for token in tokens if token.type == "heading_open"]
    lower = below + 1 - min(levels, default=1)
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(int(token.tag[1:]) + lower, 6)}"
        if token.children:
            token.children = _harmless(token.children, files)
    html = Markup(_PARSER.renderer.render(tokens, _PARSER.options, {}))  # of escaped text
    return html.replace(Markup("<table>"), Markup('<div class="scroll" tabindex="0"><table>')).replace(
        Markup("</table>"), Markup("</table></div>")
    )


def _harmless(tokens: list[Token], files: Mapping[str, str]) -> list[Token]:
    kept: list[Token] = []
    closed: list[bool] = []  # whether the ends of the links that are open are kept
    for token in tokens:
        if token.type == "image":
            target = str(token.attrs["src"])
            if target not in files:
                token = Token("text", "", 0, content=token.content)
            else:
                token.attrs |= {"src": files[target], "loading": "lazy"}
        elif token.type == "link_open":
            target = str(token.attrs["href"])
            outside = _scheme(target) in _OUTSIDE
            closed.append(outside or target in files)
            if not closed[-1]:
                continue
            token.attrs["href"] = files.get(target, target)
            if outside:
                token.attrs["rel"] = "noopener noreferrer"
        elif token.type == "link_close" and not closed.pop():
            continue
        kept.append(token)
    return kept


def _scheme(target: str) -> str:
    try:
        return urlsplit(target).scheme.lower()
    except ValueError:
        return ""


def _pictures(text: str) -> list[str]:
    inline: list[Any] = [token.children for token in _PARSER.parse(text) if token.children]
    return [str(token.attrs["src"]) for children in inline for token in children if token.type == "image"]
