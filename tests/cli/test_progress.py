"""What a long phase says while it lasts."""

from __future__ import annotations

import pytest

from tvmdet.cli import progress
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
