"""What README.md and docs/ say of the command line is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = sorted(
    {
        line.split("#")[0].strip()
        for page in PAGES
        for block in page.read_text(encoding="utf-8").split("```")[1::2]
        for line in block.splitlines()
        if line.startswith("tvmdet ")
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_have_known_verbs_and_options(run: Callable, command: str) -> None:
    _, verb, *words = shlex.split(command)
    known = run(verb, "--help")
    assert known.code == 0
    for word in words:
        if word.startswith("-"):
            assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", known.out), word


def test_every_verb_is_in_the_readme() -> None:
    verbs = {command.split()[1] for command in COMMANDS}
    assert verbs == {
        "bench",
        "compile",
        "detect",
        "doctor",
        "eval",
        "inspect",
        "report",
        "targets",
        "tune",
        "verify",
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert link.startswith("https://") or (page.parent / link).exists(), link


def test_spec_page_names_every_key() -> None:
    import dataclasses

    from tvmdet.spec import DetectorSpec, InputSpec, MaskSpec, PostprocessSpec

    text = (ROOT / "docs" / "spec.md").read_text(encoding="utf-8")
    for cls in (DetectorSpec, InputSpec, MaskSpec, PostprocessSpec):
        for field in dataclasses.fields(cls):
            assert f"`{field.name}`" in text or f"`[{field.name}]`" in text, field.name


def test_benchmarking_page_names_every_key_of_a_result() -> None:
    import dataclasses

    from tvmdet.report.result_format import Result
    from tvmdet.report.result_tables import Load

    text = (ROOT / "docs" / "benchmarking.md").read_text(encoding="utf-8")
    for cls in (Result, Load):
        for field in dataclasses.fields(cls):
            assert f"`{field.name}`" in text, field.name
