"""What a process that loads and runs a file keeps in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_models
import pytest

import tvmdet

SIDE = 2880
WEIGHT_MB = SIDE * SIDE * 4 / 2**20

MEASURE = """
import json
import sys
from pathlib import Path

import numpy as np

def measured(key):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024

small, large, side = sys.argv[1], sys.argv[2], int(sys.argv[3])
import tvmdet
# Whatever is imported or made once per process is there before anything is measured.
with tvmdet.load(small, threads=2) as detector:
    detector.run({"x": np.ones((1, 8), np.float32)})
before, x = measured("VmRSS"), np.ones((1, side), np.float32)
with tvmdet.load(large, threads=2) as detector:
    loaded = measured("VmHWM")
    for _ in range(3):
        detector.run({"x": x})
    print(json.dumps({
        "load": loaded - before,
        "run": measured("VmHWM") - before,
        "private": measured("RssAnon"),
    }))
"""


def compile_linear(side: int, folder: Path, batch_sizes: tuple[int, ...]) -> Path:
    """Compiles ``y = x w`` with a square matrix of that side."""
    graph = onnx_models.Graph()
    matrix = np.arange(side * side, dtype=np.float32).reshape(side, side) * np.float32(1e-9)
    graph.node("MatMul", "x", graph.constant(matrix))
    graph.nodes[-1].output[0] = "y"
    proto = graph.model({"x": ["n", side]}, {"y": ["n", side]})
    path = onnx_models.save(proto, folder / f"linear{side}.onnx")
    model = tvmdet.import_onnx(path, raw=True)
    output = path.with_suffix(".tvmdet")
    tvmdet.compile(model, target="host", batch_sizes=batch_sizes, output=output)
    return output


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A file with next to no weights and one with many, for two batch sizes."""
    folder = tmp_path_factory.mktemp("linear")
    return compile_linear(8, folder, (1,)), compile_linear(SIDE, folder, (1, 2))


def test_batch_sizes_share_the_weights_in_the_file(files: tuple[Path, Path]) -> None:
    assert files[1].stat().st_size < (WEIGHT_MB + 2) * 2**20


def test_weights_are_in_memory_once(files: tuple[Path, Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *map(str, files), str(SIDE)],
        capture_output=True,
        text=True,
        check=True,
    )
    grown = json.loads(done.stdout)
    # Loading reads the file a block at a time and maps the weights: none is in memory yet.
    assert grown["load"] < 0.2 * WEIGHT_MB, grown
    # Running reads each of them where it is.
    assert WEIGHT_MB < grown["run"] < 1.2 * WEIGHT_MB, grown
    assert grown["private"] < WEIGHT_MB, grown
