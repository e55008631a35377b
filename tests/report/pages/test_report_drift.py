"""A machine that drifts between sessions is said to, by rivals that did not change."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import made_results
import pytest

from tvmdet.report.pages import write_report
from tvmdet.report.result_format import Result

SAYS = "sessions are not comparable: onnxruntime fp32 took "


def session(tmp_path: Path, name: str, median_ms: float = 20.0, **more: object) -> Path:
    result = made_results.made_result(median_ms=median_ms, rivals=("onnxruntime",), **more)  # type: ignore[arg-type]
    return made_results.written(result, tmp_path / name)


@pytest.mark.parametrize("form", ["html", "md", "json"])
def test_every_form_warns_of_drift(tmp_path: Path, form: str) -> None:
    one = session(tmp_path, "v3.json", target="x86-64-v3", seed=1)
    two = session(tmp_path, "v4.json", 35.0, seed=2)
    text = write_report([one, two], tmp_path / f"r.{form}").path.read_text()
    assert SAYS in text
    assert "v4.json and " in text.replace("\\", "")
    assert "and so in 2 other rows" in text
    alone = write_report([one], tmp_path / f"r.{form}").path.read_text()
    assert "not comparable" not in alone


def test_equal_sessions_are_not_warned_of(tmp_path: Path) -> None:
    given = [session(tmp_path, f"{seed}.json", seed=seed) for seed in range(4)]
    written = write_report(given, tmp_path / "r.json")
    assert json.loads(written.path.read_text())["models"][0]["warnings"] == []


def versioned(result: Result, version: str, settings: str = "") -> Result:
    tables = [
        replace(
            table,
            entries=tuple(
                replace(entry, version=version, settings=settings) for entry in table.entries
            ),
        )
        for table in result.tables
    ]
    return replace(result, tables=tuple(tables))


@pytest.mark.parametrize(
    ("version", "settings", "cpu", "warned"),
    [
        ("1.2.3", "threads=2", "Synthetic CPU 9000", True),
        ("1.2.4", "threads=2", "Synthetic CPU 9000", False),
        ("1.2.3", "threads=1", "Synthetic CPU 9000", False),
        ("1.2.3", "threads=2", "Another CPU", False),
    ],
)
def test_only_what_did_not_change_is_a_witness(
    tmp_path: Path, version: str, settings: str, cpu: str, warned: bool
) -> None:
    one = versioned(made_results.made_result(), "1.2.3", "threads=2")
    two = versioned(made_results.made_result(median_ms=35.0, cpu=cpu, seed=1), version, settings)
    paths = [
        made_results.written(result, tmp_path / f"{index}.json")
        for index, result in enumerate((one, two))
    ]
    assert (SAYS in write_report(paths, tmp_path / "r.md").path.read_text()) == warned


def test_what_two_copies_differ_by_is_noise(tmp_path: Path) -> None:
    given = []
    for index, median_ms in enumerate((20.0, 21.0)):
        result = made_results.made_result(median_ms=median_ms, seed=index, noise=0.001)
        for ratio in (1.001, 1.04):
            tables = []
            for table in result.tables:
                assert table.noise is not None
                tables.append(replace(table, noise=replace(table.noise, ratio=ratio)))
            path = tmp_path / f"{ratio}-{index}.json"
            given.append(made_results.written(replace(result, tables=tuple(tables)), path))
    quiet = write_report([given[0], given[2]], tmp_path / "r.md").path.read_text()
    uneven = write_report([given[1], given[3]], tmp_path / "r.md").path.read_text()
    assert SAYS in quiet
    assert SAYS not in uneven
