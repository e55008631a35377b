"""Heads: what they claim, what they refuse, and their decoding against plain numpy."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping

import numpy as np
import pytest
from onnx_models import run_relax
from tvm import relax

from tvmdet.errors import InputError, ModelError, ShapeError
from tvmdet.frontend.recognise import recognise
from tvmdet.heads import GraphSummary, Recognition, TensorSummary, all_heads, get_head
from tvmdet.heads.base import Question
from tvmdet.heads.labels import labels_from_metadata
from tvmdet.spec import DetectorSpec

SIGMOID = frozenset({"Sigmoid"})
CONV = frozenset({"Conv"})


def _summary(
    outputs: Mapping[str, tuple[int, ...]],
    sources: Mapping[str, frozenset[str]] | None = None,
    **metadata: str,
) -> GraphSummary:
    return GraphSummary(
        inputs={"images": TensorSummary(shape=(1, 3, 64, 96), dtype="float32")},
        outputs={n: TensorSummary(shape=s, dtype="float32") for n, s in outputs.items()},
        output_sources=sources or {},
        metadata=metadata,
    )


def _decode(spec: DetectorSpec, outputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Runs a head's Relax decoding."""
    bb = relax.BlockBuilder()
    params = [
        relax.Var(f"x{at}", relax.TensorType(value.shape, "float32"))
        for at, value in enumerate(outputs.values())
    ]
    with bb.function("main", params=params):
        with bb.dataflow():
            named = dict(zip(outputs, params, strict=True))
            decoded = get_head(spec.family).decode(bb, named, spec)
            result = bb.emit_output(relax.Tuple([decoded.boxes, decoded.scores]))
        bb.emit_func_output(result)
    module = bb.get()
    assert "call_tir" not in module.script()
    return run_relax(module, *outputs.values())


def _assert_decodes(
    summary: GraphSummary, family: str, size_hw: tuple[int, int], batch: int
) -> None:
    found = get_head(family).recognise(summary, size_hw)
    assert found is not None
    rng = np.random.default_rng(batch)
    outputs = {
        name: rng.normal(0, 3, (batch, *value.shape[1:])).astype(np.float32)
        for name, value in summary.outputs.items()
    }
    boxes, scores = _decode(found.spec, outputs)
    want = get_head(family).decode_reference(outputs, found.spec)
    assert boxes.shape == (*scores.shape[:2], 4)
    assert scores.shape[2] == len(found.spec.labels)
    np.testing.assert_allclose(boxes, want.boxes, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(scores, want.scores, rtol=1e-5, atol=1e-6)


# 64x96: 96 + 24 + 6 anchors at strides 8, 16, 32
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ((1, 7, 126), None),
        ((1, 5, 126), None),
        ((1, 126, 7), "['a', 'b', 'c']"),
        ((1, 9, 30), None),  # strides 16 and 32
    ],
)
def test_yolov8_decodes(shape: tuple[int, ...], names: str | None, batch: int) -> None:
    metadata = {} if names is None else {"names": names}
    _assert_decodes(_summary({"o": shape}, **metadata), "yolov8", (64, 96), batch)


def test_yolov8_decodes_a_known_box() -> None:
    found = get_head("yolov8").recognise(_summary({"o": (1, 5, 126)}), (64, 96))
    assert found is not None
    output = np.zeros((1, 5, 126), np.float32)
    output[0, :, 7] = [20, 30, 8, 4, 0.75]
    boxes, scores = _decode(found.spec, {"o": output})
    assert boxes[0, 7].tolist() == [16, 28, 24, 32]
    assert scores[0, 7].tolist() == [0.75]


@pytest.mark.parametrize(
    ("summary", "reason"),
    [
        (_summary({}), "0 outputs"),
        (_summary({"o": (1, 7, 126), "p": (1, 32, 16, 24)}), "2 outputs"),
        (_summary({"o": (1, 378, 8)}), "three anchors a cell, as YOLOv5"),
        (_summary({"o": (1, 7, 125)}), "neither dimension"),
        (_summary({"o": (1, 4, 126)}), "neither dimension"),
        (_summary({"o": (1, 300, 6)}), "neither dimension"),
        (_summary({"o": (1, 126, 8)}), "in YOLOX"),
        (_summary({"o": (1, 7, 126)}, {"o": CONV | SIGMOID}), "straight from a Conv"),
        (_summary({"o": (1, 7, 126)}, {"o": frozenset({"Mul"})}), "come from a Sigmoid"),
        (_summary({"o": (1, 7, 126)}, task="pose"), "task 'pose'"),
        (_summary({"o": (1, 7, 126)}, names="['a']"), "name 1 classes"),
        (_summary({"o": (1, 7, 9, 14)}), "4 \\+ classes, anchors"),
    ],
)
def test_yolov8_refuses(summary: GraphSummary, reason: str) -> None:
    answer = get_head("yolov8").examine(summary, (64, 96), {})
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer


def test_yolov8_of_ultralytics_keeps_what_predict_keeps() -> None:
    plain = get_head("yolov8").examine(_summary({"o": (1, 7, 126)}), (64, 96), {})
    said = {"task": "detect", "stride": "32", "names": "['a', 'b', 'c']"}
    theirs = get_head("yolov8").examine(_summary({"o": (1, 7, 126)}, **said), (64, 96), {})
    assert isinstance(plain, Recognition) and isinstance(theirs, Recognition)
    assert (plain.spec.postprocess.iou_threshold, theirs.spec.postprocess.iou_threshold) == (
        0.45,
        0.7,
    )
    assert "score 0.25, IoU 0.7, as Ultralytics predicts" in theirs.reasons


@pytest.mark.parametrize(
    ("head", "agnostic"), [("YOLOESegment26", True), ("YOLOEDetect", True), ("Detect", False)]
)
def test_boxes_of_a_yoloe_suppress_those_of_other_classes(head: str, agnostic: bool) -> None:
    said = {"author": "Ultralytics", "task": "detect", "head": head}
    found = get_head("yolov8").recognise(_summary({"o": (1, 9, 126)}, **said), (64, 96))
    assert found is not None
    assert found.spec.postprocess.class_agnostic == agnostic
    assert any("YOLOE" in reason for reason in found.reasons) == agnostic


def test_yolov8_asks_which_branch_of_two_counts() -> None:
    """YOLOv9's dual heads return those of the auxiliary branch first."""
    summary = _summary({"output0": (1, 7, 126), "1598": (1, 7, 126)})
    asked = get_head("yolov8").examine(summary, (64, 96), {})
    assert isinstance(asked, Question)
    assert "output0, 1598 each hold boxes" in asked
    told = tomllib.loads(asked.spec_text)
    answer = get_head("yolov8").examine(summary, (64, 96), told)
    assert isinstance(answer, Recognition)
    assert (told["family"], answer.spec.options["output"]) == ("yolov8", "1598")


def test_yolov8_does_not_ask_of_outputs_that_are_no_scores() -> None:
    summary = _summary({"p": (1, 7, 126), "q": (1, 7, 126)}, {"p": CONV, "q": CONV})
    answer = get_head("yolov8").examine(summary, (64, 96), {})
    assert not isinstance(answer, Question) and "several outputs fit (p, q)" in str(answer)


def test_yolov8_of_the_spec_settles_doubt() -> None:
    answer = get_head("yolov8").examine(
        _summary({"o": (1, 126, 8)}), (64, 96), {"family": "yolov8"}
    )
    assert isinstance(answer, Recognition)
    assert len(answer.spec.labels) == 4


# 96x72: 12x9, 6x5, 3x3, 2x2 cells at strides 8 to 64 (heights and widths rounded up)
LEVELS = ((12, 9), (6, 5), (3, 3), (2, 2))


def _picodet(classes: int, bins: int, *, nchw: bool = False, **metadata: str) -> GraphSummary:
    outputs: dict[str, tuple[int, ...]] = {}
    sources = {}
    for index, (height, width) in enumerate(LEVELS):
        for kind, channels in (("box", 4 * bins), ("cls", classes)):
            name = f"{kind}{index}"
            flat = (1, height * width, channels)
            outputs[name] = (1, channels, height, width) if nchw else flat
            sources[name] = SIGMOID if kind == "cls" and not nchw else CONV
    reverse = dict(reversed(outputs.items()))
    return _summary(reverse, sources, **metadata)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("classes", "bins", "nchw"), [(5, 8, False), (32, 8, False), (80, 17, False), (5, 8, True)]
)
def test_picodet_decodes(classes: int, bins: int, nchw: bool, batch: int) -> None:
    summary = _picodet(classes, bins, nchw=nchw)
    found = get_head("picodet").recognise(summary, (96, 72))
    assert found is not None
    assert found.spec.options["class_outputs"] == ["cls0", "cls1", "cls2", "cls3"]
    assert found.spec.options["box_outputs"] == ["box0", "box1", "box2", "box3"]
    assert found.spec.options["score_activation"] == ("sigmoid" if nchw else "none")
    assert found.spec.options["reg_max"] == bins - 1
    _assert_decodes(summary, "picodet", (96, 72), batch)


def test_picodet_decodes_a_known_box() -> None:
    found = get_head("picodet").recognise(_picodet(5, 8), (96, 72))
    assert found is not None
    outputs = {
        name: np.zeros(value.shape, np.float32) for name, value in _picodet(5, 8).outputs.items()
    }
    # Cell (row 1, column 2) of stride 16: centre (40, 24); distances 1, 2, 3, 0 cells.
    for side, distance in enumerate((1, 2, 3, 0)):
        outputs["box1"][0, 7, side * 8 + distance] = 100
    boxes, _ = _decode(found.spec, outputs)
    np.testing.assert_allclose(boxes[0, 108 + 7], [24, -8, 88, 24], atol=1e-4)


@pytest.mark.parametrize(
    ("summary", "reason"),
    [
        (_summary({}), "0 outputs"),
        (_summary({f"o{i}": (1, 10 + i, 5) for i in range(4)}), "1 outputs have"),
        (_summary({f"o{i}": (1, 8) for i in range(4)}), "this family's are"),
        (_picodet(5, 8, names="['a']"), "cannot be told apart"),
        (_summary({f"{k}{c}": (1, c, k) for c in (50, 12) for k in (5, 32)}), "no pyramid"),
    ],
)
def test_picodet_refuses(summary: GraphSummary, reason: str) -> None:
    answer = get_head("picodet").examine(summary, (96, 72), {})
    assert isinstance(answer, str)
    assert re.search(reason, answer), answer


@pytest.mark.parametrize(
    ("metadata", "labels"),
    [
        ({}, None),
        ({"names": "{0: 'a', 1: 'b'}"}, ("a", "b")),
        ({"names": '{"1": "b", "0": "a"}'}, ("a", "b")),
        ({"names": "['a', 'b']"}, ("a", "b")),
        ({"names": "{0: 'a', 2: 'b'}"}, None),
        ({"names": "__import__('os').getcwd()"}, None),
        ({"names": "(" * 5000}, None),
        ({"names": "[]"}, None),
        ({"names": "{}"}, None),
        ({"character": "a\nb b\n"}, ("a", "b b")),
        ({"character": "  "}, None),
        ({"character": "a\n\nb"}, None),
        ({"names": "['a', '']"}, None),
    ],
)
def test_labels(metadata: dict[str, str], labels: tuple[str, ...] | None) -> None:
    assert labels_from_metadata(metadata)[0] == labels


def test_registry() -> None:
    names = [head.name for head in all_heads()]
    assert names == sorted(set(names))
    assert {"picodet", "yolov4", "yolov5", "yolov6", "yolov8", "yolox"} <= set(names)
    with pytest.raises(InputError, match=f"allowed: {', '.join(names)}"):
        get_head("unheard_of")


@pytest.mark.parametrize("family", ["picodet", "yolov8"])
def test_wrong_outputs_are_refused(family: str) -> None:
    summary = _picodet(5, 8) if family == "picodet" else _summary({"o": (1, 7, 126)})
    size = (96, 72) if family == "picodet" else (64, 96)
    found = get_head(family).recognise(summary, size)
    assert found is not None
    with pytest.raises(ShapeError, match="the network's outputs: other"):
        _decode(found.spec, {"other": np.zeros((1, 3, 3), np.float32)})
    wrong = {n: np.zeros((1, 3, 3), np.float32) for n in summary.outputs}
    with pytest.raises(ShapeError, match=r"correct the spec|need"):
        _decode(found.spec, wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": 8}, "options.strides is 8; allowed: a list of rising whole numbers"),
        ({"strides": []}, "options.strides is"),
        ({"strides": [0]}, "options.strides is"),
        ({"strides": [-8, 16, 32]}, "options.strides is"),
        ({"strides": ["8", "16", "32"]}, "options.strides is"),
        ({"strides": [32, 16, 8]}, "options.strides is"),
        ({"strides": [8, 16]}, r"options.strides \[8, 16\].* mean 120 anchors"),
        ({"layout": "channel_first"}, "allowed: channels_first, channels_last"),
        ({"layout": 1}, "allowed: channels_first, channels_last"),
        ({"layout": "channels_last"}, "layout channels_last mean 126, .*in the middle dimension"),
        ({"output": "x"}, "options.output is 'x'; allowed: o"),
        ({"stride": [8]}, "unknown options.stride; family yolov8 has: keypoint_columns, layout, "),
        ({"keypoint_columns": -1}, "options.keypoint_columns is -1; allowed: a whole number"),
    ],
)
def test_yolov8_options_are_checked(options: Mapping[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recognise(_summary({"o": (1, 7, 126)}), (64, 96), {"family": "yolov8", "options": options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": 8}, "allowed: a list of rising whole numbers"),
        ({"strides": [8, 16, 32]}, "has 3 entries for 4 levels"),
        ({"strides": [4, 8, 16, 32]}, "mean levels of .* cells at 96x72; the network's have"),
        ({"reg_max": "7"}, "options.reg_max is '7'; allowed: a whole number from 0 to 32"),
        ({"reg_max": True}, "options.reg_max is True"),
        ({"reg_max": -1}, "options.reg_max is -1"),
        ({"score_activation": "softmax"}, "allowed: none, sigmoid"),
        ({"class_outputs": "cls0"}, "a list of different outputs"),
        ({"class_outputs": ["nowhere"]}, "a list of different outputs"),
        ({"box_outputs": ["box0", "box0"]}, "a list of different outputs"),
        ({"class_outputs": ["cls0"]}, "has 4 entries for 1 class_outputs"),
        ({"class_outputs": ["cls1", "cls0", "cls2", "cls3"]}, "cls1 is .*; the spec needs 108"),
        ({"regmax": 7}, "unknown options.regmax"),
    ],
)
def test_picodet_options_are_checked(options: Mapping[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recognise(_picodet(5, 8), (96, 72), {"family": "picodet", "options": options})


def test_picodet_options_count() -> None:
    given = {"options": {"score_activation": "sigmoid", "reg_max": 7}}
    spec = recognise(_picodet(5, 8), (96, 72), given).spec
    assert spec.options["score_activation"] == "sigmoid"
    # 32 classes or reg_max 7? Here nothing but the spec says.
    both = _picodet(32, 8)
    boxes = [f"box{level}" for level in range(4)]
    named = recognise(both, (96, 72), {"options": {"box_outputs": boxes}}).spec
    assert named.options["box_outputs"] == boxes


def test_picodet_named_outputs_leave_others_away() -> None:
    found = _picodet(5, 8)
    more = _summary(
        {**{name: value.shape for name, value in found.outputs.items()}, "aux": (1, 2)},
        found.output_sources,
    )
    names = {
        f"{key}_outputs": [f"{kind}{at}" for at in range(4)]
        for key, kind in (("class", "cls"), ("box", "box"))
    }
    assert recognise(more, (96, 72), {"options": names}).family == "picodet"
    with pytest.raises(ModelError, match="9 outputs"):
        recognise(more, (96, 72), {})


def test_yolov8_output_and_layout_of_the_spec_count() -> None:
    two = _summary({"o": (1, 7, 126), "proto": (1, 32, 16, 24)})
    with pytest.raises(ModelError, match=r"name it in the spec's options\.output"):
        recognise(two, (64, 96), {})
    found = recognise(two, (64, 96), {"options": {"output": "o"}})
    assert found.spec.options["output"] == "o"
    # 126 anchors by 126 rows: either layout fits.
    square = _summary({"o": (1, 126, 126)})
    for layout in ("channels_first", "channels_last"):
        given = {"family": "yolov8", "options": {"layout": layout}}
        assert recognise(square, (64, 96), given).spec.options["layout"] == layout
