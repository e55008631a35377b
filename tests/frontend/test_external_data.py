"""External data: read when confined, refused before anything is read when not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest
from onnx import numpy_helper

from tvmdet.errors import ModelError
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.load import load_onnx


def _write(folder: Path, **changes: str) -> tuple[Path, np.ndarray]:
    """Writes a model whose first weight is external; changes replace its entries."""
    model = onnx_models.yolov8()
    tensor = model.graph.initializer[0]
    values = numpy_helper.to_array(tensor)
    data = tensor.raw_data
    (folder / "weights.bin").write_bytes(b"\0" * 64 + data)
    entries = {"location": "weights.bin", "offset": "64", "length": str(len(data)), **changes}
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return onnx_models.save(model, folder / "model.onnx"), values


def test_reads_external_data(tmp_path: Path) -> None:
    path, values = _write(tmp_path)
    loaded = load_onnx(path)
    np.testing.assert_array_equal(numpy_helper.to_array(loaded.proto.graph.initializer[0]), values)


def test_digest_covers_external_data(tmp_path: Path) -> None:
    path, _ = _write(tmp_path)
    before = load_onnx(path).sha256
    weights = tmp_path / "weights.bin"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert load_onnx(path).sha256 != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"location": ""}, "allowed: a relative path"),
        ({"location": "../secret.bin"}, "allowed: a relative path"),
        ({"location": "sub/../../secret.bin"}, "allowed: a relative path"),
        ({"location": "..\\secret.bin"}, "allowed: a relative path"),
        ({"location": "/etc/passwd"}, "allowed: a relative path"),
        ({"location": "C:\\secret.bin"}, "allowed: a relative path"),
        ({"location": "none.bin"}, "there is no file 'none.bin'"),
        ({"location": "."}, "there is no file"),
        ({"offset": "100000"}, "cut short"),
        ({"offset": "65"}, "cut short"),
        ({"offset": "-1"}, "allowed: a number of bytes"),
        ({"offset": "1e3"}, "allowed: a number of bytes"),
        ({"length": "99999999999"}, "cut short"),
        ({"length": "12"}, "12 bytes, but its shape"),
    ],
)
def test_refuses(changes: dict[str, str], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 100_000)
    path, _ = _write(folder, **changes)
    with pytest.raises(ModelError, match=message):
        load_onnx(path)


def test_refuses_link_that_leaves(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path, _ = _write(folder)
    (folder / "weights.bin").rename(tmp_path / "outside.bin")
    (folder / "weights.bin").symlink_to(tmp_path / "outside.bin")
    with pytest.raises(ModelError, match="is a link that leaves"):
        load_onnx(path)


def test_refuses_link_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path, _ = _write(folder, location="inner/weights.bin")
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    (folder / "inner").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ModelError, match="is a link that leaves"):
        load_onnx(path)


def test_link_inside_the_folder_is_fine(tmp_path: Path) -> None:
    path, _ = _write(tmp_path)
    (tmp_path / "weights.bin").rename(tmp_path / "blob")
    (tmp_path / "weights.bin").symlink_to("blob")
    assert load_onnx(path).name == "model"


def test_limit_counts_bytes_before_reading(tmp_path: Path) -> None:
    path, _ = _write(tmp_path)
    with pytest.raises(ModelError, match=r"Limits\.max_external_bytes"):
        load_onnx(path, Limits(max_external_bytes=100))
