from __future__ import annotations

import itertools

import pytest

from tvmdet.runtime.batches import plan_batches


@pytest.mark.parametrize(
    ("images", "sizes", "expected"),
    [
        pytest.param(0, (1, 4), [], id="nothing"),
        pytest.param(1, (1, 4), [(1, 1)], id="one"),
        pytest.param(2, (1, 4), [(1, 1), (1, 1)], id="half of a batch wasted: one by one"),
        pytest.param(3, (1, 4), [(4, 3)], id="a quarter wasted: padded"),
        pytest.param(4, (1, 4), [(4, 4)], id="full"),
        pytest.param(5, (1, 4), [(4, 4), (1, 1)], id="full and one"),
        pytest.param(7, (1, 4), [(4, 4), (4, 3)], id="the last one padded"),
        pytest.param(3, (8,), [(8, 3)], id="nothing smaller: padded"),
        pytest.param(6, (3, 4), [(3, 3), (3, 3)], id="less than the greedy 4 + 3"),
        pytest.param(7, (1, 4, 8), [(8, 7)], id="an eighth wasted"),
        pytest.param(17, (1, 8), [(8, 8), (8, 8), (1, 1)], id="many"),
    ],
)
def test_plan(images: int, sizes: tuple[int, ...], expected: list[tuple[int, int]]) -> None:
    assert list(plan_batches(images, sizes)) == expected


@pytest.mark.parametrize("sizes", [(1,), (1, 2), (4,), (1, 4), (3, 4), (1, 2, 4, 8), (2, 5, 16)])
def test_every_count_is_covered_once_with_little_padding(sizes: tuple[int, ...]) -> None:
    for images in range(70):
        plan = plan_batches(images, sizes)
        assert sum(batch.images for batch in plan) == images
        assert all(1 <= batch.images <= batch.size for batch in plan)
        # Padding is all in the last call.
        assert all(batch.images == batch.size for batch in plan[:-1])


def test_no_other_plan_is_less_work() -> None:
    sizes = (2, 3, 7)
    for images in range(1, 20):
        plan = plan_batches(images, sizes)
        work = sum(batch.size for batch in plan) + len(plan) / 2
        for calls in range(1, 10):
            for other in itertools.combinations_with_replacement(sizes, calls):
                assert sum(other) < images or sum(other) + calls / 2 >= work


def test_a_million_images_are_planned() -> None:
    plan = plan_batches(1_000_003, (1, 4))
    assert plan[-1] == (4, 3)
    assert len(plan) == 250_001
