"""Every case of the zoo: imported, recognised, compiled, and held to its framework's own code.

The committed exports run by default; the others need torch and are ``slow`` (see ``environment``).
What each case gave is written to the folder that ``TVMDET_ZOO_RESULTS`` names (``.zoo/results``),
from which ``write_table.py`` makes docs/detectors.md. Cases that import as the same module share
one compiled file (see ``compiled``). With ``TVMDET_ZOO_LATENCY=1`` each that ONNX Runtime
has operators for is also timed in turn with it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from agreement import compare
from cases import CASES, Case
from compiled import Compiler
from drawn import draw
from environment import RESULTS, committed

import tvmdet
from tvmdet.errors import ModelError
from tvmdet.frontend.operators import find_foreign

ROUNDS = 200
SAME_POINT_PX = 0.05

PARAMETERS = [
    pytest.param(case, id=case.name, marks=() if case.default == "whole" else pytest.mark.slow)
    for case in CASES
]


@pytest.fixture(scope="session")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """Compiles each module once."""
    return Compiler(tmp_path_factory.mktemp("zoo"))


@pytest.fixture
def result(case: Case) -> Iterator[dict[str, Any]]:
    """Collects what a case gives; written whether or not the test passes."""
    collected: dict[str, Any] = {
        key: getattr(case, key)
        for key in ("title", "family", "exporter", "opset", "reason", "spec")
    }
    yield collected
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(collected, indent=1, sort_keys=True, default=dict)
    (RESULTS / f"{case.name}.json").write_text(text + "\n")


@pytest.mark.parametrize("case", PARAMETERS)
def test_case(
    case: Case, result: dict[str, Any], export: Callable[[Case], Path], compiler: Compiler
) -> None:
    path = export(case)
    if not path.is_file():
        result["miss"] = f"not exported: {path.with_suffix('.error').read_text().strip()}"
        pytest.skip(result["miss"])
    try:
        _run(case, path, result, compiler)
    except Exception as error:
        result.setdefault("miss", f"{type(error).__name__}: {str(error).splitlines()[0]}")
        raise


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, id=case.name) for case in CASES if case.default == "import"],
)
def test_committed_export_is_recognised(case: Case) -> None:
    path = committed(case)
    if case.family is None:
        with pytest.raises(ModelError, match=r"detector\.toml"):
            tvmdet.import_onnx(path)
        return
    model = tvmdet.import_onnx(path, spec=case.spec or None)
    assert model.spec.family == case.family


def _run(case: Case, path: Path, result: dict[str, Any], compiler: Compiler) -> None:
    if case.family is None:
        with pytest.raises(ModelError, match=r"detector\.toml"):
            tvmdet.import_onnx(path)
        result["asks"] = True
        return
    model = tvmdet.import_onnx(path, spec=case.spec or None)
    result["imports"] = True
    assert model.spec.family == case.family
    result["recognised"] = "family" not in case.spec
    compiled = compiler.compile(model, case.name)
    result["compiled_for"] = compiled.name
    result["certificate"] = compiled.certificate
    with np.load(path.with_suffix(".npz")) as archive:
        expected = dict(archive)
    with tvmdet.load(compiled.path) as detector:
        agreement = compare(detector, expected)
        result["agreement"] = dataclasses.asdict(agreement)
        if os.environ.get("TVMDET_ZOO_LATENCY") and not find_foreign(onnx.load(path).graph):
            result["one_thread_ratio"] = _latency_ratio(compiled.path, path)
    assert agreement.boxes > 0, "nothing was compared"
    assert agreement.alone == 0, agreement
    assert agreement.class_flips == 0, agreement
    assert agreement.worst_point_px < SAME_POINT_PX, agreement
    assert (agreement.points > 0) == (model.spec.keypoints is not None), agreement
    assert ("points_0" in expected) == (model.spec.keypoints is not None)


def _latency_ratio(compiled: Path, path: Path) -> float:
    """Least time of a whole detection over that of ONNX Runtime on the network, in turn.

    The least of many, and one thread each, which waits for no other: on a machine that does other
    things as well this is what hides them best.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    with tvmdet.load(compiled, threads=1) as detector:
        picture = draw(*detector.spec.input.size_hw, 0)
        plain = np.ascontiguousarray(picture.transpose(2, 0, 1)[None].astype(np.float32) / 255)
        fed = {}
        for entry in session.get_inputs():
            images = {4: plain, 3: plain[0]}
            dtype = np.float32 if entry.type == "tensor(float)" else np.int64
            rank = len(entry.shape)
            fed[entry.name] = images[rank] if rank in images else np.ones(entry.shape, dtype)
        ours, theirs = [], []
        for _ in range(ROUNDS):
            started = time.perf_counter()
            detector.detect(picture)
            between = time.perf_counter()
            session.run(None, fed)
            theirs.append(time.perf_counter() - between)
            ours.append(between - started)
    return min(ours) / min(theirs)
