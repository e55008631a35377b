"""What a file says of a GPU's library is checked before it is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tvmdet.artifact import FORMAT_VERSION, Artifact, write_artifact
from tvmdet.errors import ArtifactError

GPU = {"sm": "sm_90", "toolkit": "13.0", "never_run": True, "kernels": {}}


def _manifest(gpu: Any) -> dict[str, Any]:
    entry = {
        "name": "sm_90",
        "arch": "x86_64",
        "rank": 90,
        "required_features": ["sm_90"],
        "library": "lib/sm_90.so",
        "planned_bytes": {"1": 8},
        "weights": [],
        "gpu": gpu,
    }
    return {
        "format": FORMAT_VERSION,
        "tvmdet": "0",
        "tvm": "0",
        "model": {},
        "spec": {},
        "recognition": [],
        "batch_sizes": [1],
        "raw": None,
        "targets": [entry],
        "parity": None,
    }


def test_what_a_gpu_needs_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.tvmdet"
    write_artifact(path, _manifest(GPU), {"lib/sm_90.so": [b"code"]})
    (target,) = Artifact.open(path).targets
    assert target.gpu == {"sm": "sm_90", "toolkit": "13.0", "never_run": True}


@pytest.mark.parametrize(
    ("gpu", "said"),
    [
        ([], "is not a table"),
        ({**GPU, "sm": "compute_90"}, "has sm 'compute_90'"),
        ({**GPU, "sm": 90}, "has 'sm' of the wrong type"),
        ({**GPU, "toolkit": "newest"}, "has toolkit 'newest'"),
        ({**GPU, "never_run": "no"}, "does not say whether it was never_run"),
        ({"sm": "sm_90"}, "has no 'toolkit'"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, gpu: Any, said: str) -> None:
    with pytest.raises(ArtifactError, match=f"the gpu of target sm_90 {said}"):
        write_artifact(tmp_path / "x.tvmdet", _manifest(gpu), {"lib/sm_90.so": [b"code"]})
