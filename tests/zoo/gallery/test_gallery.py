"""The gallery: every page, link and number of a small checkout, and what hostile records make of it: nothing."""

import csv
import re
import shutil
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from gallery_world import EVIL, FINAL, HOPPER, MAZE, PNG, Page, contents_of, make_checkout
from PIL import Image

from sb3_genoffline.errors import ExistsError, NotFoundError, NotWrittenError, UserError
from zoo.__main__ import main
from zoo.gallery import site as site_module
from zoo.gallery.charts import LINE
from zoo.gallery.contents import read_contents
from zoo.gallery.pages import as_html, read_section
from zoo.gallery.posters import draw_poster
from zoo.gallery.site import MARK, check_place, slugs, write_site
from zoo.gallery.views import all_runs, leaderboard, on_dataset
from zoo.runs.writing import write_json

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def site(checkout: Path) -> Path:
    """The site of a checkout of which parts are hostile."""
    write_site(contents_of(checkout), checkout / "site")
    return checkout / "site"


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    """Every page by its address."""
    return {str(path.relative_to(site)): Page(path) for path in site.rglob("*.html")}


def test_every_link_leads_to_a_file_of_the_site_or_to_a_page_of_the_web(site: Path, pages: dict[str, Page]) -> None:
    for page in pages.values():
        for tag, attributes in page.tags:
            for name in ("href", "src", "poster", "xlink:href"):
                target = urlsplit(attributes.get(name, ""))
                if target.scheme or target.netloc:
                    assert (tag, name, target.scheme) == ("a", "href", "https"), attributes
                elif target.path:
                    file = (page.path.parent / unquote(target.path)).resolve()
                    assert file.is_file() and file.is_relative_to(site), (page.path, attributes)
                elif target.fragment:
                    assert target.fragment in {attributes.get("id") for _, attributes in page.tags}


def test_every_agent_dataset_and_benchmark_is_reached_from_the_first_page(site: Path, pages: dict[str, Page]) -> None:
    seen, waiting = set(), [site / "index.html"]
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        targets = [urlsplit(attributes["href"]) for attributes in pages[str(here.relative_to(site))].all("a")]
        waiting += [
            (here.parent / unquote(to.path)).resolve() for to in targets if to.path.endswith(".html") and not to.netloc
        ]
    assert {str(path.relative_to(site)) for path in seen} == set(pages)
    assert len([name for name in pages if name.startswith("agents/")]) == 1 + 2
    assert len([name for name in pages if name.startswith("datasets/")]) == 1 + 3
    assert {"benchmarks/small/index.html", "ablations.html", "speed.html"} < set(pages)


def test_what_others_wrote_is_text_on_every_page(pages: dict[str, Page]) -> None:
    for page in pages.values():
        (script,) = page.all("script")
        assert script["src"].endswith("static/site.js")
        assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
        assert not page.all("iframe") and "49" not in page.all("title")
        assert "\u202e" not in page.path.read_text()
        for image in page.all("img"):
            assert image["src"] != "x"
    shown = EVIL.replace("\u202e", "\\u202e")
    places = [
        "index.html",
        "benchmarks/small/index.html",
        "datasets/index.html",
        "agents/index.html",
        "agents/dac-hopper/index.html",
    ]
    assert [name for name in places if shown not in pages[name].words] == []


def test_a_card_keeps_its_words_and_loses_what_asks_others(pages: dict[str, Page]) -> None:
    page = pages["agents/dac-hopper/index.html"]
    links = [attributes["href"] for attributes in page.all("a")]
    assert "https://example.org/a?b=%22c" in links and not [to for to in links if "passwd" in to or "javascript" in to]
    assert [image["src"] for image in page.all("img")] == [
        "../../static/icon.svg",
        "training_curve.png",
    ]  # once, though in the card
    assert "tracker" in page.words and "license: mit" not in page.words and "[run](javascript:alert(3))" in page.words
    assert [tag for tag, _ in page.tags if tag in ("h1", "h2", "h3")].count("h1") == 1


def test_pictures_and_charts_say_in_words_what_they_show(pages: dict[str, Page]) -> None:
    for page in pages.values():
        assert all("alt" in image for image in page.all("img"))
        assert all(svg["role"] == "img" and svg["aria-label"] for svg in page.all("svg"))
        assert all(video.get("aria-label") or video.get("aria-hidden") for video in page.all("video"))
        identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        assert len(identifiers) == len(set(identifiers)), page.path
        assert page.all("html") == [{"lang": "en"}] and len(page.all("h1")) == 1 and len(page.all("main")) == 1
    charts = pages["datasets/genoffline-hopper-medium-replay-v1/index.html"]
    assert "DAC 59.5" in [svg["aria-label"] for svg in charts.all("svg")][-1]
    assert {attributes["data-series"] for attributes in charts.all("button") if "data-series" in attributes} == {"0", "1", "2"}
    assert {attributes["data-series"] for attributes in charts.all("g") if "data-series" in attributes} == {"0", "1", "2"}


def test_labels_fit_under_their_charts(site: Path) -> None:
    page = (site / "datasets" / "genoffline-hopper-medium-replay-v1" / "index.html").read_text()
    lines = re.findall(r"<(?:text|tspan)[^>]*>((?:final|wall|gradient) [^<]+)<", page)
    assert len(lines) >= 3 and max(map(len, lines)) <= LINE


def test_numbers_are_those_of_the_records_and_sort_as_numbers(checkout: Path) -> None:
    (benchmark,) = contents_of(checkout).benchmarks
    table = leaderboard(benchmark)
    assert table.columns[2:4] == [HOPPER, MAZE] and table.columns[-1] == "CPU minutes a run"
    found = {row.cells[0].text: row.cells for row in table.rows}
    dac, bc = found["DAC"], found["BC"]
    assert (dac[2].text, dac[2].key, dac[2].note) == ("59.5", 59.5, "± 71.4, 2 seeds") and dac[2].best and not bc[2].best
    assert (bc[3].text, bc[3].key, bc[3].note) == ("50.0", 50.0, "1 seed") and bc[-1].key == 1.5
    keys = [row.cells[1].key for row in table.rows[:-1]]
    assert keys == sorted(keys, reverse=True) and table.rows[-1].cells[1].key is None
    assert table.foot is not None and [cell.text for cell in table.foot.cells] == ["the data", "", "10.1", "10.1", ""]


def test_a_cell_without_a_number_has_its_reason(checkout: Path) -> None:
    (benchmark,) = contents_of(checkout).benchmarks
    nosuch = leaderboard(benchmark).rows[-1].cells
    assert nosuch[2].text == "–" and nosuch[2].key is None and "nosuch" in nosuch[2].note
    runs = {(row.cells[0].text, row.cells[1].key, row.cells[2].key): row.cells for row in all_runs(benchmark).rows}
    assert len(runs) == 16
    assert runs["DAC", HOPPER, 2][3].note == f"failed: FloatingPointError: {EVIL}" and runs["DAC", HOPPER, 2][4].key is None
    assert runs["BC", HOPPER, 1][4].key == FINAL["bc", HOPPER, 1]
    (row,) = [row for row in on_dataset(benchmark, HOPPER).rows if row.cells[0].text == "BC"]
    assert row.cells[4].text == "18.1"  # the paper's, on D4RL's data of that name


def test_sort_keys_and_filters_are_in_the_page(pages: dict[str, Page]) -> None:
    page = pages["benchmarks/small/index.html"]
    rows = [attributes for attributes in page.all("tr") if "data-facet-0" in attributes]
    options = {attributes["value"] for attributes in page.all("option")}
    assert len(rows) == 16 and all(value in options for attributes in rows for value in attributes.values())
    keys = [
        attributes["data-key"]
        for attributes in page.all("td")
        if "data-key" in attributes and "word" not in attributes["class"]
    ]
    assert keys and all(float(key) is not None for key in keys)
    assert [head.get("aria-sort") for head in page.all("th") if "aria-sort" in head] == ["descending"]


def test_a_film_has_a_still_for_phones_which_load_no_film_by_themselves(tmp_path: Path) -> None:
    folder = make_checkout(tmp_path)
    shutil.copy(ROOT / "hub_models" / "dac-pointmaze-stitch" / "replay.mp4", folder / "agents" / "dac-hopper")
    site = write_site(contents_of(folder), folder / "site").parent
    place = site / "agents" / "dac-hopper"
    with Image.open(place / "replay.jpg") as still:
        assert still.format == "JPEG" and len(set(still.convert("L").tobytes())) > 10
    assert 'poster="replay.jpg"' in (place / "index.html").read_text()
    assert 'poster="../agents/dac-hopper/replay.jpg"' in (site / "agents" / "index.html").read_text()


@pytest.mark.parametrize(
    "content", [b"", b"no film", b"#EXTM3U\n#EXTINF:1,\nreplay.mp4\n", b"ffconcat version 1.0\nfile replay.mp4\n"]
)
def test_what_is_no_film_has_no_still(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "film.mp4").write_bytes(content)
    shutil.copy(ROOT / "hub_models" / "dac-pointmaze-stitch" / "replay.mp4", tmp_path)
    assert not draw_poster(tmp_path / "film.mp4", tmp_path / "film.jpg") and not (tmp_path / "film.jpg").exists()


def test_an_agent_without_film_curve_and_card_says_so(pages: dict[str, Page]) -> None:
    (bare,) = [
        page
        for name, page in pages.items()
        if name.startswith("agents/") and name.count("/") == 2 and "dac-hopper" not in name
    ]
    for words in ("No film of it was made.", "It has none: it was trained without evaluation.", "It has no card."):
        assert words in bare.words
    assert "900.0 [800.0, 1000.0]" in bare.words and not bare.all("video")
    full = pages["agents/dac-hopper/index.html"]
    assert "84.0 [70.0, 95.5]" in full.words and 'load_from_hub("agents/dac-hopper")' in full.words
    assert [video["src"] for video in full.all("video")] == ["replay.mp4#t=0.1"]


def test_the_same_checkout_gives_the_same_bytes_and_the_folder_is_replaced_whole(
    checkout: Path, site: Path, tmp_path: Path
) -> None:
    contents = contents_of(checkout)
    first = {path.relative_to(site): path.read_bytes() for path in site.rglob("*") if path.is_file()}
    shutil.copytree(site, tmp_path / "site")
    (tmp_path / "site" / "index.html").write_text("old")
    write_site(contents, tmp_path / "site")
    assert {
        path.relative_to(tmp_path / "site"): path.read_bytes() for path in (tmp_path / "site").rglob("*") if path.is_file()
    } == first
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_a_folder_that_holds_anything_else_is_not_replaced(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ExistsError, match="is there already and is not a gallery"):
        check_place(tmp_path)
    shutil.copytree(site, tmp_path / "site")
    check_place(tmp_path / "site")
    (tmp_path / "site" / "CNAME").write_text("example.org")
    with pytest.raises(ExistsError, match="CNAME lies in the gallery and is not its own"):
        check_place(tmp_path / "site")
    for mark in ("no json", '{"files": 3}'):
        (tmp_path / "site" / MARK).write_text(mark)
        with pytest.raises(ExistsError, match="not a gallery"):
            check_place(tmp_path / "site")


def test_an_error_in_the_middle_leaves_the_old_site(
    checkout: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(site, tmp_path / "site")

    def fail(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(site_module.views, "leaderboard", fail)
    with pytest.raises(KeyboardInterrupt):
        write_site(contents_of(checkout), tmp_path / "site")
    assert (tmp_path / "site" / "index.html").read_bytes() == (site / "index.html").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


def test_links_of_others_bring_no_file_to_the_site(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    shutil.copytree(checkout / "agents" / "dac-hopper", tmp_path / "agents" / "dac-hopper")
    for name in ("replay.mp4", "training_curve.png", "README.md"):
        (tmp_path / "agents" / "dac-hopper" / name).unlink()
        (tmp_path / "agents" / "dac-hopper" / name).symlink_to(tmp_path / "secret")
    contents = read_contents(tmp_path / "none", tmp_path / "agents", tmp_path / "none", ROOT)
    assert contents.missing == [f"there are no {part} in {tmp_path / 'none'}" for part in ("benchmarks", "inspections")]
    write_site(contents, tmp_path / "site")
    assert not [path for path in (tmp_path / "site").rglob("*") if path.is_file() and b"secret" in path.read_bytes()]


def test_names_become_folders_of_their_own() -> None:
    assert slugs(["index.html", "Index.html"]) == {"index.html": "index.html-2", "Index.html": "index.html-3"}  # a page's name
    assert slugs(["a b", "A-B", "../..", "ü", "x" * 300, "a-b-2"]) == {
        **{"a b": "a-b", "A-B": "a-b-2", "../..": "dataset", "ü": "item", "x" * 300: "x" * 60, "a-b-2": "a-b-2-2"}
    }


def test_files_that_are_not_what_they_should_be_are_named(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="There is nothing to show: there are no benchmarks in"):
        read_contents(tmp_path, tmp_path, tmp_path, tmp_path)
    write_json(tmp_path / "wrong.json", {"fingerprint": 3})
    with pytest.raises(UserError, match=r"wrong.json is not an inspection of a dataset: its fingerprint, 3, must be a word"):
        read_contents(checkout / "benchmarks", checkout / "agents", tmp_path, ROOT)
    write_json(tmp_path / "a" / "results.json", {"mean_reward": "<script>"})
    (tmp_path / "a" / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"a cannot be listed: its results.json's mean_reward, '<script>', must be a number"):
        read_contents(checkout / "benchmarks", tmp_path, checkout / "datasets", ROOT)


def test_markdown_is_shown_below_its_heading_and_with_pictures_of_the_site_only() -> None:
    html = as_html("# A\n\n### B\n\n![a](b.png) ![c](d.png) [e](f.md)\n\n|a|\n|-|\n|1|", {"b.png": "x/b.png"}, below=2)
    assert "<h3>A</h3>" in html and "<h5>B</h5>" in html
    assert '<img src="x/b.png" alt="a" loading="lazy"> c e' in html
    assert '<div class="scroll" tabindex="0"><table>' in html


def test_a_section_ends_at_the_next_heading_that_is_no_comment_in_code(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "page.md").write_text(
        "# T\n\n## S\n\nx ![a](a.png) ![b](../../etc/passwd)\n\n```sh\n# no heading\n```\n\n### Next\n\ny\n"
    )
    section = read_section(tmp_path, "page.md", "S", "title")
    assert section is not None and section.text.strip().endswith("# no heading\n```")
    assert section.pictures == {"a.png": tmp_path / "a.png"}
    assert read_section(tmp_path, "page.md", "nosuch", "") is None and read_section(tmp_path, "no.md", "S", "") is None


def test_pages_and_pictures_that_lead_out_of_the_checkout_or_nowhere_are_not_shown(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.md").write_text("# S\n\nsecret")
    (tmp_path / "root" / "page.md").symlink_to(tmp_path / "secret.md")
    (tmp_path / "root" / "loop.md").symlink_to("loop.md")
    assert read_section(tmp_path / "root", "page.md", "S", "") is None
    assert read_section(tmp_path / "root", "loop.md", "S", "") is None
    (tmp_path / "root" / "own.md").write_text(f"# S\n\n![a](%00.png) ![b](loop.md) ![c]({'x' * 5000}.png)\n")
    section = read_section(tmp_path / "root", "own.md", "S", "")
    assert section is not None and not section.pictures


def test_pictures_of_one_name_are_two(checkout: Path, tmp_path: Path) -> None:
    shutil.copytree(checkout / "agents" / "dac-hopper", tmp_path / "agents" / "dac-hopper")
    for name, content in {"a/x.png": b"one", "b/x.png": b"two"}.items():
        (tmp_path / "zoo" / name).parent.mkdir(parents=True)
        (tmp_path / "zoo" / name).write_bytes(content)
    (tmp_path / "zoo" / "README.md").write_text("# Speed\n\n![a](a/x.png) ![b](b/x.png) ![a](./a/x.png)\n")
    write_site(read_contents(tmp_path, tmp_path / "agents", tmp_path, tmp_path), tmp_path / "site")
    images = [image["src"] for image in Page(tmp_path / "site" / "speed.html").all("img") if "figures" in image["src"]]
    assert [(tmp_path / "site" / image).read_bytes() for image in images] == [b"one", b"two", b"one"]


def test_a_file_in_the_place_of_the_site_stays(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "site").write_text("mine")
    with pytest.raises(NotWrittenError, match="site could not be written"):
        write_site(contents_of(checkout), tmp_path / "site")
    assert (tmp_path / "site").read_text() == "mine"


def test_the_repositorys_own_gallery_lacks_nothing() -> None:
    contents = read_contents(ROOT / "zoo/benchmarks", ROOT / "hub_models", ROOT / "zoo/figures/datasets", ROOT)
    assert contents.missing == []
    with (ROOT / "zoo/benchmarks/cpu/scores.csv").open() as file:
        scores = {
            (row["algorithm"], row["dataset"]): float(row["mean"]) for row in csv.DictReader(file) if row["score"] == "final"
        }
    (cpu,) = [benchmark for benchmark in contents.benchmarks if benchmark.name == "cpu"]
    shown = {row["algorithm"] + row["dataset"]: row["mean"] for row in cpu.tables["scores"] if row["score"] == "final"}
    assert shown == pytest.approx({"".join(place): value for place, value in scores.items()}, rel=1e-5)


def test_the_command_writes_the_site_and_says_what_is_left_out(
    checkout: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["gallery", "--agents", str(checkout / "agents"), "-o", "out"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "left out: there are no benchmarks in zoo/benchmarks" and lines[-1] == "wrote out/index.html"
    assert (tmp_path / "out" / "index.html").is_file()
