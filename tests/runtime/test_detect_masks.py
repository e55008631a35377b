"""Masks from the compiled function to the caller, on a toy detector that is really compiled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_detector import SIZES_HW, expected_for, image_of
from test_resize import letterbox
from toy_modules import MASK_SHAPE, SIZE_HW, reference_detect, reference_masks, toy_spec, write_toy

from tvmdet.boxes import ImageTransform
from tvmdet.detections import Detections
from tvmdet.masks import place_masks
from tvmdet.rle import decode_rle
from tvmdet.runtime import Detector, load
from tvmdet.runtime.image_batches import _copy_counted
from tvmdet.spec import MaskSpec


@pytest.fixture(scope="module", params=["box", "image"])
def detector(
    request: pytest.FixtureRequest, masks_library: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Detector]:
    path = tmp_path_factory.mktemp("masks") / "toy.tvmdet"
    spec = toy_spec(masks={"frame": request.param, "threshold": 0.2}).to_dict()
    with load(write_toy(path, masks_library, spec=spec)) as detector:
        yield detector


def assert_as_expected(found: Detections, image: np.ndarray, spec: MaskSpec) -> None:
    boxes, scores, class_ids = reference_detect(letterbox(image, SIZE_HW, 114), 0.25, 0.6)
    transform = ImageTransform.for_image(image.shape[:2], toy_spec().input)
    want = place_masks(reference_masks(class_ids, scores), boxes, transform, spec)
    assert found.labels == expected_for(image).labels
    assert found.masks is not None
    assert found.masks.shape == (len(class_ids), *image.shape[:2])
    for index, mask in enumerate(found.masks):
        value = want.small[index].sample(image.shape[:2])
        at_threshold = np.zeros(image.shape[:2], bool)
        at_threshold[value.slices] = np.abs(value.pixels - spec.threshold) < 1e-3
        expected = want.paste(index)
        np.testing.assert_array_equal(mask[~at_threshold], expected[~at_threshold])


@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_one_image(detector: Detector, size_hw: tuple[int, int]) -> None:
    image = image_of(size_hw)
    found = detector.detect(image)
    assert len(found) == 3
    assert_as_expected(found, image, detector.spec.masks)
    timed, seconds = detector.detect_timed(image)
    assert list(seconds) == ["decode", "resize", "queue", "network", "map"]
    np.testing.assert_array_equal(timed.masks, found.masks)


def test_the_pictures_have_masks_that_differ(detector: Detector) -> None:
    """Otherwise the other tests compare nothing with nothing."""
    masks = detector.detect(image_of((64, 48))).masks
    areas = [int(mask.sum()) for mask in masks]
    assert min(areas) > 0 and len(set(areas)) == 3
    assert max(areas) < masks[0].size


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_lists_of_mixed_sizes(detector: Detector, count: int) -> None:
    images = [image_of(SIZES_HW[i % len(SIZES_HW)], seed=i) for i in range(count)]
    for found, image in zip(detector.detect(images), images, strict=True):
        assert_as_expected(found, image, detector.spec.masks)


def test_without_objects_there_are_masks_of_none(detector: Detector) -> None:
    found = detector.detect(np.zeros((20, 30, 3), np.uint8))
    assert found.masks is not None and found.masks.shape == (0, 20, 30)
    assert found.mask_rles() == []


def test_a_bad_image_has_no_masks(detector: Detector, tmp_path: Path) -> None:
    good = image_of((20, 30))
    bad, found = detector.detect([tmp_path / "none.png", good])
    assert bad.error and bad.masks is not None and bad.masks.shape == (0, 0, 0)
    assert_as_expected(found, good, detector.spec.masks)


def test_results_are_the_callers(detector: Detector) -> None:
    image = image_of((64, 48))
    first = detector.detect(image)
    kept = [small.values.copy() for small in first.instance_masks.small]
    detector.detect([image_of((33, 201), seed) for seed in range(4)])
    for small, before in zip(first.instance_masks.small, kept, strict=True):
        np.testing.assert_array_equal(small.values, before)
        assert small.values.base is None, "a view would keep the whole batch in memory"
        assert max(small.values.shape) <= max(MASK_SHAPE)


@pytest.mark.parametrize("counts", [[0, 0], [1, 3], [4, 0]])
def test_only_rows_in_use_are_copied(counts: list[int]) -> None:
    masks = np.random.default_rng(0).random((2, 4, 3, 5), np.float32)
    given = (
        np.zeros((2, 4, 4), np.float32),
        np.zeros((2, 4), np.float32),
        np.zeros((2, 4), np.int32),
        np.array(counts, np.int32),
    )
    *rows, copied = _copy_counted((*given, masks))
    np.testing.assert_array_equal(copied, masks[:, : max(counts)])
    for one, other in zip((*rows, copied), (*given, masks), strict=True):
        assert not np.shares_memory(one, other)


def test_video(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    assert writer.isOpened()
    for _ in range(2):
        writer.write(np.full((64, 96, 3), 250, np.uint8))
    writer.release()
    frames = list(detector.detect_video(path))
    assert len(frames) == 2
    for frame, found in frames:
        assert found.masks is not None and found.masks.shape == (3, 64, 96)
        assert found.masks.any(axis=(1, 2)).all()
        assert frame.shape[:2] == found.image_size_hw


def test_json_holds_what_the_masks_are(detector: Detector) -> None:
    found = detector.detect(image_of((64, 48)))
    for entry, mask in zip(found.to_dict()["detections"], found.masks, strict=True):
        np.testing.assert_array_equal(decode_rle(entry["mask_rle"]), mask)
