"""Where a rival is installed, and how it gets there.

Rivals want versions of numpy, protobuf or onnx that clash with each other's and with tvmdet's, so
each may have an environment of its own, ``<folder>/<rival>``. One that is importable beside tvmdet
can be used as it is. Nothing is installed unless it is asked for.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tvmdet.errors import InputError
from tvmdet.report.rivals import Rival

__all__ = ["environment_variables", "find_python", "install", "rivals_folder"]

_VARIABLE = "TVMDET_RIVALS"
_PYTHON = Path("bin", "python")


def rivals_folder() -> Path:
    """Returns the folder of the rivals' environments.

    It is ``$TVMDET_RIVALS``, else ``$XDG_CACHE_HOME/tvmdet/rivals``, else
    ``~/.cache/tvmdet/rivals``.
    """
    given = os.environ.get(_VARIABLE)
    if given:
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "tvmdet" / "rivals"


def find_python(rival: Rival, folder: Path | None = None) -> Path:
    """Returns the interpreter that has a rival: its own environment's, else this one.

    Args:
        rival: The rival.
        folder: Of the environments; the usual one by default.

    Raises:
        InputError: It is not installed; the message names the command that installs it.
    """
    own = (folder or rivals_folder()) / rival.group
    if (own / _PYTHON).exists() and any(own.glob(f"lib/python*/site-packages/{rival.module}")):
        return own / _PYTHON
    # find_spec() of a top-level package finds it without importing it.
    if not rival.bare_requirements and importlib.util.find_spec(rival.module) is not None:
        return Path(sys.executable)
    raise InputError(
        f"{rival.group} is not installed (looked in {own} and beside tvmdet); install it into an "
        f"environment of its own with: tvmdet bench --install {rival.group}"
    )


def environment_variables(python: Path) -> dict[str, str]:
    """Returns the variables of a process with that interpreter."""
    kept = dict(os.environ)
    if python != Path(sys.executable):
        # Packages that were put in the way of tvmdet's interpreter are not for this one.
        kept.pop("PYTHONPATH", None)
        kept.pop("PYTHONHOME", None)
    return kept


def install(
    rivals: Sequence[Rival],
    folder: Path | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> list[Path]:
    """Makes an environment for each rival, or brings it to the newest releases.

    Args:
        rivals: The rivals; modes of one share an environment.
        folder: Of the environments; the usual one by default.
        say: Called with one line at the start of each step.

    Returns:
        The environments.

    Raises:
        InputError: One cannot be installed.
    """
    folder = folder or rivals_folder()
    made = []
    for rival in {rival.group: rival for rival in rivals}.values():
        place = folder / rival.group
        say(f"installing {' '.join(rival.requirements + rival.bare_requirements)} in {place}")
        if not (place / _PYTHON).exists():
            _call(rival, [sys.executable, "-m", "venv", str(place)])
        pip = [str(place / _PYTHON), "-m", "pip", "--disable-pip-version-check", "install"]
        _call(rival, [*pip, "--upgrade", *rival.requirements])
        if rival.bare_requirements:
            _call(rival, [*pip, "--upgrade", "--no-deps", *rival.bare_requirements])
        made.append(place)
    return made


def _call(rival: Rival, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise InputError(
            f"{rival.group} cannot be installed: {lines[-1] if lines else 'no reason given'}; "
            f"the command was: {' '.join(command)}"
        )
