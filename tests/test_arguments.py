"""What the public functions take, and how they refuse the rest."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx_models
import pytest
from tvmdet.targets import get_target

import tvmdet
from tvmdet.arguments import as_batch_sizes, as_path, as_seconds, as_size_hw
from tvmdet.errors import ArtifactError, InputError, ShapeError, TargetError, TvmdetError


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        (4, (4,)),
        (np.int64(4), (4,)),
        ([4, 1, 4], (1, 4)),
        ((np.int32(2),), (2,)),
        (np.array([1, 2]), (1, 2)),
        ({8, 1}, (1, 8)),
        (range(1, 3), (1, 2)),
        (iter([3]), (3,)),
        (256, (256,)),
    ],
)
def test_batch_sizes(given: Any, sizes: tuple[int, ...]) -> None:
    assert as_batch_sizes(given) == sizes
    assert all(type(size) is int for size in as_batch_sizes(list(sizes)))


@pytest.mark.parametrize(
    "given", [(), None, "4", "1,4", b"4", 0, -1, 257, (1, 257), 4.0, [1.0], ["1"], True, [True]]
)
def test_what_is_no_batch_size(given: Any) -> None:
    with pytest.raises(InputError, match=r"batch sizes are .*whole numbers from 1 to 256"):
        as_batch_sizes(given)


@pytest.mark.parametrize(
    ("given", "size_hw"), [(640, (640, 640)), ([32, 48], (32, 48)), (np.array([1, 2]), (1, 2))]
)
def test_input_sizes(given: Any, size_hw: tuple[int, int]) -> None:
    assert as_size_hw(given) == size_hw


@pytest.mark.parametrize(
    "given", [0, -1, True, "640", "64", (), (640,), (1, 2, 3), (640.0, 640.0), (0, 1), None]
)
def test_what_is_no_input_size(given: Any) -> None:
    with pytest.raises(InputError, match=r"the input size is .*give height and width in pixels"):
        as_size_hw(given)


def test_paths_and_seconds() -> None:
    assert as_path("a/b", "x") == as_path(Path("a/b"), "x") == Path("a/b")
    assert as_seconds(np.float32(2), "x") == as_seconds(2, "x") == 2.0
    for wrong in (None, 5, b"a", ["a"]):
        with pytest.raises(InputError, match=r"output is .*give a path, as a str or a Path"):
            as_path(wrong, "output")
    for wrong in (None, "5", 0, -1, float("nan"), True):
        with pytest.raises(InputError, match=r"pause is .*give seconds, a number above 0"):
            as_seconds(wrong, "pause")


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("arguments") / "small.onnx"
    return onnx_models.save(onnx_models.yolov8(batch="n"), path)


@pytest.fixture(scope="module")
def model(onnx_file: Path) -> Any:
    return tvmdet.import_onnx(str(onnx_file), limits=None)


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"path": None}, InputError, "path is None; give a path"),
        ({"path": 5}, InputError, r"path is 5 \(int\)"),
        ({"size_hw": "640x640"}, InputError, "the input size is '640x640'"),
        ({"size_hw": 640}, ShapeError, "size 640x640 was asked for"),
        ({"raw": "yes"}, InputError, "raw is 'yes'.*give True or False"),
        ({"limits": 5}, InputError, "limits is 5.*give a tvmdet.frontend.Limits"),
        ({"spec": 5}, InputError, "spec is a int; give the path"),
    ],
)
def test_import_onnx_refuses(
    onnx_file: Path, options: dict[str, Any], kind: type[TvmdetError], says: str
) -> None:
    with pytest.raises(kind, match=says):
        tvmdet.import_onnx(**{"path": onnx_file, **options})


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"model": None}, InputError, r"model is None; give what tvmdet.import_onnx\(\) returns"),
        ({"model": "x.onnx"}, InputError, r"first: tvmdet.import_onnx\('x.onnx'\)"),
        ({"target": 5}, TargetError, "target is 5; give the name of one"),
        ({"target": []}, TargetError, "no target is named; give host"),
        ({"target": ["host", None]}, TargetError, "target is None; give the name"),
        ({"batch_sizes": "1,4"}, InputError, "batch sizes are '1,4'"),
        ({"output": None}, InputError, "output is None; give a path"),
        ({"output": "nowhere/x.tvmdet"}, ArtifactError, "cannot write nowhere/x.tvmdet"),
        ({"images": 5}, InputError, "images is 5"),
        ({"logs": 5}, InputError, "logs is 5"),
        ({"dump": 5}, InputError, "dump is 5"),
        ({"threads": "2"}, InputError, "threads is '2'"),
        ({"precision": None}, InputError, "precision is None; give fp32"),
        ({"tolerance": 0.1}, InputError, r"tolerance is 0.1 \(float\); give a tvmdet.compiler"),
        ({"progress": 5}, InputError, "progress is 5.*give a function"),
    ],
)
def test_compile_refuses(
    model: Any, tmp_path: Path, options: dict[str, Any], kind: type[TvmdetError], says: str
) -> None:
    with pytest.raises(kind, match=says):
        tvmdet.compile(**{"model": model, "output": tmp_path / "x.tvmdet", **options})
    assert list(tmp_path.iterdir()) == []


def test_compile_takes_one_batch_size_and_paths_as_text(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Enough(Exception):
        pass

    def lower(_model: Any, sizes: Any, target: Any, **_: Any) -> None:
        asked.append((list(sizes), target))
        raise Enough

    monkeypatch.setattr(importlib.import_module("tvmdet.compiler.compile"), "lower", lower)
    place = str(tmp_path / "x.tvmdet")
    for target in ("x86-64-v3", ["x86-64-v3"]):
        with pytest.raises(Enough):
            tvmdet.compile(
                model, target=target, batch_sizes=4, output=place, logs=str(tmp_path), threads=1
            )
    assert asked == [([4], get_target("x86-64-v3"))] * 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": None}, "path is None; give a path"),
        ({"path": b"x"}, "path is b'x'"),
        ({"path": "x.tvmdet", "host": 5}, "host is 5"),
        ({"path": "x.tvmdet", "threads": 1.0}, "threads is 1.0"),
    ],
)
def test_load_refuses(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        tvmdet.load(**options)
