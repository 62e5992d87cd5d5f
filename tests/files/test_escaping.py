"""What others wrote stays text, wherever it is shown."""

import ast

import pytest

from sb3_genoffline.errors import NotFoundError, UserError, printable
from sb3_genoffline.files.escaping import code, code_block, markdown, python_string

HOSTILE = [
    "<script>alert(1)</script>",
    "x\n# A heading",
    "[here](https://evil.example)",
    "![](https://evil.example/pixel.png)",
    "https://evil.example/x",
    "www.evil.example",
    "a|b",
    "``` \n import os",
    'q"); import os; os.system("x',
    "back\\",
    "\x1b[2J\x1b]0;title\x07",
    "a\u202eb",
    "*bold* _emphasis_ ~gone~",
    "&lt;b&gt;",
    "a@b.example",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_of_others_is_markup_or_reaches_a_terminal_raw(text: str) -> None:
    shown = markdown(text)
    assert shown.isprintable() and "://" not in shown and "www." not in shown
    unescaped = shown.replace("\\\\", "")
    assert not [i for i, letter in enumerate(unescaped) if letter in "<>[]|`*&#@!" and unescaped[i - 1] != "\\"]
    assert printable(text).isprintable() and code(text).isprintable()
    block = code_block(text, "sh").split("\n")
    assert block[0].rstrip("sh") == block[-1] and all(block[-1] not in line for line in block[1:-1])
    assert ast.literal_eval(python_string(text.replace("\x1b", "").replace("\x07", "").replace("\u202e", ""))) is not None
    assert python_string(text).isprintable()
    for error in (UserError(text), NotFoundError(f"There is no {text}.")):
        assert all(line.isprintable() for line in str(error).split("\n"))


@pytest.mark.parametrize("text", ["mujoco/hopper/medium-v0", "D4RL/pointmaze/large_v2", "Hopper-v5", "no guidance (eta = 0)"])
def test_usual_names_stay_as_they_are(text: str) -> None:
    assert markdown(text) == printable(text) == text and code(text) == f"`{text}`" and python_string(text) == f'"{text}"'


def test_a_string_of_python_is_the_same_string() -> None:
    for text in HOSTILE:
        assert ast.literal_eval(python_string(text)) == text
