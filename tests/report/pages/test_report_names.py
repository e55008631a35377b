"""Rows, marks and figures of several sessions in one report: each says which it is."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import made_results
import pytest

from tvmdet.report.pages import ReportOptions, write_report
from tvmdet.report.pages.sessions import session_tags


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two targets, two precisions, and one setup measured twice, by long file names."""
    given = {
        "v3-fp32": {"target": "x86-64-v3"},
        "v4-fp32": {},
        "v4-fp32-again": {"seed": 1},
        "v4-bf16": {"precision": "bf16", "seed": 2},
    }
    return [
        made_results.written(
            made_results.made_result(**more, rivals=("onnxruntime", "openvino")),  # type: ignore[arg-type]
            tmp_path / f"picodet_layout_cdla-x86-64-{name}.json",
        )
        for name, more in given.items()
    ]


def drawings(text: str, title: str) -> list[str]:
    return re.findall(rf"<svg[^>]*><title>{title}.*?</svg>", text, re.DOTALL)


def texts(drawing: str, kind: str) -> list[str]:
    return re.findall(rf'<text class="{kind}"[^>]*>([^<]*)<', drawing)


def rows_named(drawing: str) -> list[str]:
    """What rows are called: lines at the left, those of one row together."""
    found = re.findall(r'<text class="row" x="12" y="([\d.]+)">([^<]*)<', drawing)
    named: list[tuple[float, str]] = []
    for place, words in found:
        if named and float(place) - named[-1][0] <= 16.0:
            named[-1] = (float(place), f"{named[-1][1]} · {words}")
        else:
            named.append((float(place), words))
    return [words for _, words in named]


def test_rows_of_a_chart_differ_and_are_whole(files: list[Path], tmp_path: Path) -> None:
    text = write_report(files, tmp_path / "r.html").path.read_text()
    shown = 0
    for title in ("Latency, ", "Where the time goes", "Against rivals"):
        for drawing in drawings(text, title):
            named = rows_named(drawing)
            assert max(Counter(named).values()) == 1, named
            assert not any("…" in name for name in named)
            shown += len(named)
    assert shown > 30
    (stages,) = drawings(text, "Where the time goes")
    assert set(rows_named(stages)) >= {
        "x86-64-v4 · tvmdet fp32 (fp32-again)",
        "x86-64-v4 · openvino fp32 (beside bf16)",
        "x86-64-v4 · openvino fp32 (beside fp32, fp32-again)",
        "x86-64-v3 · openvino fp32",
    }


def test_ratios_name_both_sides(files: list[Path], tmp_path: Path) -> None:
    text = write_report(files, tmp_path / "r.html").path.read_text()
    titles = re.findall(r"<title>(Against rivals[^<]*)", text)
    assert titles == [
        "Against rivals, tvmdet fp32 · x86-64-v3",
        "Against rivals, tvmdet bf16 · x86-64-v4",
        "Against rivals, tvmdet fp32 · x86-64-v4 (fp32-again)",
        "Against rivals, tvmdet fp32 · x86-64-v4 (fp32)",
    ]


def test_lines_of_throughput_have_labels_of_their_own(files: list[Path], tmp_path: Path) -> None:
    text = write_report(files, tmp_path / "r.html").path.read_text()
    (drawing,) = drawings(text, "Throughput, network, x86-64-v4")
    labels = texts(drawing, "label strong")
    assert len(labels) == 9
    assert len(set(labels)) == len(labels)
    lines = re.findall(r'class="series (d\d s\d)"', drawing)
    assert len(set(lines)) == 9  # two of each: the line, and its stroke in the key


def test_tables_and_cards_tell_a_rerun_apart(files: list[Path], tmp_path: Path) -> None:
    text = write_report(files[1:3], tmp_path / "r.md").path.read_text()
    rows = [line for line in text.splitlines() if line.startswith("| x86-64-v4")]
    keys = [tuple(row.split(" | ")[:4]) for row in rows]
    assert len(rows) == 6 and len(set(keys)) == 6
    assert "Of 12 comparisons with rivals" in text
    assert "6 of them repeat another of the same setup, in a further session." in text
    once = write_report(files[:2], tmp_path / "r.md").path.read_text()
    assert "further session" not in once
    assert "(fp32)" not in once
    page = write_report(files[1:3], tmp_path / "r.html").path.read_text()
    cards = re.findall(r'<article class="card"><h3>([^<]*)', page)
    assert cards == ["x86-64-v4 (fp32-again) · fp32", "x86-64-v4 (fp32) · fp32"]
    assert len(set(re.findall(r"<h3>(Kernels[^<]*)", page))) == 2


def test_results_of_several_models_are_no_sessions_of_one_setup(tmp_path: Path) -> None:
    paths = [
        made_results.written(made_results.made_result(model=name), tmp_path / f"{name}.json")
        for name in ("one", "two")
    ]
    options = ReportOptions(group=True)
    text = write_report(paths, tmp_path / "r.md", options).path.read_text()
    assert "(one)" not in text and "| one | x86-64-v4 | fp32 |" in text


TAGS = [
    ([], []),
    (["run-1.json", "run-2.json"], ["run-1", "run-2"]),
    (["a/result.json", "b/result.json"], ["a", "b"]),
    (["long_model_name-v4-fp32.json", "long_model_name-v3-fp32.json"], ["v4", "v3"]),
    (["long_model_name-fp32.json", "long_model_name-fp32-again.json"], ["fp32", "fp32-again"]),
    (["old.report.json"] * 2, ["old.report"]),
    (["./a-b/x.json", "./a_b/x.json"], ["session 1", "session 2"]),
]


@pytest.mark.parametrize(("given", "tags"), TAGS, ids=str)
def test_tags_are_short_and_differ(given: list[str], tags: list[str]) -> None:
    assert list(session_tags(given).values()) == tags
