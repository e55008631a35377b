"""What `import tvmdet` offers, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tvmdet

PUBLIC = [
    "ArtifactError",
    "Detections",
    "Detector",
    "DetectorSpec",
    "InputError",
    "ModelError",
    "ParityError",
    "ShapeError",
    "TargetError",
    "TuningError",
    "TvmdetError",
    "UnsupportedOperatorError",
    "compile",
    "import_onnx",
    "load",
    "tune",
]


def test_all_is_pinned_and_sorted() -> None:
    assert tvmdet.__all__ == PUBLIC == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_listed(name: str) -> None:
    assert getattr(tvmdet, name).__name__ == name
    assert name in dir(tvmdet)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'tvmdet' has no attribute 'convert'"):
        _ = tvmdet.convert


def test_public_errors_are_those_of_the_errors_module() -> None:
    from tvmdet import errors

    assert set(errors.__all__) <= set(tvmdet.__all__)


def modules_after(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


HEAVY = {"onnx", "onnxruntime", "onnxslim", "torch", "tvm", "tvmdet.compiler", "tvmdet.tuning"}


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import tvmdet", HEAVY | {"numpy", "cv2", "tvmdet.runtime"}),
        ("import tvmdet; tvmdet.load", HEAVY | {"tvmdet.frontend"}),
        ("import tvmdet; tvmdet.Detections", HEAVY | {"cv2", "tvmdet.runtime"}),
        ("import tvmdet.cli", HEAVY | {"numpy", "cv2", "tvmdet.runtime", "tvmdet.frontend"}),
    ],
)
def test_import_loads_no_more_than_it_needs(code: str, unwanted: set[str]) -> None:
    assert not modules_after(code) & unwanted
