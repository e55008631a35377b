"""Class names in files of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx_models
import pytest

import tvmdet
from tvmdet.errors import InputError
from tvmdet.frontend.label_files import read_labels
from tvmdet.frontend.user_spec import read_given, read_spec

NAMES = ["person", "traffic light", "7up bottle"]
DATA_YAML = """\
# Ultralytics
path: ../datasets/coco8  # dataset root
train: images/train
nc: 3

names:
  0: person
  1: traffic light
  2: 7up bottle

download: https://example.com/coco8.zip
"""

RIGHT = {
    "coco.names": "person\ntraffic light\n7up bottle\n",
    "crlf.names": "person\r\ntraffic light\r\n7up bottle\r\n\r\n",
    "bom.txt": "\ufeffperson\n  traffic light\n7up bottle",
    "numbered.txt": "0 person\n1  traffic light\n2 7up bottle\n",
    "colons.txt": "2: 7up bottle\n0: person\n1:traffic light\n",
    "labels": "person\ntraffic light\n7up bottle\n",
    "data.yaml": DATA_YAML,
    "list.yml": "names: [person, traffic light, 7up bottle]\n",
    "block.yaml": "names:\n- person\n- 'traffic light'\n- 7up bottle\nnc: 3\n",
    "bare.yaml": "- person\n- traffic light\n- 7up bottle\n",
    "list.json": json.dumps(NAMES),
    "table.json": json.dumps({"1": NAMES[1], "0": NAMES[0], "2": NAMES[2]}),
    "names.json": json.dumps({"names": NAMES, "nc": 3}),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_users_bring(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(RIGHT[name].encode())
    assert read_labels(path) == NAMES


def test_words_that_yaml_takes_for_other_things_are_names(tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    path.write_text("names: [no, 7, 1.5, yes]\n")
    assert read_labels(path) == ["no", "7", "1.5", "yes"]


WRONG: list[tuple[str, bytes, str]] = [
    ("empty.names", b"", "empty.names holds no class names; give one for each class"),
    ("a.names", b"person\n\ncar\n", r"a.names, line 2: the name is empty; give text"),
    ("a.txt", b"0 person\n2 car\n", r"a.txt, line 2: class 2 follows, and class 1 has no name"),
    ("a.txt", b"1 person\n2 car\n", r"a.txt, line 1: class 1 follows, and class 0 has no name"),
    ("a.txt", b"0 a\n1 b\n0 c\n", "line 3: class 0 has a name already, in line 1"),
    ("a.txt", b"person\n\xff\xfe\n", "a.txt, line 2: the name is not UTF-8 text"),
    ("a.yaml", b"nc: 3\nnames: [a, b\n", r"a.yaml, line 3 is not YAML: expected ',' or '\]'"),
    ("a.yaml", b"path: x\nnc: 3\n", "a.yaml, line 1: 'path' is no class number; give `names:`"),
    ("a.yaml", b"names:\n  0: a\n  2: b\n", "a.yaml, line 3: class 2 follows, and class 1"),
    ("a.yaml", b"names:\n  0: a\n  1:\n", "a.yaml, line 3: the name is empty"),
    ("a.yaml", b"names:\n- a\n- [b]\n", "a.yaml, line 3: the name is empty"),
    ("a.yaml", b"names:\n  first: a\n", "a.yaml, line 2: 'first' is no class number"),
    ("a.yaml", b"nc: 3\nnames: many\n", "a.yaml, line 2: there are no class names"),
    ("a.yaml", b"", "a.yaml, line 1: there are no class names"),
    ("a.json", b'["a",\n "b"', "a.json, line 2 is not JSON"),
    ("a.json", b'["a", 5]', "a.json, entry 2: the name is 5; give text"),
    ("a.json", b"[]", "a.json holds no class names"),
    ("a.json", b'{"0": "a", "2": "b"}', "a.json: class 1 has no name"),
    ("a.json", b'{"labels": 1}', "a.json holds no class names; give a list"),
]


@pytest.mark.parametrize(("name", "data", "says"), WRONG)
def test_what_is_wrong_is_said_with_its_line(
    tmp_path: Path, name: str, data: bytes, says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=says):
        read_labels(path)


def test_a_missing_file_and_a_huge_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read from .*gone.names: No such file"):
        read_labels(tmp_path / "gone.names")
    huge = tmp_path / "huge.names"
    huge.write_bytes(b"a\n" * (2 * 1024 * 1024 + 1))
    with pytest.raises(InputError, match="is larger than"):
        read_labels(huge)


@pytest.mark.parametrize("name", ["coco.names", "bom.txt", "data.yaml", "list.yml", "list.json"])
def test_a_file_of_names_is_a_spec(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(RIGHT[name].encode())
    for spec in (path, str(path)):
        assert read_given(tmp_path / "m.onnx", spec).given == {"labels": NAMES}


def test_a_spec_names_a_file_beside_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "coco.names").write_text(RIGHT["coco.names"])
    (tmp_path / "m.toml").write_text('labels = "coco.names"\nfamily = "yolov8"')
    (tmp_path / "m.json").write_text('{"labels": "coco.names"}')
    assert read_spec(tmp_path / "m.toml") == {"labels": NAMES, "family": "yolov8"}
    assert read_given(tmp_path / "other.onnx", tmp_path / "m.json").given["labels"] == NAMES
    # m.toml lies beside m.onnx, and is read without being asked for.
    assert read_given(tmp_path / "m.onnx", None).given["labels"] == NAMES
    with pytest.raises(InputError, match=r"class names cannot be read from coco\.names"):
        read_spec({"labels": "coco.names"})
    monkeypatch.chdir(tmp_path)
    assert read_spec({"labels": "coco.names"}) == {"labels": NAMES}
    with pytest.raises(InputError, match="give a list of class names, or the path of a file"):
        read_spec({"labels": 5})


def test_the_names_are_those_of_the_model(tmp_path: Path) -> None:
    network: Any = onnx_models.yolov8(classes=3)
    path = onnx_models.save(network, tmp_path / "m.onnx")
    (tmp_path / "coco.names").write_text(RIGHT["coco.names"])
    model = tvmdet.import_onnx(path, spec=tmp_path / "coco.names")
    assert list(model.spec.labels) == NAMES
    (tmp_path / "coco.names").write_text("person\n")
    with pytest.raises(tvmdet.TvmdetError, match="the spec gives 1 label"):
        tvmdet.import_onnx(path, spec=tmp_path / "coco.names")
