"""What a long phase says while it lasts."""

from __future__ import annotations

import io
import sys

import pytest

from tvmdet.cli import output, progress
from tvmdet.cli.progress import Phases


def test_a_long_phase_says_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Phases() as phase:
        phase.tell("nothing has begun")
        phase("importing x.onnx")
        for seconds, step in [(1, "early"), (12, "folding"), (15, "hidden"), (40, "proving")]:
            now[0] = 100.0 + seconds
            phase.tell(step)
    assert capfd.readouterr().err.splitlines() == [
        "importing x.onnx ...",
        "importing x.onnx: 12 s, folding",
        "importing x.onnx: 40 s, proving",
    ]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_path_is_no_markup_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = _Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with Phases() as phase:
        phase("importing [/x].onnx")
        phase.tell("folding [bold]")
    assert "importing [/x].onnx" in stream.getvalue()


def test_a_reader_that_is_gone_is_an_error_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Closed())
    with pytest.raises(BrokenPipeError):
        output.stderr().print("nobody reads this")
