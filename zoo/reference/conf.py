"""
Sphinx's settings for the API reference, ``make reference``: a page for each package, made from its docstrings. A name that a
docstring refers to and Python does not find there ends the build.
"""

import contextlib
import re
import sys
import typing
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.logging import get_node_location
from sphinx.util.nodes import make_refnode

import sb3_genoffline

sys.path.insert(0, str(Path(__file__).parent))  # Sphinx runs this file by itself, outside of any package
from names import find

project = "sb3-genoffline"
release = version_of(project)
extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary"]
html_theme = "furo"
html_title = f"{project} {release}"
html_show_copyright = False
html_copy_source = False
nitpicky = True
autosummary_generate = False
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_use_type_comments = False  # there are none, and looking for them takes half of the time
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
python_maximum_signature_line_length = 100
toc_object_entries_show_parents = "hide"

PACKAGE = Path(sb3_genoffline.__file__).parent
LITERAL_OR_BAR = re.compile(r"(``.*?``)|\|")


def write_pages(app: Sphinx) -> None:
    """Write the source of each package's page: its docstring, then its modules'."""
    for folder in sorted({path.parent for path in PACKAGE.rglob("*.py")}):
        package = ".".join(("sb3_genoffline", *folder.relative_to(PACKAGE).parts))
        title = package.removeprefix("sb3_genoffline.")
        parts = [f"{title}\n{'=' * len(title)}\n\n.. automodule:: {package}\n   :no-members:\n"]
        for name in sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__"):
            parts.append(f"{name}\n{'-' * len(name)}\n\n.. automodule:: {package}.{name}\n")
        page = app.srcdir / "api" / f"{title}.rst"
        page.parent.mkdir(exist_ok=True)
        if not page.is_file() or page.read_text() != "\n".join(parts):  # one that is as it was is not read again
            page.write_text("\n".join(parts))


def name_the_public(app: Sphinx, page: str, source: list[str]) -> None:
    """Write the names of ``import sb3_genoffline`` into the first page, by kind."""
    kinds: dict[str, list[str]] = {"algorithms": [], "policies": [], "others": []}
    for name in sb3_genoffline.__all__:
        thing = getattr(sb3_genoffline, name)
        is_algorithm = isinstance(thing, type) and issubclass(thing, sb3_genoffline.OfflineAlgorithm)
        kind = "algorithms" if is_algorithm else "policies" if name.endswith("Policy") else "others"
        if callable(thing):
            kinds[kind].append(f"   ~sb3_genoffline.{name}")
    for kind, names in kinds.items():
        source[0] = source[0].replace(f"   <{kind}>", "\n".join(names))


def show_plain_types(app: Sphinx, thing: Any, is_bound: bool) -> None:
    """Show an argument's type without what checks its values: ``int`` for ``Annotated[int, Bounds(1)]``."""
    thing = vars(thing).get("__init__") if isinstance(thing, type) else getattr(thing, "__func__", thing)
    if getattr(thing, "__annotations__", None):
        with contextlib.suppress(NameError):  # of a name that only type checkers have
            thing.__annotations__.update(typing.get_type_hints(thing))  # in place: a wrapper has the same ones


def leave_out(app: Sphinx, kind: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what a named tuple says of its fields: its ``:param`` lines say more."""
    return True if (getattr(thing, "__doc__", None) or "").startswith("Alias for field number") else None


def keep_bars(app: Sphinx, kind: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Bars are absolute values in our docstrings, and no substitutions."""
    lines[:] = [LITERAL_OR_BAR.sub(lambda found: found[1] or r"\|", line) for line in lines]


def link_what_python_finds(
    app: Sphinx, env: BuildEnvironment, node: Any, text: nodes.TextElement
) -> nodes.TextElement | nodes.reference | None:
    """Link a name to what Python finds by it; what other packages have remains text. None, an error: there is nothing."""
    if node.get("refdomain") != "py":
        return None
    place = find(node["reftarget"], node.get("py:module"), node.get("py:class"))
    if place is None:  # the first line of a docstring may stand in a table too, where it is out of its context
        return text if "<autosummary>" in (get_node_location(node) or "") else None
    entry = env.domains["py"].objects.get(place)  # type: ignore[attr-defined]
    if entry is None:
        return text
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, text, place)


def setup(app: Sphinx) -> None:
    """:param app: the build"""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", name_the_public)
    app.connect("autodoc-before-process-signature", show_plain_types)
    app.connect("autodoc-process-docstring", keep_bars)
    app.connect("autodoc-skip-member", leave_out)
    app.connect("missing-reference", link_what_python_finds)
