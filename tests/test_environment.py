"""The environment that README.md tells to make has what the commands in it need."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NEEDED = {"tune": "tune-cpu", "eval": "eval", "report": "report"}
"""The extra of each verb that does not run without one."""


def installed_by(script: str, folder: Path) -> set[str]:
    """Returns the extras that a script's ``make_environment`` asks pip for, without pip."""
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    text = (ROOT / "scripts" / script).read_text(encoding="utf-8")
    call = re.search(r"^make_environment .*", text, re.MULTILINE)
    assert call is not None
    asked = f'root={folder}; . {ROOT}/scripts/environment.sh; _pip() {{ echo "$*"; }}; {call[0]}'
    done = subprocess.run(["bash", "-euc", asked], capture_output=True, text=True, check=True)
    (extras,) = re.findall(rf"--editable {re.escape(str(folder))}\[(.*)\]", done.stdout)
    return set(extras.split(","))


@pytest.mark.parametrize("script", ["demo", "test"])
def test_every_verb_of_the_readme_runs_in_it(script: str, tmp_path: Path) -> None:
    extras = installed_by(script, tmp_path)
    assert set(NEEDED.values()) <= extras
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert extras <= set(config["options.extras_require"])


def test_the_readme_names_the_extra_of_each_verb() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for verb, extra in NEEDED.items():
        assert re.search(rf"^tvmdet {verb} ", text, re.MULTILINE)
        assert re.search(rf"^pip install '\.\[{extra}\]' ", text, re.MULTILINE)
