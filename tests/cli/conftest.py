"""Runs the command line in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tvmdet.cli import main


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one error message; more than one, or a traceback, fails the test."""
        assert "Traceback" not in self.err
        assert self.err.count("error: ") == 1
        return self.err[self.err.index("error: ") :]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs `tvmdet` with the given words."""

    def run_words(*words: Any) -> Done:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run_words


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of two usable images and one below it, all of one stem."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for name in ("a.png", "a.jpg", "deep/a.png"):
        picture = np.full((20, 30, 3), 255, np.uint8)
        assert cv2.imwrite(str(folder / name), picture)
    (folder / "notes.txt").write_text("no image")
    return folder
