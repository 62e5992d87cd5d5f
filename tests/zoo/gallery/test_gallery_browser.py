"""The gallery in a real browser: nothing fails, tables sort and filter, all is reached by keyboard, and it fits a phone."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gallery_world import HOPPER, NAME, contents_of, make_checkout

from zoo.gallery.site import write_site

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HUB_MODELS = Path(__file__).parents[3] / "hub_models"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkout's, with a film that can be played."""
    folder = make_checkout(tmp_path_factory.mktemp("checkout"))
    shutil.copy(HUB_MODELS / "dac-pointmaze-stitch" / "replay.mp4", folder / "agents" / "dac-hopper")
    write_site(contents_of(folder), folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as engine:
        running = engine.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def opened(browser: Any, site: Path) -> Iterator[Any]:
    """Opens a page of the site, with options of its context; what fails in it fails the test."""
    contexts, faults = [], []

    def open_page(address: str, **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: faults.append(request.url) if not request.url.startswith("file:") else None)
        page.on("dialog", lambda dialog: faults.append(dialog.message) or dialog.dismiss())
        page.goto((site / address).as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def column(page: Any, table: str, index: int) -> list[str]:
    """The first lines of the cells of a column that are shown."""
    cells = page.locator(f"{table} tbody tr:not([hidden]) > :nth-child({index + 1})")
    return [text.splitlines()[0].removeprefix("★ ") for text in cells.all_inner_texts()]


def test_no_page_fails_or_asks_for_anything_elsewhere(opened: Any, site: Path) -> None:
    page = opened("index.html")
    for path in sorted(site.rglob("*.html")):
        page.goto(path.as_uri())
        assert page.locator("h1").count() == 1
        broken = page.evaluate("[...document.images].filter(i => i.loading != 'lazy' && !i.naturalWidth).map(i => i.src)")
        assert broken == [] and page.evaluate("getComputedStyle(document.body).margin") == "0px"


def test_films_play(opened: Any, site: Path) -> None:
    page = opened("agents/dac-hopper/index.html")
    video = page.locator("video")
    assert video.evaluate("v => v.play().then(() => [v.videoWidth > 0, v.paused])") == [True, False]


def test_a_click_on_a_heading_sorts_and_tells_it(opened: Any) -> None:
    page = opened("index.html")
    head = page.locator("thead th").nth(2)
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending" and column(page, "table", 2) == ["59.5", "12.0", "11.0", "–"]
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending" and column(page, "table", 2) == ["11.0", "12.0", "59.5", "–"]
    assert page.locator("th[aria-sort]").count() == 1
    page.locator("thead button").first.click()
    assert column(page, "table", 0)[-2:] == ["DAC", "nosuch"]


def test_rows_are_filtered_by_words_and_by_facets_and_columns_can_be_hidden(opened: Any) -> None:
    page = opened("benchmarks/small/index.html")
    box = page.locator(".data-table").filter(has=page.locator("#runs"))
    assert box.locator("output").inner_text() == "16 of 16 rows"
    box.locator("select").nth(1).select_option(HOPPER)
    box.get_by_role("searchbox").fill("dac failed")
    assert box.locator("output").inner_text() == "1 of 16 rows" and box.locator("tbody tr:visible").count() == 1
    box.get_by_role("searchbox").fill("")
    box.locator("select").nth(0).select_option(NAME)
    assert box.locator("tbody tr:visible").count() == 3
    board = page.locator(".data-table").first
    board.locator("summary").click()
    board.locator("input[type=checkbox]").first.uncheck()
    assert not board.locator("thead th").nth(2).is_visible() and board.locator("thead th").nth(3).is_visible()


def test_a_legend_picks_out_its_curve(opened: Any) -> None:
    page = opened("datasets/genoffline-hopper-medium-replay-v1/index.html")
    button = page.get_by_role("button", name="DAC", exact=True)
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    dimmed = page.eval_on_selector_all("svg .dim", "all => [...new Set(all.map(mark => mark.dataset.series))].sort()")
    assert dimmed == ["0", "2"]
    button.click()
    button.blur()
    assert page.locator("svg .dim").count() == 0


def test_the_theme_follows_the_system_until_the_switch_says_otherwise(opened: Any) -> None:
    page = opened("index.html", color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark, switch = page.evaluate(paper), page.locator("button.theme")
    switch.click()
    assert switch.inner_text().strip() == "Theme: light" and page.evaluate(paper) != dark
    page.get_by_role("link", name="Datasets", exact=True).click()
    assert page.locator("button.theme").inner_text().strip() == "Theme: light" and page.evaluate(paper) != dark
    page.locator("button.theme").click()
    assert page.evaluate(paper) == dark


def test_the_keyboard_reaches_and_works_everything(opened: Any) -> None:
    page = opened("index.html")
    focused = "document.activeElement"
    page.keyboard.press("Tab")
    assert page.evaluate(f"{focused}.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate(f"{focused}.id") == "main"
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(f"{focused}.outerHTML.slice(0, 40)"))
        outline = page.evaluate(f"getComputedStyle({focused}).outlineStyle")
        assert outline != "none", reached[-1]
        if page.evaluate(f"{focused}.closest('thead th') !== null"):
            break
    page.keyboard.press("Enter")
    assert page.locator("thead th").first.get_attribute("aria-sort") == "ascending"
    assert page.locator("thead button").count() == 5


@pytest.mark.parametrize("width", [320, 390])
def test_pages_fit_a_phone(opened: Any, site: Path, width: int) -> None:
    page = opened("index.html", viewport={"width": width, "height": 700}, is_mobile=True, has_touch=True)
    for path in sorted(site.rglob("*.html")):
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        brand, theme = (page.locator(f".top .{name}").bounding_box() for name in ("brand", "theme"))
        assert theme["y"] < brand["y"] + brand["height"], "the switch has a line of its own"
        cut = "[...document.querySelectorAll('caption span')].filter(s => s.getBoundingClientRect().right > innerWidth).length"
        assert page.evaluate(cut) == 0, "a caption is cut off"
        stills = page.evaluate("[...document.querySelectorAll('video')].map(video => video.poster)")
        assert all(still.endswith("replay.jpg") for still in stills), "a film is blank until it is played"


def test_pages_are_whole_without_scripts(opened: Any) -> None:
    page = opened("benchmarks/small/index.html", java_script_enabled=False)
    assert page.locator("#runs").is_visible() and page.locator("tbody tr").count() > 16
    assert not page.locator("form").first.is_visible() and not page.locator("button.theme").is_visible()
