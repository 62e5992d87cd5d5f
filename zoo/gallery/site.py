"""The contents as a folder of pages."""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from sb3_genoffline.errors import ExistsError, UserError, printable_lines
from sb3_genoffline.files.writing import replaced_folder
from sb3_genoffline.version import __version__

from ..benchmark.results import title
from ..publish.index import Entry, commands_of, with_interval
from ..runs.folders import dataset_name
from ..runs.reading import read_json, read_text
from ..runs.writing import write_json
from . import charts, views
from .contents import Benchmark, Contents, is_plain_file
from .pages import LARGEST_PAGE, as_html, without_front_matter
from .posters import draw_poster

MARK, FIRST = "gallery.json", "index.html"
"""Says that a folder is a gallery, and which files are its own: such a folder is replaced, no other is."""
STATIC = Path(__file__).parent / "static"
_FILM, _POSTER, _CURVE = "replay.mp4", "replay.jpg", "training_curve.png"
_CURVE_OF_CARD = re.compile(rf"!\[[^]]*\]\({re.escape(_CURVE)}\)")
_SLUG = 60


def write_site(contents: Contents, output: str | Path) -> Path:
    """
    :param contents: to show
    :param output: folder; a gallery that is there is replaced as a whole, at the end
    :return: the first page
    :raises ExistsError: if something else is there
    """
    folder = Path(os.path.realpath(output))
    check_place(folder)
    with replaced_folder(folder) as new:
        _Site(contents, new).write()
        files = sorted(str(path.relative_to(new)) for path in new.rglob("*") if path.is_file())
        write_json(new / MARK, {"made_by": f"sb3-genoffline {__version__}", "files": files})
        check_place(folder)  # again: minutes may have gone by
    return Path(output) / "index.html"


def check_place(folder: Path) -> None:
    """
    :param folder: that is to be replaced
    :raises ExistsError: if it holds anything that no gallery has written
    """
    there = [path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()] if folder.is_dir() else []
    if not there:
        return
    mark = folder / MARK
    try:
        known = read_json(mark, "list of a gallery's files").get("files") if is_plain_file(mark) else None
    except UserError:
        known = None
    if not isinstance(known, list):
        raise ExistsError(
            f"{folder} is there already and is not a gallery, so it is not replaced: name another folder with -o."
        )
    foreign = [path for path in there if str(path.relative_to(folder)) not in (*known, MARK)]
    if foreign:
        raise ExistsError(
            f"{foreign[0]} lies in the gallery and is not its own, so the gallery is not replaced: move it, or name another "
            "folder with -o."
        )


def slugs(names: Iterable[str]) -> dict[str, str]:
    """
    A folder's name for each name: plain letters, and none twice, not even where upper case is lower case, nor that of the page
    which lists them.
    """
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^a-z0-9.-]+", "-", dataset_name(name).lower())[:_SLUG].strip("-.") or "item"
        taken = {FIRST, *found.values()}
        free = (f"{plain}-{number}" for number in range(2, len(taken) + 3))
        found[name] = plain if plain not in taken else next(slug for slug in free if slug not in taken)
    return found


class _Site:
    """
    :param contents: to show
    :param folder: to write to
    """

    def __init__(self, contents: Contents, folder: Path) -> None:
        self.contents, self.folder = contents, folder
        self.figures: dict[str, dict[Path, int]] = {}
        self.slugs = {
            "benchmarks": slugs(benchmark.name for benchmark in contents.benchmarks),
            "datasets": slugs(contents.datasets),
            "agents": slugs(entry.name for entry in contents.agents),
        }
        self.environment = Environment(
            loader=PackageLoader(__package__),
            autoescape=select_autoescape(default=True),
            undefined=StrictUndefined,
            finalize=_shown,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.filters |= {"algorithm": title, "markdown": as_html, "breakable": _breakable}
        self.environment.globals |= {"with_interval": with_interval, "inspect_command": views.inspect_command}
        self.environment.globals |= {"sections": list(contents.sections), "version": __version__}

    def write(self) -> None:
        """All pages, and what they show."""
        shutil.copytree(STATIC, self.folder / "static")
        contents = self.contents
        agents = [self._agent(entry) for entry in contents.agents]
        boards = {benchmark.name: views.leaderboard(benchmark) for benchmark in contents.benchmarks}
        self._page("index.html", "index.html", boards=boards, agents=agents)
        for benchmark in contents.benchmarks:
            self._benchmark(benchmark, boards[benchmark.name])
        pictures = {dataset: self._dataset(dataset, agents) for dataset in contents.datasets}
        self._page("datasets.html", "datasets/index.html", pictures=pictures)
        self._page("agents.html", "agents/index.html", agents=agents)
        for agent in agents:
            self._page("agent.html", self._address("agents", agent["name"]), agent=agent)
        for name, sections in contents.sections.items():
            shown = [(section, self._quoted(section.pictures, section.text)) for section in sections]
            speeds = [views.speeds(benchmark) for benchmark in contents.benchmarks] if name == "speed" else []
            self._page("sections.html", f"{name}.html", name=name, shown=shown, speeds=speeds)

    def _benchmark(self, benchmark: Benchmark, board: views.Table) -> None:
        aggregate = benchmark.tables.get("aggregate")
        self._page(
            "benchmark.html",
            self._address("benchmarks", benchmark.name),
            benchmark=benchmark,
            board=board,
            chart=charts.comparison_chart(benchmark.results, aggregate, "means") if aggregate else None,
            improvements=views.improvements(benchmark),
            runs=views.all_runs(benchmark),
        )

    def _dataset(self, dataset: str, agents: list[dict[str, Any]]) -> str | None:
        """The page of a dataset; returns where its picture is on the site, if it has one."""
        found, address = self.contents.inspections.get(dataset), self._address("datasets", dataset)
        picture = self._copy(found.picture, Path(address).with_name("inspect.png")) if found and found.picture else None
        shown = []
        for number, benchmark in enumerate(self.contents.benchmarks):
            if benchmark.results.records(dataset=dataset):
                drawn = charts.dataset_charts(benchmark.results, dataset, f"chart-{number}")
                other = views.other_data(self.contents, benchmark, dataset)
                tables = views.on_dataset(benchmark, dataset), views.curve_points(benchmark, dataset)
                shown.append((benchmark, tables, drawn, other))
        self._page(
            "dataset.html",
            address,
            dataset=dataset,
            facts=views.dataset_facts(self.contents, dataset),
            inspection=found,
            picture=picture,
            shown=shown,
            agents=[agent for agent in agents if agent["entry"].results["dataset"] == dataset],
        )
        return picture

    def _agent(self, entry: Entry) -> dict[str, Any]:
        """What the pages of an agent show; its film and its curve are copied."""
        place = Path(self._address("agents", entry.name)).parent
        files = {name: self._copy(entry.folder / name, place / name) for name in (_FILM, _CURVE)}
        card, local = entry.folder / "README.md", {name: quote(name) for name, address in files.items() if address}
        film, poster = files[_FILM], str(place / _POSTER)
        text = without_front_matter(read_text(card, "model card", LARGEST_PAGE)) if is_plain_file(card) else None
        if text and files[_CURVE]:
            text = _CURVE_OF_CARD.sub("", text)  # the page has it in a section of its own
        return {
            "name": entry.name,
            "entry": entry,
            "facts": views.agent_facts(self.contents, entry),
            "snippet": views.agent_snippet(entry),
            "commands": commands_of(entry),
            "card": None if text is None else as_html(text, local, below=2),
            "film": film,
            "poster": poster if film and draw_poster(self.folder / film, self.folder / poster) else None,
            "curve": files[_CURVE],
        }

    def _quoted(self, pictures: Mapping[str, Path], text: str) -> Markup:
        copies = {target: self._copy(path, self._figure(path)) for target, path in pictures.items()}
        return as_html(text, {target: quote(copy) for target, copy in copies.items() if copy}, below=2)

    def _figure(self, path: Path) -> Path:
        """Where a page's picture goes: others of its name get a number."""
        number = self.figures.setdefault(path.name, {}).setdefault(path, len(self.figures[path.name]))
        return Path("figures") / (f"{path.stem}-{number + 1}{path.suffix}" if number else path.name)

    def _copy(self, source: Path, target: Path) -> str | None:
        """Bring a file to the site; None if there is none."""
        if not is_plain_file(source):
            return None
        (self.folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, self.folder / target)
        return str(target)

    def _address(self, kind: str, name: str) -> str:
        return f"{kind}/{self.slugs[kind][name]}/index.html"

    def _page(self, template: str, address: str, **shown: Any) -> None:
        root = "../" * address.count("/")

        def link(kind: str, name: str) -> str:
            return root + quote(self._address(kind, name))

        page = self.environment.get_template(template).render(
            contents=self.contents, here=address, root=root, link=link, **shown
        )
        path = self.folder / address
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page)


def _breakable(text: str) -> Markup:
    """Escaped; a line may end after a slash, rather than within a word."""
    return escape(printable_lines(text)).replace("/", Markup("/<wbr>"))


def _shown(value: Any) -> Any:
    """What others wrote, without what turns the order of letters or is no letter; Jinja escapes it after this."""
    return printable_lines(value) if type(value) is str else value
