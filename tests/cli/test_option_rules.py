"""Options that exclude or need each other, of every verb."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import typer

from tvmdet.cli.app import app
from tvmdet.cli.together import RULES, Excludes, Needs

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]

# What else a verb must be given, and a value for each option that takes one.
LEAST = {
    "doctor": ["x.onnx"],
    "tune": [],
    "compile": ["x.onnx"],
    "eval": ["x.tvmdet", "--annotations", "a.json", "--images", "d"],
    "bench": [],
    "report": ["-o", "r.md"],
    "verify": ["r.json"],
    "targets": [],
}
VALUES = {
    "--batch": "1",
    "--budget": "5m",
    "--candidates": "4",
    "--cost-model": "static",
    "--duration": "5s",
    "--json": "x.json",
    "--max-drop": "0.1",
    "--precision": "fp32",
    "--price": "1",
    "--rounds": "9",
    "--sees": "5%",
    "--rpc": "127.0.0.1:1",
    "--size": "32x32",
    "--threads": "1",
    "--timeout": "5m",
    "--tolerance": "0.1",
}
FLAGS = {"--raw", "--per-layer", "--fail"}
ARGUMENTS = {"MODEL.onnx": "x.onnx", "FILE.tvmdet": "x.tvmdet", "NAME": "x86-64-v3"}


def typed(name: str) -> list[str]:
    if name in ARGUMENTS:
        return [ARGUMENTS[name]]
    return [name] if name in FLAGS else [name, VALUES.get(name, "x")]


def pairs() -> list[tuple[str, str, str, str]]:
    """Every pair of the table: the verb, two options, and what is said of them."""
    found = []
    for verb, rules in RULES.items():
        for rule in rules:
            if isinstance(rule, Excludes):
                says = f"{rule.option} and {{}} exclude each other: {rule.why}"
                found += [(verb, rule.option, other, says.format(other)) for other in rule.others]
            else:
                says = f"{{}} needs {rule.needed}: {rule.why}"
                found += [(verb, option, "", says.format(option)) for option in rule.options]
    return found


@pytest.mark.parametrize(("verb", "one", "other", "says"), pairs())
def test_what_is_typed_in_vain_is_refused(
    run: Callable, verb: str, one: str, other: str, says: str
) -> None:
    words = LEAST[verb] + typed(one) + (typed(other) if other else [])
    if verb == "bench" and "FILE.tvmdet" not in says:
        words.append("x.tvmdet")
    done = run(verb, *words)
    assert (done.code, done.out) == (2, "")
    assert says in done.error
    assert f"Try: tvmdet {verb} --help" in done.error


def test_the_table_names_options_that_there_are() -> None:
    assert set(RULES) <= set(COMMANDS)
    for verb, rules in RULES.items():
        command = COMMANDS[verb]
        known = {name for parameter in command.params for name in parameter.opts}
        known |= {str(parameter.metavar) for parameter in command.params}
        for rule in rules:
            names = (rule.option, *rule.others) if isinstance(rule, Excludes) else ()
            names += (*rule.options, rule.needed) if isinstance(rule, Needs) else ()
            assert set(names) <= known


@pytest.mark.parametrize(
    ("verb", "words", "says"),
    [
        ("doctor", ["missing.onnx", "--shrink", "p.onnx", "--budget", "5s"], "missing.onnx"),
        ("tune", ["missing.onnx", "--plan", "p", "--candidates", "4"], "missing.onnx"),
        ("tune", ["--collect", "nowhere", "--logs", "l"], "nowhere"),
        ("compile", ["missing.onnx", "--raw", "--tolerance", "0.1"], "missing.onnx"),
        ("bench", ["missing.tvmdet", "--rounds", "9", "--batch", "1"], "missing.tvmdet"),
        ("verify", ["missing.json", "--duration", "9s"], "missing.json"),
    ],
)
def test_what_goes_together_is_let_through(
    run: Callable, verb: str, words: list[str], says: str
) -> None:
    done = run(verb, *words)
    assert done.code == 1
    assert says in done.out + done.err


def test_defaults_are_not_what_was_typed(run: Callable) -> None:
    # --cost-model, --budget and --candidates have defaults, which --collect leaves unread.
    assert "exclude" not in run("tune", "--collect", "nowhere").err
