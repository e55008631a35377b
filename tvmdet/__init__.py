"""tvmdet: an ONNX object detector becomes one compiled file that finds objects.

Everything public is here. Names are imported when they are first used: a program that only
loads and runs compiled detectors never imports TVM's compiler, onnx or the tuner.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tvmdet.errors import (
    ArtifactError,
    InputError,
    ModelError,
    ParityError,
    ShapeError,
    TargetError,
    TuningError,
    TvmdetError,
    UnsupportedOperatorError,
)

if TYPE_CHECKING:
    from tvmdet.compiler.compile import compile
    from tvmdet.detections import Detections
    from tvmdet.frontend import import_onnx
    from tvmdet.runtime import Detector, load
    from tvmdet.spec import DetectorSpec
    from tvmdet.tuning import tune

__all__ = [
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

__version__ = "0.1.0"

_HOMES = {
    "Detections": "tvmdet.detections",
    "Detector": "tvmdet.runtime",
    "DetectorSpec": "tvmdet.spec",
    "compile": "tvmdet.compiler",
    "import_onnx": "tvmdet.frontend",
    "load": "tvmdet.runtime",
    "tune": "tvmdet.tuning",
}


def __getattr__(name: str) -> Any:
    """Imports a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tvmdet' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Returns the public names, imported or not."""
    return sorted({*globals(), *__all__})
