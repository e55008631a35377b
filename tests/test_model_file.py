"""What is no ONNX file is refused at first sight, with the reason."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from tvmdet.errors import ModelError
from tvmdet.model_file import check_model_file


def test_a_file_that_may_be_one_passes(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"  # whatever it is called
    path.write_bytes(b"\x08\x08rest")
    assert check_model_file(path) == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04rest", "is a zip or a pickle"),
        (pickle.dumps([1.0]), "is a zip or a pickle"),
        (pickle.dumps([1.0], 2), "is a zip or a pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid 1", "git lfs pull"),
    ],
)
def test_other_contents(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        check_model_file(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        (".", "is a folder"),
        ("pipe", "is not a regular file"),
        ("missing", "there is no file"),
        ("a\0b", "null byte"),
        ("x" * 5000, "cannot be read: File name too long"),
    ):
        with pytest.raises(ModelError, match=message):
            check_model_file(tmp_path / name)
