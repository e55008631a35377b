"""Which options of a verb exclude or need each other; what is typed in vain is refused.

An option that nobody reads is worse than one that is refused: who wrote it believes that it counts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import typer
from typer.core import TyperCommand

from tvmdet.cli.json_output import fill_in_stdout

__all__ = ["RULES", "CheckedCommand", "Excludes", "Needs"]


@dataclass(frozen=True, kw_only=True)
class Excludes:
    """One option that leaves others without a meaning.

    Attributes:
        option: As it is typed; an argument by its name in the help.
        others: The same of those that it excludes.
        why: In a few words, after a colon.
    """

    option: str
    others: tuple[str, ...]
    why: str

    def broken(self, given: Collection[str]) -> str:
        """Says what is wrong with the options that were typed; empty when nothing is."""
        named = [other for other in self.others if other in given]
        if self.option not in given or not named:
            return ""
        return (
            f"{self.option} and {' and '.join(named)} exclude each other: {self.why}; leave out "
            "the one or the other"
        )


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Options that have no meaning without another.

    Attributes:
        options: As they are typed.
        needed: The same of the other.
        why: In a few words, after a colon.
    """

    options: tuple[str, ...]
    needed: str
    why: str

    def broken(self, given: Collection[str]) -> str:
        """Says what is wrong with the options that were typed; empty when nothing is."""
        named = [option for option in self.options if option in given]
        if not named or self.needed in given:
            return ""
        verb = "needs" if len(named) == 1 else "need"
        return (
            f"{' and '.join(named)} {verb} {self.needed}: {self.why}; give {self.needed} too, or "
            f"leave out {' and '.join(named)}"
        )


_KEY: Final = Needs(options=("--key",), needed="--rpc", why="it is that of a board's server")
_ROUNDS: Final = Excludes(
    option="--rounds", others=("--duration",), why="each says how long a table is measured"
)
_OF_A_FILE: Final = (
    *("--onnx", "--against", "--batch", "--precision", "--rounds", "--duration", "--picture"),
    *("--per-layer", "--target", "--rpc", "--key", "--logs", "--tolerance", "--threads", "--eval"),
    *("--price", "--json"),
)
_OF_A_MODEL: Final = (
    *("MODEL.onnx", "--target", "--budget", "--batch", "--size", "--spec", "--raw", "--threads"),
    *("--precision", "--rpc", "--key", "--cost-model", "--timeout", "--plan", "--candidates"),
)

RULES: Final[Mapping[str, tuple[Excludes | Needs, ...]]] = {
    "doctor": (
        Needs(options=("--budget",), needed="--shrink", why="it is how long that may search"),
    ),
    "tune": (
        Excludes(option="--collect", others=_OF_A_MODEL, why="the plan says what was measured"),
        Excludes(
            option="--plan",
            others=("--budget", "--threads", "--rpc", "--key", "--cost-model"),
            why="a plan is measured elsewhere, by its measure.py",
        ),
        Needs(options=("--candidates",), needed="--plan", why="it is how many a plan holds"),
        _KEY,
    ),
    "compile": (
        Needs(options=("--tolerance",), needed="--raw", why="it is for raw outputs"),
        Excludes(option="--images", others=("--raw",), why="a raw network takes arrays"),
    ),
    "eval": (
        Needs(options=("--max-drop",), needed="--onnx", why="it is the distance from its AP"),
    ),
    "bench": (
        Needs(options=_OF_A_FILE, needed="FILE.tvmdet", why="there is nothing to measure"),
        Needs(options=("--precision",), needed="--against", why="it is what rivals compute in"),
        Needs(
            options=("--logs", "--tolerance"),
            needed="--onnx",
            why="the network alone is compiled from it, and compared",
        ),
        _ROUNDS,
        _KEY,
    ),
    "report": (
        Needs(options=("--fail",), needed="--baseline", why="it is what regressions are told by"),
    ),
    "verify": (
        Needs(options=("--sees",), needed="--strict", why="it is what a strict run must find"),
        _ROUNDS,
        _KEY,
    ),
    "targets": (
        Needs(options=("--logs",), needed="NAME", why="records are counted of one target"),
    ),
}
"""By verb; in the order in which they are looked at."""


class CheckedCommand(TyperCommand):
    """A verb that refuses options which exclude or need each other before it runs.

    ``--json`` may stand alone, or be followed by a file: :mod:`tvmdet.cli.json_output`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Reads the words of a command line; ``--json`` may stand alone."""
        return list(super().parse_args(ctx, fill_in_stdout(args)))

    def invoke(self, ctx: Any) -> Any:
        """Checks what was typed, then runs the verb.

        Raises:
            BadParameter: A rule is broken.
        """
        given = {
            _shown(parameter)
            for parameter in self.params
            if (source := ctx.get_parameter_source(parameter.name)) is not None
            and source.name == "COMMANDLINE"
        }
        for rule in RULES.get(self.name or "", ()):
            if wrong := rule.broken(given):
                raise typer.BadParameter(wrong, ctx=ctx)
        return super().invoke(ctx)


def _shown(parameter: Any) -> str:
    """Returns an option as it is typed, in its longest form; an argument as the help names it."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar)
    return str(max(parameter.opts, key=len))
