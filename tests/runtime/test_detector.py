from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from assertions import assert_close, assert_detections_close
from test_resize import letterbox
from toy_modules import BOXES_XYXY, LABELS, SIZE_HW, reference_detect, toy_spec, write_toy

from tvmdet.detections import Detections
from tvmdet.errors import InputError
from tvmdet.runtime import Detector, load
from tvmdet.runtime import image_batches as image_batches_module

SIZES_HW = [(32, 48), (1, 1), (64, 48), (33, 201), (480, 640), (30, 1000)]


@pytest.fixture(scope="module")
def detector(toy_path: Path) -> Iterator[Detector]:
    with load(toy_path) as detector:
        yield detector


def image_of(size_hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A picture whose channels have different means, so that the toy's scores differ."""
    rng = np.random.default_rng(seed)
    tops = rng.permutation([250, 170, 110])
    return (rng.random((*size_hw, 3)) * 0.2 * tops + 0.8 * tops).astype(np.uint8)


def expected_for(image: np.ndarray, score: float = 0.25, iou: float = 0.6) -> Detections:
    """The toy's answer, by way of Ultralytics 8.4's LetterBox and scale_boxes."""
    boxes, scores, class_ids = reference_detect(letterbox(image, SIZE_HW, 114), score, iou)
    height, width = image.shape[:2]
    gain = min(SIZE_HW[0] / height, SIZE_HW[1] / width)
    new_height, new_width = max(round(height * gain), 1), max(round(width * gain), 1)
    pad_x = round((SIZE_HW[1] - new_width) / 2 - 0.1)
    pad_y = round((SIZE_HW[0] - new_height) / 2 - 0.1)
    gains = np.array([new_width / width, new_height / height] * 2)
    boxes = (boxes - np.array([pad_x, pad_y] * 2)) / gains
    return Detections(
        boxes_xyxy=np.clip(boxes, 0, [width, height, width, height]).astype(np.float32),
        scores=scores,
        class_ids=class_ids,
        labels=tuple(LABELS[class_id] for class_id in class_ids),
        image_size_hw=(height, width),
    )


def assert_as_expected(found: Detections, image: np.ndarray, **thresholds: float) -> None:
    expected = expected_for(image, **thresholds)
    assert found.error is None
    assert found.image_size_hw == image.shape[:2]
    assert found.class_ids.tolist() == expected.class_ids.tolist()
    assert found.labels == expected.labels
    assert_close(found.scores, expected.scores, rtol=1e-4, name="scores")
    assert_close(found.boxes_xyxy, expected.boxes_xyxy, atol=2e-3, name="boxes")


@pytest.mark.parametrize("size_hw", SIZES_HW)
def test_one_image(detector: Detector, size_hw: tuple[int, int]) -> None:
    image = image_of(size_hw)
    before = image.copy()
    found = detector.detect(image)
    assert len(found) == 3
    assert found.source is None
    assert_as_expected(found, image)
    np.testing.assert_array_equal(image, before)


def test_a_huge_image(detector: Detector) -> None:
    image = np.empty((9000, 12000, 3), np.uint8)
    image[...] = (200, 100, 50)
    found = detector.detect(image)
    assert found.image_size_hw == (9000, 12000)
    assert found.labels[0] == "blue"
    assert found.boxes_xyxy.max() <= 12000


def test_no_box_at_all(detector: Detector) -> None:
    found = detector.detect(np.zeros((32, 48, 3), np.uint8))
    assert (len(found), found.error, found.image_size_hw) == (0, None, (32, 48))


@pytest.mark.parametrize("count", range(8))
def test_lists_of_mixed_sizes_answer_as_one_by_one(detector: Detector, count: int) -> None:
    images = [image_of(SIZES_HW[i % len(SIZES_HW)], seed=i) for i in range(count)]
    results = detector.detect(images)
    assert isinstance(results, list)
    assert len(results) == count
    for found, image in zip(results, images, strict=True):
        assert_as_expected(found, image)
        assert_detections_close(found, detector.detect(image), score_threshold=0.25)


@pytest.mark.parametrize("batch_sizes", [[1], [2]])
def test_batch_sizes_that_do_not_divide(
    toy_library: bytes, tmp_path: Path, batch_sizes: list[int]
) -> None:
    path = write_toy(tmp_path / "x.tvmdet", toy_library, batch_sizes=batch_sizes)
    images = [image_of((20, 30), seed) for seed in range(3)]
    with load(path) as detector:
        for found, image in zip(detector.detect(images), images, strict=True):
            assert_as_expected(found, image)
        assert_as_expected(detector.detect(images[0]), images[0])


def test_files_and_arrays_mix(detector: Detector, tmp_path: Path) -> None:
    image = image_of((40, 60))
    path = tmp_path / "picture.png"
    path.write_bytes(cv2.imencode(".png", image)[1].tobytes())
    results = detector.detect(iter([path, str(path), image]))
    assert [found.source for found in results] == [str(path), str(path), None]
    for found in results:
        assert_as_expected(found, image)
    assert detector.detect(path).source == str(path)


def test_stretch_and_top_left_are_undone(toy_library: bytes, tmp_path: Path) -> None:
    image = np.full((64, 480, 3), 200, np.uint8)
    for changes, factors in (
        ({"resize": "stretch"}, (10.0, 2.0)),
        ({"pad_position": "top_left", "pad_value": 200}, (10.0, 10.0)),
    ):
        spec = toy_spec(input=changes).to_dict()
        path = write_toy(tmp_path / "x.tvmdet", toy_library, spec=spec)
        with load(path) as detector:
            found = detector.detect(image)
        expected = np.clip(BOXES_XYXY * np.array(factors * 2), 0, [480, 64, 480, 64])
        assert_close(found.boxes_xyxy, expected)


def test_buffers_used_before_leave_no_trace(detector: Detector) -> None:
    detector.detect([image_of((480, 640), seed) for seed in range(2)])
    thin = image_of((30, 1000), 5)
    assert_as_expected(detector.detect([thin, thin])[1], thin)


@pytest.mark.parametrize("score", [0.0, 0.01, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("iou", [0.0, 0.49, 0.5, 1.0])
def test_thresholds(detector: Detector, score: float, iou: float) -> None:
    image = image_of((32, 48))
    assert_as_expected(detector.detect(image, score=score, iou=iou), image, score=score, iou=iou)


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan"), float("inf"), "0.5", True])
@pytest.mark.parametrize("name", ["score", "iou"])
def test_refuses_a_threshold(detector: Detector, name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{name} is .*allowed: .*0 to 1"):
        detector.detect(image_of((4, 4)), **{name: value})  # type: ignore[arg-type]


def test_zero_images(detector: Detector) -> None:
    assert detector.detect([]) == []


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_encoded_bytes_are_one_image(detector: Detector, kind: type) -> None:
    image = image_of((40, 60))
    encoded = kind(cv2.imencode(".png", image)[1].tobytes())
    assert_as_expected(detector.detect(encoded), image)
    first, second = detector.detect([encoded, image])
    assert_as_expected(first, image)
    assert_as_expected(second, image)


def test_a_bad_image_in_a_list_does_not_lose_the_others(
    detector: Detector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff no picture")
    image = image_of((40, 60))
    sources = [bad, image, None, image.astype(np.float32), image, tmp_path / "none.png"]
    with caplog.at_level(logging.WARNING, logger="tvmdet"):
        results = detector.detect(sources)  # type: ignore[arg-type]
    for index in (1, 4):
        assert_as_expected(results[index], image)
    messages = ["bad.jpg cannot be decoded", "NoneType", "float32", "none.png cannot be read"]
    for index, message in zip((0, 2, 3, 5), messages, strict=True):
        assert len(results[index]) == 0
        assert message in (results[index].error or "")
        assert message in caplog.text
    assert results[0].source == str(bad)
    assert len(caplog.records) == 4


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.png", "missing.png cannot be read"),
        (np.zeros((4, 4, 3), np.float32), "dtype float32"),
        (np.zeros((2, 4, 4, 3), np.uint8), "pass a list"),
        (None, "sources is a NoneType"),
        (7, "sources is a int"),
    ],
)
def test_refuses_a_single_bad_image(detector: Detector, source: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        detector.detect(source)  # type: ignore[call-overload]


def test_run_points_to_detect(detector: Detector) -> None:
    with pytest.raises(InputError, match=r"not compiled with --raw; use detect\(image\)"):
        detector.run({})


def test_eight_threads_get_the_answers_of_one(detector: Detector) -> None:
    images = [image_of(SIZES_HW[i % len(SIZES_HW)], seed=i) for i in range(8)]
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def work(index: int) -> None:
        try:
            start.wait()
            for turn in range(30):
                image = images[(index + turn) % 8]
                if turn % 3:
                    assert_as_expected(detector.detect(image), image)
                else:
                    for found in detector.detect([image] * 3):
                        assert_as_expected(found, image)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_pictures_are_resized_as_the_spec_says(toy_library: bytes, tmp_path: Path) -> None:
    """Of four rows that become one, the inner two count bilinearly, and all four by area."""
    height, width = SIZE_HW
    rows = np.tile(np.array([250, 0, 0, 250], np.uint8), height)
    image = np.repeat(np.repeat(rows[:, None], 4 * width, axis=1)[..., None], 3, axis=2)
    scores = {}
    for interpolation in ("bilinear", "area"):
        fed = {"resize": "stretch", "interpolation": interpolation}
        path = tmp_path / f"{interpolation}.tvmdet"
        write_toy(path, toy_library, spec=toy_spec(input=fed).to_dict())
        with load(path) as detector:
            scores[interpolation] = detector.detect(image, score=0.0).scores
    assert scores["bilinear"].size == 0
    assert_close(scores["area"], np.full(3, 125 / 255, np.float32), rtol=1e-5)


def test_two_detectors_at_once(toy_path: Path) -> None:
    image = image_of((40, 60))
    with load(toy_path, threads=1) as one, load(toy_path, threads=2) as two:
        for _ in range(5):
            assert_as_expected(one.detect(image), image)
            assert_as_expected(two.detect(image), image)


def test_an_interrupt_while_computing_leaves_the_detector_usable(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = 0
    place = image_batches_module.place_image

    def interrupt(*arguments: object) -> None:
        nonlocal placed
        placed += 1
        if placed == 3:
            raise KeyboardInterrupt
        place(*arguments)  # type: ignore[arg-type]

    image = image_of((40, 60))
    with monkeypatch.context() as patch:
        patch.setattr(image_batches_module, "place_image", interrupt)
        with pytest.raises(KeyboardInterrupt):
            detector.detect([image] * 5)
    for found in detector.detect([image] * 5):
        assert_as_expected(found, image)
