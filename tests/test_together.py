"""Which tests stay in one process."""

from __future__ import annotations

import pytest
from together import shared_scope


@pytest.mark.parametrize(
    ("nodeid", "scope"),
    [
        ("tests/test_spec.py::test_one", "tests/test_spec.py"),
        ("tests/end_to_end/test_cli.py::test_one[a::b]", "tests/end_to_end"),
        ("tests/zoo/test_zoo.py::test_case[rf_detr-dynamo18]", "tests/zoo/test_zoo.py rf_detr"),
        ("tests/zoo/test_zoo.py::test_committed[rf_detr-dynamo18]", "tests/zoo/test_zoo.py"),
        ("test_alone.py::test_one", "test_alone.py"),
    ],
)
def test_scope(nodeid: str, scope: str) -> None:
    assert shared_scope(nodeid) == scope
