"""What is said where several families claim a network."""

from __future__ import annotations

import re
import tomllib

import pytest

from tvmdet.errors import ModelError
from tvmdet.frontend.recognise import recognise
from tvmdet.heads import GraphSummary, TensorSummary


def test_several_claims_come_with_the_lines_that_choose() -> None:
    # Told which map is which, it may be a CenterNet with landmarks, or a CenterFace.
    channels = {"a": 1, "b": 2, "c": 2, "d": 10}
    summary = GraphSummary(
        inputs={"images": TensorSummary(shape=(1, 3, 64, 96), dtype="float32")},
        outputs={
            name: TensorSummary(shape=(1, count, 16, 24), dtype="float32")
            for name, count in channels.items()
        },
        output_sources=dict.fromkeys(channels, frozenset({"Conv"})),
    )
    options = {"heatmap_output": "a", "size_output": "b", "offset_output": "c"}
    with pytest.raises(ModelError, match="several detector families claim") as caught:
        recognise(summary, (64, 96), {"options": options})
    texts = re.findall(r'^  (family = "\w+")$', str(caught.value), re.MULTILINE)
    assert texts == ['family = "centerface"', 'family = "centernet"']
    for text in texts:
        told = tomllib.loads(text)
        assert recognise(summary, (64, 96), {"options": options, **told}).family == told["family"]
