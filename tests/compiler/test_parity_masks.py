"""Masks of a whole build: the certificate, and masks that are wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mask_detector
import numpy as np
import pytest
from assertions import assert_close

import tvmdet
from tvmdet.compiler import compile as compiler_compile
from tvmdet.compiler.images import draw_images
from tvmdet.compiler.parity import check_detector
from tvmdet.compiler.parity_masks import MaskTally, mask_overlap
from tvmdet.compiler.reference import Candidates, Reference
from tvmdet.compiler.tolerance import Tolerance
from tvmdet.errors import ModelError, ParityError
from tvmdet.heads import MaskValues, get_head
from tvmdet.masks import InstanceMasks, MaskRegion, SmallMask


@pytest.fixture(scope="module", params=mask_detector.FRAMES)
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Any]:
    """A model with masks and the report of its build for batch size 2."""
    folder = tmp_path_factory.mktemp(request.param)
    model = mask_detector.import_mask_network(request.param, folder)
    output = folder / "out.tvmdet"
    return model, compiler_compile(model, batch_sizes=(2,), output=output, logs=folder / "logs")


def _check(model: Any, report: Any, reference: Reference | None = None) -> dict[str, Any]:
    pictures = draw_images(mask_detector.SIZE_HW)[4:7]
    with tvmdet.load(report.output) as detector:
        return check_detector(detector, reference or Reference(model, 1), pictures)


def test_the_certificate_says_what_was_compared(built: tuple[Any, Any]) -> None:
    _, report = built
    (certificate,) = report.parity.values()
    assert certificate["masks"] == certificate["boxes"] > 100
    assert certificate["mask_pixels"] > 50 * certificate["masks"]
    assert certificate["worst_mask_iou"] > 0.999
    assert certificate["mask_pixels_at_threshold"] <= 1e-3 * certificate["mask_pixels"]
    assert certificate["tolerance"]["mask_iou"] == 0.98


def test_detections_have_masks_of_many_sizes(built: tuple[Any, Any]) -> None:
    """Otherwise the others compare nothing with nothing."""
    _, report = built
    image = draw_images(mask_detector.SIZE_HW)[6].pixels  # of those compared the largest
    with tvmdet.load(report.output) as detector:
        found = detector.detect(image, score=0.3)
    shares = found.masks.mean(axis=(1, 2))
    assert len(found) > 10 and 0 < np.median(shares) < 0.9
    assert len(set(shares.tolist())) > len(found) // 2


class _Poisoned(Reference):
    """A reference whose masks are other ones."""

    def candidates(self, *args: Any, **more: Any) -> Any:
        return tuple(
            replace(found, masks=self.spoil(found.masks))
            for found in super().candidates(*args, **more)
        )

    def spoil(self, masks: Any) -> Any:
        raise NotImplementedError


class _Shifted(_Poisoned):
    def spoil(self, masks: Any) -> Any:
        if masks.prototypes is None:
            return replace(masks, values=np.roll(masks.values, 1, axis=3))
        return replace(masks, prototypes=np.roll(masks.prototypes, 1, axis=3))


class _OtherCandidates(_Poisoned):
    def spoil(self, masks: Any) -> Any:
        return replace(masks, values=np.roll(masks.values, 1, axis=1))


class _Noisy(_Poisoned):
    """As far off as rounding is."""

    def spoil(self, masks: Any) -> Any:
        noise = np.random.default_rng(0).normal(0, 1e-5, masks.values.shape)
        return replace(masks, values=(masks.values + noise).astype(np.float32))


@pytest.mark.parametrize("poisoned", [_Shifted, _OtherCandidates])
def test_a_poisoned_mask_is_a_breach(built: tuple[Any, Any], poisoned: type[Reference]) -> None:
    model, report = built
    message = r"\(batch \d, row \d\): of [ab] 0\.\d+ at \[.*\] its mask has an IoU of 0\.\d+ with"
    with pytest.raises(ParityError, match=message) as error:
        _check(model, report, poisoned(model, 1))
    assert "(allowed: 0.98)" in str(error.value)
    assert any(f": {image.name} (batch" in str(error.value) for image in draw_images((64, 96)))


def test_rounding_is_none(built: tuple[Any, Any]) -> None:
    model, report = built
    certificate = _check(model, report, _Noisy(model, 1))
    assert certificate["worst_mask_iou"] > 0.98


def test_a_family_that_finds_no_masks_is_told(
    built: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, report = built
    head = type(get_head(model.spec.family))
    right = head.decode_reference
    monkeypatch.setattr(head, "decode_reference", lambda *args: replace(right(*args), masks=None))
    with pytest.raises(
        ModelError, match=r"family (yolov8|detections) finds none in .*remove masks from the spec"
    ):
        _check(model, report)


@pytest.mark.parametrize("way", ["false", "a whole spec"])
def test_masks_can_be_left_out(built: tuple[Any, Any], way: str, tmp_path: Path) -> None:
    model, _ = built
    frame = model.spec.masks.frame
    with_labels = mask_detector.import_mask_network(frame, tmp_path, labels=["x", "y"])
    assert with_labels.spec.masks == model.spec.masks
    if way == "false":
        assert mask_detector.import_mask_network(frame, tmp_path, masks=False).spec.masks is None
    else:
        path = mask_detector.mask_network(frame, tmp_path / "net.onnx")
        without = tvmdet.import_onnx(path, spec=replace(model.spec, masks=None))
        assert without.spec.masks is None


def test_masks_are_kept_once_for_each_row_that_is_a_candidate() -> None:
    values = np.random.default_rng(0).random((1, 9, 3, 4), np.float32)
    anchors = np.array([7, 2, 7, 7, 0])
    candidates = Candidates(
        boxes_xyxy=np.zeros((5, 4), np.float32),
        scores=np.linspace(1, 0.5, 5, dtype=np.float32),
        class_ids=np.arange(5, dtype=np.int32),
        anchors=anchors,
        masks=MaskValues(values=values),
    )
    compact = candidates.compact()
    assert compact.masks.values.shape == (1, 3, 3, 4)
    for some in (compact, compact.take([3, 1]) + compact.take([0])):
        rows = some.class_ids
        np.testing.assert_array_equal(some.mask_values(), values[0][anchors[rows]])
    mixed = replace(
        candidates,
        masks=MaskValues(
            values=values.reshape(1, 9, 12)[..., :2], prototypes=np.ones((1, 2, 5, 6), np.float32)
        ),
    )
    want = 1 / (1 + np.exp(-mixed.masks.values[0][anchors].sum(axis=1)))
    assert_close(mixed.mask_values(), np.broadcast_to(want[:, None, None], (5, 5, 6)))
    assert_close(mixed.compact().mask_values(), mixed.mask_values())


def _region(pixels: Any, top: int = 0, left: int = 0) -> MaskRegion:
    return MaskRegion(top=top, left=left, pixels=np.asarray(pixels))


FULL = np.ones((4, 5), np.float32)


@pytest.mark.parametrize(
    ("found", "values", "expected", "why"),
    [
        (_region(np.zeros((0, 0), bool)), _region(np.zeros((0, 0))), (1, 0), "both empty"),
        (_region(FULL > 0), _region(np.zeros((0, 3))), (0, 0), "one empty"),
        (_region(np.zeros((2, 2), bool)), _region(FULL), (0, 0), "the other empty"),
        (_region(FULL > 0), _region(FULL), (1, 0), "the same"),
        (_region(FULL > 0, 3, 4), _region(FULL, 3, 4), (1, 0), "the same, elsewhere"),
        (_region(FULL > 0, 0, 5), _region(FULL, 0, 0), (0, 0), "side by side"),
        (_region(FULL > 0, 0, 1), _region(FULL, 0, 0), (16 / 24, 0), "one column apart"),
        (_region(FULL > 0), _region(FULL * 0.5), (1, 20), "all at the threshold"),
        (_region(FULL < 0), _region(FULL * 0.5005), (1, 20), "all at it, none found"),
        (_region(FULL < 0), _region(FULL * 0.502), (0, 0), "all beyond it"),
    ],
)
def test_overlap(
    found: MaskRegion, values: MaskRegion, expected: tuple[float, int], why: str
) -> None:
    assert mask_overlap(found, values, 0.5, 1e-3) == pytest.approx(expected), why


FRAME = (0.0, 0.0, 20.0, 20.0)


def _masks(
    *values: np.ndarray,
    frame: tuple[float, ...] = FRAME,
    box: tuple[float, ...] | None = None,
) -> InstanceMasks:
    small = tuple(
        SmallMask(values=v.astype(np.float32), frame_xyxy=frame, limits_xyxy=box) for v in values
    )
    return InstanceMasks(small=small, threshold=0.5, image_size_hw=(20, 20))


def test_the_mask_of_any_candidate_that_is_the_same_box_will_do() -> None:
    left, right = np.tile([1, 0], (2, 1)), np.tile([0, 1], (2, 1))
    boxes = np.array([[0, 0, 20, 20]], np.float32)
    for rivals, wrong in ((_masks(right, left), {}), (_masks(right), {0: 0.0})):
        tally = MaskTally()
        found = tally.compare(
            _masks(left), boxes, _masks(right), {0: 0}, lambda _, r=rivals: r, Tolerance()
        )
        assert found == wrong
        assert tally.masks == 1 and tally.worst_iou == (1.0 if not wrong else 0.0)


def test_an_edge_that_moves_over_pixel_centres_is_the_boxes_matter() -> None:
    values = np.ones((4, 4))
    mine, theirs = (5.4999, 5.0, 9.0, 9.0), (5.5001, 5.0, 9.0, 9.0)
    found, expected = _masks(values, box=mine), _masks(values, box=theirs)
    assert found.paste(0).sum() == 16 and expected.paste(0).sum() == 12
    tally = MaskTally()
    boxes = np.array([mine], np.float32)
    assert not tally.compare(found, boxes, expected, {0: 0}, lambda _: expected, Tolerance())
    assert tally.worst_iou == 1.0


@pytest.mark.parametrize(
    ("frame", "agrees", "why"),
    [
        ((4.0, 4.0, 10.0, 10.0), True, "the same"),
        ((4.004, 4.004, 10.004, 10.004), True, "as far off as boxes may be"),
        ((4.3, 4.3, 10.3, 10.3), False, "further off"),
        ((7.0, 7.0, 13.0, 13.0), False, "elsewhere"),
    ],
)
def test_a_mask_lies_in_its_box_within_what_boxes_may_be_off(
    frame: tuple[float, ...], agrees: bool, why: str
) -> None:
    # Lines of a third of a pixel: any shift that is not the box's changes what is found.
    lines = np.tile([0.0, 1.0, 0.3], (18, 6))
    found, expected = _masks(lines, frame=frame), _masks(lines, frame=(4.0, 4.0, 10.0, 10.0))
    tally = MaskTally()
    boxes = np.array([frame], np.float32)
    wrong = tally.compare(found, boxes, expected, {0: 0}, lambda _: expected, Tolerance())
    assert (wrong == {}) == agrees, why


def test_a_thin_mask_lies_in_its_box_too() -> None:
    """A row of pixels at the end of a box of a fiftieth of their height: a hair decides on it."""
    mine, theirs = (4.0, 7.49, 16.0, 7.515), (4.0, 7.48, 16.0, 7.497)
    found, expected = (_masks(np.ones((4, 4)), frame=frame) for frame in (mine, theirs))
    assert found.paste(0).any() and not expected.paste(0).any()
    boxes = np.array([mine], np.float32)
    wrong = MaskTally().compare(found, boxes, expected, {0: 0}, lambda _: expected, Tolerance())
    assert wrong == {}
