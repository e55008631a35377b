"""The whole build on small networks: what is written, what is refused, and nothing left behind."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnx_models
import onnxruntime
import pytest
from assertions import assert_close
from onnx import TensorProto
from tvmdet.targets import get_target

import tvmdet
from tvmdet.artifact import Artifact
from tvmdet.compiler import compile as compiler_compile
from tvmdet.cpus import usable_cpu_count
from tvmdet.errors import ArtifactError, InputError, ParityError, ShapeError, TargetError
from tvmdet.passes.lower import lower

TARGETS = ("x86-64-v3", "x86-64-v4")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A YOLOv8-style network with seeded weights that finds things."""
    path = tmp_path_factory.mktemp("models") / "small.onnx"
    return tvmdet.import_onnx(onnx_models.save(onnx_models.yolov8(batch="n"), path))


@pytest.fixture(scope="module")
def built(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The report of a build for both targets, batch sizes 1 and 3, with its dump."""
    folder = tmp_path_factory.mktemp("built")
    said: list[str] = []
    report = compiler_compile(
        model,
        target=TARGETS,
        batch_sizes=(3, 1, 3),
        output=folder / "small.tvmdet",
        logs=folder / "no logs",
        dump=folder / "dump",
        progress=said.append,
    )
    return report, said, folder


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_report_and_the_manifest_say_the_same(model: Any, built: Any) -> None:
    report, _, _ = built
    manifest = Artifact.open(report.output).manifest
    assert report.targets == TARGETS
    assert report.batch_sizes == (1, 3)
    assert report.bytes == report.output.stat().st_size
    assert manifest["batch_sizes"] == [1, 3]
    assert manifest["model"] == {"name": "small", "sha256": model.sha256}
    assert manifest["raw"] is None
    assert manifest["recognition"] == list(model.recognition)
    assert manifest["parity"] == report.to_dict()["parity"]
    assert [t["name"] for t in manifest["targets"]] == list(TARGETS)
    for entry in manifest["targets"]:
        assert set(entry["planned_bytes"]) == {"1", "3"}
        assert 0 < entry["planned_bytes"]["1"] < entry["planned_bytes"]["3"]
        assert len(entry["tuning"]["decisions_sha256"]) == 64
        assert sum(report.tuning[entry["name"]].values()) > 0


def test_threads_of_a_larger_machine_are_not_those_of_the_check(
    model: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    more = usable_cpu_count() + 1
    report = compiler_compile(
        model, threads=more, output=tmp_path / "small.tvmdet", logs=tmp_path / "no logs"
    )
    assert all("boxes" in checked for checked in report.parity.values())
    assert "threads asked for" not in caplog.text
    with tvmdet.load(report.output, threads=more) as detector:
        assert detector.threads == more
    assert f"{more} threads asked for" in caplog.text


def test_the_certificate_names_what_was_compared(built: Any) -> None:
    report, _, _ = built
    for certificate in report.parity.values():
        if "skipped" in certificate:
            continue
        assert certificate["reference"] == f"onnxruntime {onnxruntime.__version__}"
        assert certificate["batch_sizes"] == [1, 3]
        assert certificate["boxes"] > 0
        assert 0.99 <= certificate["worst_iou"] <= 1
        assert 0 <= certificate["worst_score_drift"] <= 1e-3
        assert certificate["tolerance"] == {"iou": 0.99, "score": 1e-3}
        assert len(certificate["images"]) == len(set(certificate["images"])) >= 8
    assert any("boxes" in certificate for certificate in report.parity.values())


def test_every_target_in_the_file_answers_the_same(built: Any) -> None:
    report, _, _ = built
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    answers = []
    for entry in Artifact.open(report.output).targets:
        if tvmdet.targets.get_target(entry.name).missing_features():
            continue
        with tvmdet.load(report.output, target=entry.name) as detector:
            assert detector.target == entry.name
            answers.append(detector.detect(image, score=0.05))
            assert len(answers[-1]) > 0
    for other in answers[1:]:
        assert_close(other.scores, answers[0].scores, atol=1e-5)
        assert_close(other.boxes_xyxy, answers[0].boxes_xyxy, rtol=1e-4, atol=1e-3)


def test_progress_and_the_dump_show_every_phase(built: Any) -> None:
    _, said, folder = built
    for name in TARGETS:
        assert any("lowering" in line and name in line for line in said)
        assert any("compiling" in line and name in line for line in said)
        files = sorted((folder / "dump" / name).iterdir())
        assert len(files) >= 10
        assert [int(f.name[:2]) for f in files] == list(range(len(files)))
        assert "detect_b3" in files[-1].read_text(encoding="utf-8")
    assert any("ONNX Runtime" in line for line in said)
    assert [path.name for path in folder.iterdir() if path.is_file()] == ["small.tvmdet"]


_BUILD = """
import sys
import tvmdet
tvmdet.compile(
    tvmdet.import_onnx(sys.argv[1]), target=sys.argv[3].split(","), output=sys.argv[2],
    logs=sys.argv[4],
)
"""


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    source = onnx_models.save(onnx_models.yolov8(), tmp_path / "small.onnx")
    digests = []
    for index, seed in enumerate(("1", "77")):
        folder = tmp_path / f"folder {index}"
        folder.mkdir()
        output = folder / "out.tvmdet"
        logs = folder / "logs"
        command = [sys.executable, "-c", _BUILD, source, output, "x86-64-v3", logs]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run(command, check=True, env=environment, cwd=folder)
        digests.append(_digest(output))
    assert digests[0] == digests[1]


def _other_weights(model: Any, tmp_path: Path) -> Any:
    """The same network, of which ONNX Runtime gets other weights in the class rows."""
    from dataclasses import replace

    changed = onnx.ModelProto()
    changed.CopyFrom(model.onnx_at(1))
    for weight in changed.graph.initializer:
        array = onnx.numpy_helper.to_array(weight)
        if array.dtype == np.float32 and array.ndim == 4:
            scaled = onnx.numpy_helper.from_array(array * np.float32(1.3), weight.name)
            weight.CopyFrom(scaled)

    class Other:
        loaded = model.network.loaded
        fixed_batch = model.network.fixed_batch
        # The compiler lowers the network as it is; the reference is opened on the other one.
        relax_at = staticmethod(model.network.relax_at)

        def at(self, batch_size: int) -> onnx.ModelProto:
            return changed

    return replace(model, network=Other())


def test_a_breach_names_the_picture_and_the_box_and_writes_nothing(
    model: Any, tmp_path: Path
) -> None:
    output = tmp_path / "small.tvmdet"
    output.write_bytes(b"an older file")
    with pytest.raises(
        ParityError, match=r"(grey|noise|gradient|page|shapes \d).* alone finds"
    ) as e:
        compiler_compile(_other_weights(model, tmp_path), output=output, logs=tmp_path / "logs")
    assert any(f" {label} 0." in str(e.value) for label in model.spec.labels), "names the class"
    assert "(batch 1, row 0)" in str(e.value) and "] " in str(e.value).replace("]", "] ")
    assert output.read_bytes() == b"an older file"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["small.tvmdet"]


def test_a_wrong_head_is_a_breach(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tvmdet.heads import get_head

    head = type(get_head("yolov8"))
    right = head.decode_reference

    def shifted(self: Any, outputs: Any, spec: Any) -> Any:
        decoded = right(self, outputs, spec)
        return replace(decoded, boxes=decoded.boxes + np.float32(3))

    monkeypatch.setattr(head, "decode_reference", shifted)
    with pytest.raises(ParityError, match="the build is not written"):
        compiler_compile(model, output=tmp_path / "small.tvmdet", logs=tmp_path / "logs")
    assert not list(tmp_path.glob("*.tvmdet*")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("sizes", [(), (0,), (-1, 1), (257,), (1, 0)])
def test_wrong_batch_sizes(model: Any, sizes: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"batch sizes are .*whole numbers from 1 to 256"):
        compiler_compile(model, batch_sizes=sizes, output=tmp_path / "x.tvmdet")
    assert not list(tmp_path.iterdir())


def test_an_unknown_target_is_named_before_anything_is_done(model: Any, tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(TargetError, match=r"unknown target 'z80'; known: host, .*x86-64-v4"):
        compiler_compile(
            model, target=("host", "z80"), output=tmp_path / "x.tvmdet", progress=said.append
        )
    assert not said and not list(tmp_path.iterdir())


def test_pictures_for_the_check_are_read_from_a_folder(model: Any, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    rng = np.random.default_rng(5)
    for name, shape in (("b.png", (50, 60, 3)), ("a.jpg", (9, 200, 3)), ("c.bmp", (33, 33))):
        assert cv2.imwrite(str(images / name), rng.integers(0, 256, shape, np.uint8))
    (images / "notes.txt").write_text("no picture", encoding="utf-8")
    report = compiler_compile(
        model, output=tmp_path / "x.tvmdet", images=images, logs=tmp_path / "logs"
    )
    (certificate,) = report.parity.values()
    assert certificate["images"] == ["a.jpg", "b.png", "c.bmp"]
    assert certificate["boxes"] > 0


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "is not a folder"),
        ({}, "holds no picture"),
        ({"readme.txt": b"text"}, "holds no picture"),
        ({"a.png": b"no picture"}, "a.png cannot be decoded"),
        ({"a.png": b""}, "a.png is an empty file"),
    ],
    ids=["missing", "empty", "no pictures", "not decodable", "empty file"],
)
def test_folders_that_cannot_be_used(
    model: Any, files: dict[str, bytes] | None, message: str, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    if files is not None:
        images.mkdir()
        for name, data in files.items():
            (images / name).write_bytes(data)
    said: list[str] = []
    with pytest.raises(InputError, match=message):
        compiler_compile(model, output=tmp_path / "x.tvmdet", images=images, progress=said.append)
    assert not said and not (tmp_path / "x.tvmdet").exists()


def test_a_full_disk_leaves_nothing(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match=r"cannot write .*No space left on device"):
        compiler_compile(model, output=tmp_path / "x.tvmdet", logs=tmp_path / "logs")
    assert not list(tmp_path.glob("*.tvmdet*")) and not list(tmp_path.glob(".*"))


def test_a_folder_that_is_not_there(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"cannot write .*x.tvmdet"):
        compiler_compile(model, output=tmp_path / "no" / "x.tvmdet", logs=tmp_path / "logs")


def _raw(tmp_path: Path, graph: onnx_models.Graph, *args: Any, **kwargs: Any) -> Any:
    proto = graph.model(*args, **kwargs)
    return tvmdet.import_onnx(onnx_models.save(proto, tmp_path / "net.onnx"), raw=True)


def _compare_raw(model: Any, feeds: dict[str, np.ndarray], tmp_path: Path, **more: Any) -> Any:
    report = compiler_compile(model, output=tmp_path / "net.tvmdet", logs=tmp_path / "logs", **more)
    rows = len(next(iter(feeds.values())))
    session = onnxruntime.InferenceSession(
        model.onnx_at(rows).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    expected = dict(zip(model.output_names, session.run(None, feeds), strict=True))
    with tvmdet.load(report.output) as network:
        got = network.run(feeds)
        with pytest.raises(InputError, match="compiled with --raw"):
            network.detect(np.zeros((4, 4, 3), np.uint8))
    assert list(got) == list(model.output_names)
    for name, array in got.items():
        assert array.dtype == expected[name].dtype
        assert_close(array, expected[name], rtol=1e-4, atol=1e-4, name=name)
    return report


def test_raw_with_several_inputs_and_outputs(tmp_path: Path) -> None:
    graph = onnx_models.Graph()
    features = graph.node("Relu", graph.conv("picture", (5, 7), 3, pads=[1, 1, 1, 1]))
    gated = graph.node("Mul", features, graph.node("Sigmoid", "gate"))
    pooled = graph.node("GlobalAveragePool", gated)
    model = _raw(
        tmp_path,
        graph,
        {"picture": ["n", 5, 9, 6], "gate": ["n", 7, 1, 1]},
        {gated: None, pooled: None, features: None},
    )
    rng = np.random.default_rng(0)
    feeds = {
        "picture": rng.standard_normal((3, 5, 9, 6)).astype("float32"),
        "gate": rng.standard_normal((3, 7, 1, 1)).astype("float32"),
    }
    report = _compare_raw(model, feeds, tmp_path, batch_sizes=(1, 2))
    raw = Artifact.open(report.output).manifest["raw"]
    assert [entry["name"] for entry in raw["inputs"]] == ["picture", "gate"]
    assert raw["inputs"][0] == {
        "name": "picture",
        "shape": [1, 5, 9, 6],
        "dtype": "float32",
        "batched": True,
    }
    assert [entry["shape"][0] for entry in raw["outputs"]] == [1, 1, 1]
    (certificate,) = report.parity.values()
    assert certificate["batch_sizes"] == [1, 2]


def test_large_maps_of_a_batch_are_computed_by_picture(tmp_path: Path) -> None:
    # Large and small at a second-level cache from 256 KiB to 2 MiB alike.
    graph = onnx_models.Graph()
    first = graph.node("Relu", graph.conv("picture", (3, 48), 3, pads=[1, 1, 1, 1]))
    second = graph.node("Add", graph.conv(first, (48, 48), 1), first)
    pooled = graph.node("GlobalAveragePool", second)
    model = _raw(tmp_path, graph, {"picture": ["n", 3, 104, 104]}, {second: None, pooled: None})
    picture = np.random.default_rng(0).standard_normal((6, 3, 104, 104)).astype("float32")
    report = _compare_raw(model, {"picture": picture}, tmp_path, batch_sizes=4)
    (member,) = Artifact.open(report.output).manifest["targets"]
    anchors = sorted(kernel["anchor"] for kernel in member["kernels"].values())
    assert [anchor.split()[1] for anchor in anchors if "conv2d" in anchor] == ["n1", "n1"]
    assert "elementwise 4x104x104x3" in anchors  # what is read of the pictures is small


def test_a_batch_of_a_network_that_works_for_no_single_picture(tmp_path: Path) -> None:
    graph = onnx_models.Graph()
    features = graph.node("Relu", graph.conv("picture", (4, 8), 1))
    mixed = graph.node("Reshape", features, graph.constant([8, 2, 4, 4], np.int64))
    model = _raw(tmp_path, graph, {"picture": [2, 4, 4, 4]}, {mixed: [8, 2, 4, 4]})
    with pytest.raises(ShapeError, match="batch 1"):
        model.relax_at(1)
    names = {var.name_hint for var in lower(model, (2,), get_target("host")).get_global_vars()}
    assert "run_b2" in names and "run_b1" not in names


def test_raw_on_bytes(tmp_path: Path) -> None:
    graph = onnx_models.Graph()
    floats = graph.node("Cast", "picture", to=TensorProto.FLOAT)
    scaled = graph.node("Div", floats, graph.constant([255.0]))
    nchw = graph.node("Transpose", scaled, perm=[0, 3, 1, 2])
    output = graph.conv(nchw, (3, 4), 3, strides=[2, 2])
    model = _raw(
        tmp_path, graph, {"picture": [1, 12, 10, 3]}, {output: None}, dtype=TensorProto.UINT8
    )
    feeds = {"picture": np.random.default_rng(0).integers(0, 256, (1, 12, 10, 3), np.uint8)}
    _compare_raw(model, feeds, tmp_path)


def test_raw_takes_no_pictures_for_its_check(tmp_path: Path) -> None:
    graph = onnx_models.Graph()
    model = _raw(tmp_path, graph, {"x": [1, 4]}, {graph.node("Relu", "x"): None})
    with pytest.raises(InputError, match="--images cannot be used with --raw"):
        compiler_compile(model, output=tmp_path / "x.tvmdet", images=tmp_path)


def test_raw_breach_names_the_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tvmdet.compiler.reference import Reference

    graph = onnx_models.Graph()
    model = _raw(tmp_path, graph, {"x": [1, 4]}, {graph.node("Relu", "x"): None})
    right = Reference.run

    def wrong(self: Any, inputs: Any) -> Any:
        return {name: array + np.float32(0.1) for name, array in right(self, inputs).items()}

    monkeypatch.setattr(Reference, "run", wrong)
    with pytest.raises(ParityError, match=r"output relu_0\[0, \d\] of batch 1, row 0"):
        compiler_compile(model, output=tmp_path / "x.tvmdet", logs=tmp_path / "logs")
    assert not list(tmp_path.glob("*.tvmdet*"))


def test_a_file_for_another_cpu_is_refused(built: Any) -> None:
    from tvmdet.runtime.loader import Host, load

    report, _, _ = built
    with pytest.raises(TargetError, match=r"cannot run on this machine.*this CPU lacks .*avx2"):
        load(report.output, host=Host(arch="x86_64", features=frozenset({"sse2"})))
    with pytest.raises(TargetError, match="needs x86_64, this machine is aarch64"):
        load(report.output, host=Host(arch="aarch64", features=frozenset()))
    older = Host(
        arch="x86_64", features=frozenset(tvmdet.targets.get_target("x86-64-v3").required_features)
    )
    with load(report.output, host=older) as detector:
        assert detector.target == "x86-64-v3"
