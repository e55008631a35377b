"""What the sources of `tvmdet detect` name."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvmdet.cli.sources import find_sources
from tvmdet.errors import InputError


def relative(images: Path, *words: str, left_out: Path | None = None) -> list[str]:
    return [str(f.relative) for f in find_sources(words, left_out=left_out)]


def test_folder_is_searched_with_those_below(images: Path) -> None:
    assert relative(images, str(images)) == ["a.jpg", "a.png", "deep/a.png"]


def test_glob_keeps_the_path_below_its_plain_part(images: Path) -> None:
    assert relative(images, f"{images}/**/*.png") == ["a.png", "deep/a.png"]


def test_file_is_taken_whatever_its_name_even_when_missing(images: Path) -> None:
    named = relative(images, str(images / "notes.txt"), str(images / "missing.png"))
    assert named == ["notes.txt", "missing.png"]


def test_each_source_once(images: Path) -> None:
    assert len(find_sources([str(images), str(images / "a.png"), f"{images}/*.png"])) == 3


def test_results_folder_is_left_out(images: Path) -> None:
    found = find_sources([str(images)], left_out=images / "deep")
    assert [str(f.relative) for f in found] == ["a.jpg", "a.png"]


def test_names_with_wildcards_in_them(tmp_path: Path) -> None:
    (tmp_path / "a[1].png").write_bytes(b"")
    assert len(find_sources([str(tmp_path / "a[1].png")])) == 1


@pytest.mark.parametrize("word", ["", "*.gif", "deep/*.jpg"])
def test_nothing_found_says_what_was_looked_for(tmp_path: Path, word: str) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(InputError, match=r"no image and no video; looked for .*\.jpg .*\.mp4"):
        find_sources([str(tmp_path / word)])


def test_pictures_that_are_not_read_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.GIF", "b.heic", "c.NEF", "notes.txt"):
        (tmp_path / name).touch()
    assert [source.path.name for source in find_sources([str(tmp_path)])] == ["a.GIF"]
    (record,) = caplog.records
    assert "2 pictures in a format that is not read, such as b.heic" in record.getMessage()
