"""What others wrote, shown: in a terminal, in Markdown, in code. Nothing of it is taken for markup, a link or a command."""

import re

from sb3_genoffline.errors import printable, printable_lines

_PLAIN = re.compile(r"(?!.*://)(?!.*www\.)[\w ./+±%(),;:='-]*", re.ASCII | re.IGNORECASE)
_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")


def markdown(value: object) -> str:
    """As text of one line: no heading, link, image, HTML, table cell or emphasis comes of it, whatever it holds."""
    text = printable(value)
    plain = _PLAIN.fullmatch(text) and text[:1].isalnum()
    return text if plain else _PUNCTUATION.sub(r"\\\1", text)


def code(value: object) -> str:
    """As code inside a line."""
    text = printable(value)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text[:1] in ("`", " ") or text[-1:] in ("`", " ") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def code_block(text: str, language: str) -> str:
    """As lines of code, which no line of it ends."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{printable_lines(text.strip())}\n{fence}"


def python_string(value: object) -> str:
    """As a string of Python, in double quotes."""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{printable(text)}"'
