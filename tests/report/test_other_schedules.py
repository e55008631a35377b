"""The network that is timed alone, against the one inside the detector's file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tvmdet.artifact import Artifact
from tvmdet.report.network import count_other_schedules


def of(**knobs: int) -> Any:
    """A file of two kernels, of which ``a`` and ``b`` can be scheduled."""
    kernels = {
        name: {"anchor": name, "template": "t", "knobs": {"rows": rows}, "source": "tuned"}
        for name, rows in knobs.items()
    }
    alone = {"anchor": "pool", "template": "t", "knobs": {}, "source": "single"}
    other = {"a": {**next(iter(kernels.values())), "knobs": {"rows": 99}}}
    targets = [
        {"name": "here", "kernels": {**kernels, "pool": alone}},
        {"name": "there", "kernels": other},
    ]
    return SimpleNamespace(manifest={"targets": targets})


@pytest.mark.parametrize(
    ("file", "network", "count"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}, 0),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, 1),
        ({"a": 1, "b": 2}, {"a": 2, "b": 3}, 2),
        ({"a": 1, "b": 2}, {"a": 1}, 0),  # of the detector's head
    ],
)
def test_kernels_of_other_schedules_are_counted(
    file: dict[str, int], network: dict[str, int], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Artifact, "open", lambda _path: of(**network))
    assert count_other_schedules(of(**file), Path("network.tvmdet"), "here") == count
