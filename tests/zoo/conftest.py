"""Exports what the selected tests of the zoo need, a network at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cases import Case
from environment import committed, export_all, exported


@pytest.fixture(scope="session")
def export(request: pytest.FixtureRequest) -> Callable[[Case], Path]:
    """Gives the file of a case; those of all selected cases of a network are exported together."""
    cases = [case for item in request.session.items if (case := _case_of(item)) is not None]

    def file_of(case: Case) -> Path:
        if case.default == "whole":
            return committed(case)
        export_all([one for one in cases if one.network == case.network and one.default != "whole"])
        return exported(case)

    return file_of


def _case_of(item: pytest.Item) -> Case | None:
    given = item.callspec.params.get("case") if hasattr(item, "callspec") else None
    return given if isinstance(given, Case) else None  # other tests have a "case" of their own
