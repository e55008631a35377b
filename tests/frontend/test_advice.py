"""What to do about a node that blocks, in the frameworks that can have written the file."""

from __future__ import annotations

import pytest

from tvmdet.frontend.advice import advised
from tvmdet.frontend.operators import Block


def _block(operator: str) -> Block:
    return Block(node="n", operator=operator, reason="it blocks", fix="change it")


@pytest.mark.parametrize(
    ("operator", "producer", "said", "unsaid"),
    [
        ("Sin", "pytorch", ["change it"], ["Ultralytics", "("]),
        ("NonMaxSuppression", "", ["nms=False", "MMDetection", "PaddleDetection"], []),
        ("NonMaxSuppression", "pytorch", ["nms=False", "MMDetection"], ["PaddleDetection"]),
        ("NonMaxSuppression", "p2o.paddle", ["PaddleDetection"], ["MMDetection", "format="]),
        ("Loop", "pytorch", ["model.eval()"], ["paddle"]),
        ("ConvInteger", "pytorch", ["before quantisation"], ["Paddle"]),
        ("mmdeploy.TRTBatchedNMS", "pytorch", ["MMDeploy"], ["Paddle"]),
        ("acme.Magic", "pytorch", ["opset 17"], ["nms=False"]),
    ],
)
def test_frameworks_are_named(
    operator: str, producer: str, said: list[str], unsaid: list[str]
) -> None:
    fix = advised(_block(operator), producer).fix
    assert fix.startswith("change it")
    for text in said:
        assert text in fix
    for text in unsaid:
        assert text not in fix
