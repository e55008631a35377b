"""ncnn: the ONNX file converted by pnnx; its own default of packed layouts and Winograd."""

from __future__ import annotations

import importlib.util
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import ncnn
import numpy as np

__all__ = ["load", "settings", "version"]


def load(
    model: str, signature: Mapping[str, Any], *, threads: int, precision: str, mode: str
) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Converts the network and loads it."""
    network = ncnn.Net()
    network.opt.num_threads = threads
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = False
    network.opt.use_fp16_arithmetic = False
    network.opt.use_bf16_storage = precision == "bf16"
    with tempfile.TemporaryDirectory(prefix="tvmdet-ncnn-") as folder:
        _convert(model, signature, Path(folder))
        for load_part, suffix in ((network.load_param, "param"), (network.load_model, "bin")):
            if load_part(str(Path(folder, f"model.ncnn.{suffix}"))):
                raise RuntimeError(f"ncnn cannot load what pnnx wrote (model.ncnn.{suffix})")
    inputs = [entry["name"] for entry in signature["inputs"]]
    shapes = {entry["name"]: entry["shape"] for entry in signature["outputs"]}

    def run_row(arrays: dict[str, Any], row: int) -> list[Any]:
        found = []
        with network.create_extractor() as extractor:
            for index, name in enumerate(inputs):
                extractor.input(f"in{index}", ncnn.Mat(arrays[name][row]))
            for index, name in enumerate(shapes):
                code, mat = extractor.extract(f"out{index}")
                if code:
                    raise RuntimeError(f"ncnn failed with {code} at output {name}")
                found.append(np.array(mat).reshape(1, *shapes[name][1:]))
        return found

    def run(arrays: dict[str, Any]) -> dict[str, Any]:
        # ncnn has no batch dimension: its users loop.
        rows = len(arrays[inputs[0]])
        parts = [run_row(arrays, row) for row in range(rows)]
        if rows == 1:
            return dict(zip(shapes, parts[0], strict=True))
        return {
            name: np.concatenate([part[index] for part in parts])
            for index, name in enumerate(shapes)
        }

    return run


def _convert(model: str, signature: Mapping[str, Any], folder: Path) -> None:
    found = importlib.util.find_spec("pnnx")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError("pnnx, which converts ONNX for ncnn, is not installed beside ncnn")
    copy = folder / "model.onnx"
    copy.symlink_to(Path(model).resolve())
    shapes = ",".join(
        f"[{','.join(str(side) for side in (1, *entry['shape'][1:]))}]f32"
        for entry in signature["inputs"]
    )
    program = Path(found.submodule_search_locations[0], "pnnx")
    command = [str(program), copy.name, f"inputshape={shapes}", "fp16=0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if not (folder / "model.ncnn.param").is_file():
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise RuntimeError(f"pnnx failed: {' | '.join(lines[-3:])}")


def version() -> str:
    """Returns name and version."""
    return f"ncnn {metadata.version('ncnn')}"


def settings(threads: int, precision: str, mode: str) -> str:
    """Says how it was set up."""
    return f"pnnx, num_threads={threads}, fp16 off, bf16 storage {precision == 'bf16'}"
