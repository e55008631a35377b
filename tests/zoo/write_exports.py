"""Writes the committed exports again, into ``exports/``. It needs the zoo's environment.

Usage: write_exports.py
"""

from __future__ import annotations

from cases import CASES
from environment import export_all, exported

LARGEST = 120 * 1024  # bytes: they are in the repository for ever


def main() -> None:
    """Exports the cases of the default run."""
    cases = [case for case in CASES if case.committed]
    for case in cases:
        for suffix in (".onnx", ".npz", ".error"):
            exported(case).with_suffix(suffix).unlink(missing_ok=True)
    export_all(cases)
    for case in cases:
        size = exported(case).stat().st_size
        print(f"{case.name}: {size} bytes")
        if size > LARGEST:
            raise SystemExit(f"{case.name} is too large to commit")
        if case.default == "import":
            exported(case).with_suffix(".npz").unlink()


if __name__ == "__main__":
    main()
