"""`report`: the words of the command line around it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "report" / "pages"))
import made_results


@pytest.fixture
def results(tmp_path: Path) -> tuple[Path, Path]:
    """A result, and a later one that is slower."""
    old = made_results.made_result()
    new = made_results.slowed(old, 1.2)
    return (
        made_results.written(old, tmp_path / "old.json"),
        made_results.written(new, tmp_path / "new.json"),
    )


def test_it_writes_what_the_suffix_asks_for(
    run: Callable, results: tuple[Path, Path], tmp_path: Path
) -> None:
    old, _ = results
    for name in ("r.html", "r.md", "r.json"):
        done = run("report", old, "-o", tmp_path / name, "--price", "x86-64-v4=0.17")
        assert done.code == 0, done.err
        assert (tmp_path / name).stat().st_size > 1000
        assert "Of 9 comparisons with rivals" in done.out
        assert str(tmp_path / name) in done.out
    value = json.loads((tmp_path / "r.json").read_text())
    assert value["models"][0]["rows"][0]["cost_per_1000_images"] > 0


def test_regressions_fail_only_when_asked(
    run: Callable, results: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = results
    words = ["report", new, "-o", tmp_path / "r.md", "--baseline", old]
    done = run(*words)
    assert done.code == 0
    assert "3 regressions" in done.out
    assert run(*words, "--fail").code == 1
    assert run("report", old, "-o", tmp_path / "r.md", "--baseline", old, "--fail").code == 0


def test_the_findings_as_json(run: Callable, results: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = results
    page = tmp_path / "r.md"
    done = run("report", new, "-o", page, "--baseline", old, "--json")
    value = json.loads(done.out)
    assert (value["report"], value["regressions"]) == (str(page), 3)
    assert "3 regressions against the earlier results." in value["models"][0]["findings"]


def test_json_never_writes_over_a_result(
    run: Callable, results: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = results
    before = old.read_bytes()
    words = ["-o", tmp_path / "r.md"]
    done = run("report", "--json", old, new, *words)
    assert done.code == 2
    assert "old.json is a result of `tvmdet bench` or an earlier report, which --json" in done.error
    assert old.read_bytes() == before
    assert not (tmp_path / "r.md").exists()
    for _ in range(2):  # an older file of findings is no result
        assert run("report", new, *words, "--json", tmp_path / "findings.json").code == 0
    value = json.loads((tmp_path / "findings.json").read_text())
    assert value["report"] == str(tmp_path / "r.md")
    assert json.loads(run("report", "--json=-", old, *words).out)["regressions"] == 0


def test_no_option_writes_over_what_was_measured(
    run: Callable, results: tuple[Path, Path], tmp_path: Path
) -> None:
    old, new = results
    report = tmp_path / "report.json"
    assert run("report", old, "-o", report).code == 0
    assert run("report", old, "-o", report).code == 0  # a report can be had again
    link = tmp_path / "link.json"
    link.symlink_to(new)
    kept = {path: path.read_bytes() for path in (old, new, report)}
    for words, said in (
        ((new, "-o", new), "one of the files that the report is made from"),
        ((new, "-o", tmp_path / "." / "new.json"), "one of the files"),
        ((new, "-o", link), "one of the files"),
        ((new, "--baseline", old, "-o", old), "one of the files"),
        ((new, "--baseline", report, "-o", report), "one of the files"),
        ((new, "-o", old), "old.json is a result of `tvmdet bench`, which the report would write"),
        ((old, "--baseline", report, "-o", "r.md", f"--json={report}"), "earlier report"),
        ((new, "-o", tmp_path / "r.json", f"--json={tmp_path / 'r.json'}"), "the report itself"),
    ):
        done = run("report", *words)
        assert done.code != 0, words
        assert said in done.error
        assert {path: path.read_bytes() for path in kept} == kept
    assert link.is_symlink()


def test_drift_of_the_machine_is_a_warning(run: Callable, tmp_path: Path) -> None:
    paths = [
        made_results.written(
            made_results.made_result(target=target, median_ms=median_ms),
            tmp_path / f"{target}.json",
        )
        for target, median_ms in (("x86-64-v3", 20.0), ("x86-64-v4", 35.0))
    ]
    done = run("report", *paths, "-o", tmp_path / "r.md")
    assert done.code == 0
    assert "warning: made_detector: sessions are not comparable: openvino fp32 took" in done.err
    assert "not comparable" not in run("report", paths[0], "-o", tmp_path / "r.md").err


WRONG = [
    ((), "name the report with -o", 2),
    (("-o", "r.pdf"), "reports are .html, .md, .json", 1),
    (("-o", "r.md", "--fail"), "--fail needs --baseline", 2),
    (("-o", "r.md", "--price", "0.17"), "is no price", 2),
    (("-o", "r.md", "--price", "x86-64-v4=-1"), "is no price", 2),
    (("-o", "r.md", "--price", "x86-64-v4=nan"), "is no price", 2),
    (("-o", "r.md", "--price", "a=1", "--price", "a=2"), "two prices", 2),
    (("-o", "r.md", "--price", "a=1"), "--price names a", 1),
    (("-o", "no/where/r.md"), "there is no folder no/where", 1),
]


@pytest.mark.parametrize(("words", "said", "code"), WRONG, ids=[said for _, said, _ in WRONG])
def test_wrong_words(
    run: Callable,
    results: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    said: str,
    code: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("report", results[0], *words)
    assert done.code == code
    assert said in done.error


def test_no_results_is_an_error(run: Callable, tmp_path: Path) -> None:
    done = run("report", "-o", tmp_path / "r.md")
    assert done.code == 2
    assert "give results of `tvmdet bench --json`" in done.error
