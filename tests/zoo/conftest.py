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
    calls = [item.callspec for item in request.session.items if hasattr(item, "callspec")]
    given = [call.params.get("case") for call in calls]  # other tests have a "case" of their own
    export_all([case for case in given if isinstance(case, Case) and not case.committed])
    return exported
