"""Files of annotations: what is read of them, and what is refused with which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from coco_files import BLUE, thing, write

from tvmdet.errors import InputError
from tvmdet.report.coco import read_annotations


def test_an_empty_list_of_annotations_is_no_error(tmp_path: Path) -> None:
    path = write(tmp_path, [])
    read = read_annotations(path, tmp_path)
    assert (len(read.images), read.objects) == (2, ())
    assert read.categories == {1: "blue", 2: "green", 3: "red"}


def test_what_is_missing_has_the_format_s_default(tmp_path: Path) -> None:
    (one,) = read_annotations(write(tmp_path, [thing(1, 1, (1, 2, 3, 4))]), tmp_path).objects
    assert (one.area, one.is_crowd, one.segmentation) == (12.0, False, None)


def test_categories_come_in_the_order_of_ids(tmp_path: Path) -> None:
    entries = [{"id": 9, "name": "nine"}, {"id": 2, "name": "two", "supercategory": "number"}]
    path = write(tmp_path, [], categories=entries)
    assert list(read_annotations(path, tmp_path).categories.items()) == [(2, "two"), (9, "nine")]


def test_a_limit_leaves_out_the_objects_of_other_pictures(tmp_path: Path) -> None:
    path = write(tmp_path, [thing(2, 1, BLUE), thing(1, 1, BLUE)])
    read = read_annotations(path, tmp_path, limit=1)
    assert [image.id for image in read.images] == [1]
    assert [one.image_id for one in read.objects] == [1]


def test_pictures_beyond_the_limit_may_be_missing(tmp_path: Path) -> None:
    path = write(tmp_path, [])
    (tmp_path / "1.png").unlink()
    assert len(read_annotations(path, tmp_path, limit=1).images) == 1


def test_names_may_have_folders_that_the_pictures_are_not_in(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "val2017/0.png"}, {"id": 2, "file_name": "1.png"}]
    read = read_annotations(write(tmp_path, [], images=images), tmp_path)
    assert [image.path for image in read.images] == [tmp_path / "0.png", tmp_path / "1.png"]
    assert read.images[0].size_hw is None


def test_masks_are_kept(tmp_path: Path) -> None:
    masks: list[Any] = [
        [[1, 2, 10, 2, 10, 9]],
        {"size": [4, 3], "counts": [2, 3, 7]},
        {"size": [32, 48], "counts": "0T1"},
    ]
    annotations = [thing(1, 1, BLUE, segmentation=mask) for mask in masks]
    read = read_annotations(write(tmp_path, annotations), tmp_path)
    assert [one.segmentation for one in read.objects] == masks
    assert read.without_mask == 0
    annotations.append(thing(1, 1, BLUE, segmentation=[]))
    assert read_annotations(write(tmp_path, annotations), tmp_path).without_mask == 1


def test_points_and_lines_hold_no_pixel(tmp_path: Path) -> None:
    masks = [[[1, 2, 3, 4], [1, 2, 10, 2, 10, 9]], [[5, 6]]]
    annotations = [thing(1, 1, BLUE, segmentation=mask) for mask in masks]
    read = read_annotations(write(tmp_path, annotations), tmp_path)
    assert [one.segmentation for one in read.objects] == [[[1, 2, 10, 2, 10, 9]], [[5, 6] * 3]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "are no JSON"),
        ('{"images": [', "are no JSON"),
        ("[" * 100_000, "are no JSON"),
        ("[]", "hold a list; in COCO's format .* not of annotations"),
        ("{}", "has no list 'images'; .*instances_val2017.json is one"),
        ('{"images": [], "annotations": {}, "categories": []}', "has no list 'annotations'"),
        ('{"images": [], "annotations": [], "categories": []}', "lists no categories"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=says):
        read_annotations(path, tmp_path)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_annotations(tmp_path / "a.json", tmp_path)
    (tmp_path / "b.json").write_bytes(b'{"\xff": 1}')
    with pytest.raises(InputError, match=r"b\.json are no JSON"):
        read_annotations(tmp_path / "b.json", tmp_path)


ONE = {"id": 1, "file_name": "0.png"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"images": []}, "lists no pictures"),
        ({"images": [ONE, ONE]}, r"images\[1\] \(0.png\) has the id 1, as another one has"),
        ({"images": [7]}, r"images\[0\] has the id None; allowed: a whole number"),
        ({"images": [{"id": True, "file_name": "0.png"}]}, "has the id True"),
        ({"images": [{"id": 1, "file_name": ""}]}, "file_name ''; allowed: text"),
        ({"images": [{"id": 1}]}, "file_name None"),
        ({"images": [{**ONE, "height": "tall", "width": 3}]}, "has the height 'tall'"),
        ({"categories": [{"id": 1, "name": None}]}, r"categories\[0\] has the name None"),
        (
            {"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]},
            r"categories\[1\] has the id 1, as 'a' has",
        ),
        ({"annotations": [thing(3, 1, BLUE)]}, "of picture 3, which images does not list"),
        ({"annotations": [thing(1, 4, BLUE)]}, "of category 4, which categories does not list"),
        ({"annotations": [{"image_id": 1, "category_id": 1}]}, "bbox None; allowed: left, top"),
        ({"annotations": [thing(1, 1, (1, 2, 3))]}, r"bbox \[1, 2, 3\]"),
        ({"annotations": [thing(1, 1, (9, 9, -3, 4))]}, "not two corners"),
        ({"annotations": [thing(1, 1, (1, 2, 3, float("nan")))]}, "bbox .*nan"),
        ({"annotations": [thing(1, 1, BLUE, iscrowd=2)]}, "iscrowd 2; allowed: 0 or 1"),
        ({"annotations": [thing(1, 1, BLUE, area=-1)]}, "area -1; allowed: a number from 0"),
        ({"annotations": [thing(1, 1, BLUE, segmentation=[[1, 2, 3]])]}, "three corners"),
        (
            {"annotations": [thing(1, 1, BLUE, segmentation=[[0, 0, 9, 9, 0, 1e9]])]},
            "up to 1000000",
        ),
        ({"annotations": [thing(1, 1, (1, 2, 3, 10**400))]}, "bbox .*1000"),
        ({"annotations": [thing(10**30, 1, BLUE)]}, "image_id 1000"),
        ({"annotations": [thing(1, 1, BLUE, segmentation="mask.png")]}, "'mask.png'; allowed"),
        (
            {"annotations": [thing(1, 1, BLUE, segmentation={"size": [2, 2], "counts": [3]})]},
            "counts that add up to it",
        ),
        (
            {"annotations": [thing(1, 1, BLUE, segmentation={"size": [2], "counts": [4]})]},
            "run lengths with size",
        ),
    ],
)
def test_entries_that_make_no_sense_are_named(
    tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    rest = {key: value for key, value in changes.items() if key != "annotations"}
    path = write(tmp_path, changes.get("annotations", []), **rest)
    with pytest.raises(InputError, match=says):
        read_annotations(path, tmp_path)


def test_long_values_are_cut_in_messages(tmp_path: Path) -> None:
    path = write(tmp_path, [thing(1, 1, list(range(10_000)))])
    with pytest.raises(InputError) as caught:
        read_annotations(path, tmp_path)
    assert len(str(caught.value)) < 400


def test_missing_pictures_are_counted_before_anything_runs(tmp_path: Path) -> None:
    path = write(tmp_path, [])
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        read_annotations(path, tmp_path / "nowhere")
    (tmp_path / "1.png").unlink()
    with pytest.raises(InputError, match=r"1 of 2 pictures not in .*, such as 1\.png"):
        read_annotations(path, tmp_path)


def test_a_file_of_results_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(json.dumps([{"image_id": 1, "score": 0.5}]), encoding="utf-8")
    with pytest.raises(InputError, match="a bare list is a file of results"):
        read_annotations(path, tmp_path)
