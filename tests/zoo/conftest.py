"""Exports what the selected tests of the zoo need, before the first of them runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cases import Case
from environment import export_all, exported


@pytest.fixture(scope="session")
def export(request: pytest.FixtureRequest) -> Callable[[Case], Path]:
    """Gives the file of a case; those of all selected tests are exported together."""
    items = [item for item in request.session.items if "case" in getattr(item, "fixturenames", ())]
    cases = [item.callspec.params["case"] for item in items]  # type: ignore[attr-defined]
    export_all([case for case in cases if not case.committed])
    return exported
