"""How a page is laid out and printed, as Chromium does it from its command line.

Needs Chromium (Debian's package, or CHROMIUM names it), no library to drive it.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import made_results
import pytest

from tvmdet.report.pages import ReportOptions, write_report

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chromium() -> str:
    found = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    if found is None:
        pytest.skip("no Chromium: apt install chromium, or set CHROMIUM")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four detectors, each with two targets and two precisions, at three batches."""
    folder = tmp_path_factory.mktemp("page")
    paths = []
    for index in range(16):
        result = made_results.made_result(
            model=f"detector_{index // 4}",
            target=f"x86-64-v{3 + index % 2}",
            precision="bf16" if index % 4 > 1 else "fp32",
            batches=(1, 4, 8),
            rivals=("onnxruntime", "openvino"),
            seed=index,
        )
        paths.append(made_results.written(result, folder / f"{index}.json"))
    return write_report(paths, folder / "r.html", ReportOptions(group=True)).path


def run(chromium: str, page: Path, *words: str) -> str:
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", *words, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


def evaluated(chromium: str, page: Path, width: int, expression: str) -> Any:
    """Returns the value of an expression in the page, in a window of a width."""
    asking = page.with_name("asking.html")
    script = f"<script>document.body.dataset.found = JSON.stringify({expression})</script></body>"
    asking.write_text(page.read_text().replace("</body>", script))
    dom = run(chromium, asking, f"--window-size={width},900", "--dump-dom")
    (found,) = re.findall(r'data-found="([^"]*)"', dom)
    return json.loads(html.unescape(found))


def test_verdicts_are_in_view_on_a_desktop(chromium: str, page: Path) -> None:
    hidden = evaluated(
        chromium,
        page,
        1280,
        """[...document.querySelectorAll(".scroll")].flatMap((box) => {
            const right = box.getBoundingClientRect().right;
            return [...box.querySelectorAll("thead th")].filter(
                (cell) => cell.getBoundingClientRect().right > right + 1
            ).map((cell) => cell.textContent);
        })""",
    )
    assert hidden == []


def test_a_phone_scrolls_tables_and_not_the_page(chromium: str, page: Path) -> None:
    # The narrowest window of a headless Chromium is 500 pixels wide.
    assert evaluated(chromium, page, 500, "document.documentElement.scrollWidth") <= 500


def test_conditions_leave_no_page_half_empty(chromium: str, tmp_path: Path) -> None:
    """Two thirds down a page they begin there, and end on the next one with the footer."""
    versions = {f"package-{index}": "1.2.3.post45" for index in range(24)}
    path = tmp_path / "one.json"
    result = made_results.written(made_results.made_result(), path, versions=versions)
    page = write_report([result], tmp_path / "r.html").path
    text = page.read_text()
    head = text[: text.index("<main")]
    (shown,) = re.findall(r'<div class="conditions">.*</footer>', text, re.DOTALL)
    page.write_text(f'{head}<main><section><div style="height: 120mm"></div>{shown}</body></html>')
    paper = tmp_path / "r.pdf"
    run(chromium, page, "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    assert len(re.findall(rb"/Type /Page\b", paper.read_bytes())) == 2


def test_print_is_a_document_of_bearable_size(chromium: str, page: Path, tmp_path: Path) -> None:
    paper = tmp_path / "r.pdf"
    run(chromium, page, "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    data = paper.read_bytes()
    assert len(data) < 5_000_000
    # Four detectors with four setups each.
    assert 8 < len(re.findall(rb"/Type /Page\b", data)) < 60
