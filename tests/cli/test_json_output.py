"""`--json` is the same in every verb: alone it prints, with a file it writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from tvmdet.cli.app import app
from tvmdet.cli.json_output import fill_in_stdout

VERBS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_the_same_option(run: Callable, verb: str) -> None:
    assert "  --json [FILE.json] " in run(verb, "--help").out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], []),
        (["a", "--json"], ["a", "--json", "-"]),
        (["--json", "a.tvmdet"], ["--json", "-", "a.tvmdet"]),
        (["--json", "--raw"], ["--json", "-", "--raw"]),
        (["--json", "-"], ["--json", "-"]),
        (["--json", "a.json"], ["--json", "a.json"]),
        (["--json", "in/A.JSON", "b"], ["--json", "in/A.JSON", "b"]),
        (["--json=a.txt", "b"], ["--json=a.txt", "b"]),
        (["--json", "--json", "a.json"], ["--json", "-", "--json", "a.json"]),
        (["--", "--json"], ["--", "--json"]),
    ],
)
def test_what_counts_as_its_file(words: list[str], expected: list[str]) -> None:
    assert fill_in_stdout(words) == expected


# Verbs of which it was a flag, and one of which it took a file.
@pytest.mark.parametrize("verb", ["targets", "inspect", "detect"])
def test_printed_and_written_are_the_same(
    run: Callable, toy_path: Path, images: Path, tmp_path: Path, verb: str
) -> None:
    words = {"targets": [], "inspect": [toy_path], "detect": [toy_path, images / "a.png"]}[verb]
    printed = run(verb, *words, "--json")
    assert printed.code == 0
    value = json.loads(printed.out)
    assert json.loads(run(verb, "--json", *words).out) == value
    assert json.loads(run(verb, *words, "--json", "-").out) == value
    for name in ("found.json", "found.txt"):
        path = tmp_path / name
        form = ["--json", path] if path.suffix == ".json" else [f"--json={path}"]
        written = run(verb, *words, *form)
        assert (written.code, written.err) == (0, "")
        assert json.loads(path.read_text()) == value
        assert f"in {path}" in written.out
        assert not written.out.startswith("{")


def test_a_place_that_cannot_be_written_is_told_before_the_work(
    run: Callable, tmp_path: Path
) -> None:
    place = tmp_path / "no" / "where.json"
    for words in (["doctor", "x.onnx"], ["tune", "x.onnx"], ["compile", "x.onnx"]):
        done = run(*words, "--json", place)
        assert done.code == 1
        assert f"cannot write {place}" in done.error
        assert "x.onnx" not in done.err.replace(str(place), "")
