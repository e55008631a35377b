"""Writes the committed exports again, into ``exports/``. It needs the zoo's environment.

Usage: write_exports.py
"""

from __future__ import annotations

import shutil

from cases import CASES
from environment import committed, export_all, exported

LARGEST = 120 * 1024  # bytes: they are in the repository for ever


def main() -> None:
    """Exports the cases of the default run."""
    cases = [case for case in CASES if case.committed]
    export_all(cases)
    for case in cases:
        path = committed(case)
        shutil.copyfile(exported(case), path)
        if case.default == "whole":
            shutil.copyfile(exported(case).with_suffix(".npz"), path.with_suffix(".npz"))
        size = path.stat().st_size
        print(f"{case.name}: {size} bytes")
        if size > LARGEST:
            raise SystemExit(f"{case.name} is too large to commit")


if __name__ == "__main__":
    main()
