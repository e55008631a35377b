"""The page as a browser shows it: fits a phone, sorts by keyboard, prints, asks for nothing.

Needs Chromium (Debian's package, or CHROMIUM names it) and playwright. With REPORT_SCREENSHOTS a
folder, pictures of the page are left there to be looked at.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_results
import pytest

from tvmdet.report.pages import ReportOptions, write_report

pytestmark = pytest.mark.slow

_SIZES = {"phone": (390, 844), "desktop": (1280, 900)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    names = (os.environ.get("CHROMIUM", "chromium"), "chromium-browser", "google-chrome")
    found = next((path for name in names if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium: apt install chromium, or set CHROMIUM")
    with api.sync_playwright() as playwright:
        # As root, which containers are, Chromium has no sandbox; the page is our own.
        one = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield one
        one.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    members = (made_results.emulated(), made_results.never_run())
    results = [
        made_results.made_result(
            target=f"x86-64-v{3 + index}",
            batches=(1, 4, 8),
            seed=index,
            median_ms=25.0 - 6 * index,
            members=members,
            warnings=("network, batch 4: the machine was not quiet",),
        )
        for index in range(2)
    ]
    paths = [made_results.written(r, folder / f"{i}.json") for i, r in enumerate(results)]
    old = made_results.written(made_results.slowed(results[0], 0.9), folder / "old.json")
    options = ReportOptions(baseline=(old,), prices={"x86-64-v4": 0.17})
    return write_report(paths, folder / "report.html", options).path


def opened(
    browser: Any, page_file: Path, size: str, scheme: str = "light"
) -> tuple[Any, list[str]]:
    width, height = _SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page, trouble = context.new_page(), []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: trouble.append(request.url))
    page.goto(page_file.as_uri())
    return page, trouble


def keep(page: Any, name: str) -> None:
    folder = os.environ.get("REPORT_SCREENSHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=True)


@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_asks_nobody(browser: Any, page_file: Path, size: str, scheme: str) -> None:
    page, trouble = opened(browser, page_file, size, scheme)
    keep(page, f"{size}-{scheme}")
    # Its own address is the only request, and there is no complaint.
    assert trouble == [page_file.as_uri()]
    width = _SIZES[size][0]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    sizes = page.evaluate(
        """[...document.querySelectorAll("svg text")].map((text) => {
            const scale = Math.hypot(text.getCTM().a, text.getCTM().b);
            return scale * parseFloat(getComputedStyle(text).fontSize);
        })"""
    )
    assert min(sizes) > 9.0
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")


@pytest.mark.parametrize("size", _SIZES)
def test_texts_in_drawings_stay_inside(browser: Any, page_file: Path, size: str) -> None:
    page, _ = opened(browser, page_file, size)
    outside = page.evaluate(
        """[...document.querySelectorAll(".chart svg text")].filter((text) => {
            const box = text.getBoundingClientRect();
            const around = text.ownerSVGElement.getBoundingClientRect();
            return box.left < around.left - 2 || box.right > around.right + 2;
        }).map((text) => text.textContent)"""
    )
    assert outside == []


def test_a_table_sorts_from_the_keyboard(browser: Any, page_file: Path) -> None:
    page, _ = opened(browser, page_file, "desktop")
    table = page.locator("table", has=page.locator("th", has_text="p50 ms")).first
    heading = table.locator("thead th", has_text="p50 ms")
    button = heading.locator("button")
    column = heading.evaluate("(cell) => cell.cellIndex")

    def shown() -> list[float]:
        cells = table.locator(f"tbody tr > :nth-child({column + 1})").all_inner_texts()
        return [float(text.strip("* ").replace(",", "")) for text in cells if text[:1].isdigit()]

    def last() -> str:
        return str(table.locator("tbody tr").last.inner_text())

    button.focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert shown() == sorted(shown())
    assert len(shown()) > 20
    page.keyboard.press("Space")
    assert heading.get_attribute("aria-sort") == "descending"
    assert shown() == sorted(shown(), reverse=True)
    # What has no figure is last either way.
    assert "not run" in last() or "emulated" in last() or "failed" in last()


def test_it_prints(browser: Any, page_file: Path, tmp_path: Path) -> None:
    page, _ = opened(browser, page_file, "desktop", "dark")
    folder = Path(os.environ.get("REPORT_SCREENSHOTS", tmp_path))
    page.pdf(path=str(folder / "report.pdf"), prefer_css_page_size=True, print_background=True)
    assert (folder / "report.pdf").read_bytes().count(b"/Type /Page") > 3
    page.emulate_media(media="print")
    # Paper is white whatever the screen's theme is.
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
