"""``tvmdet``: the verbs, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import typer

import tvmdet
from tvmdet.cli import output
from tvmdet.cli.bench import bench
from tvmdet.cli.compile import compile_
from tvmdet.cli.detect import detect
from tvmdet.cli.doctor import doctor
from tvmdet.cli.eval import eval_
from tvmdet.cli.inspect import inspect
from tvmdet.cli.report import report
from tvmdet.cli.targets import targets
from tvmdet.cli.together import CheckedCommand
from tvmdet.cli.tune import tune
from tvmdet.cli.verify import verify
from tvmdet.errors import TvmdetError

__all__ = ["main"]

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells count

# What every wrong option or argument is; typer exports only this subclass of it.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    help="An ONNX object detector becomes one compiled file that finds objects.",
    epilog="Start with: tvmdet doctor MODEL.onnx",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(asked: bool) -> None:
    if asked:
        output.stdout().print(f"tvmdet {tvmdet.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(WRONG_USAGE)


for _name, _verb in (
    ("doctor", doctor),
    ("tune", tune),
    ("compile", compile_),
    ("inspect", inspect),
    ("detect", detect),
    ("eval", eval_),
    ("bench", bench),
    ("report", report),
    ("verify", verify),
    ("targets", targets),
):
    app.command(_name, cls=CheckedCommand)(_verb)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line.

    Args:
        arguments: What follows ``tvmdet``; by default the process's own.

    Returns:
        The exit code: 0, 1 when the check or the work failed, 2 for wrong usage, 130 after
        Ctrl-C.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    with _interrupts() as interrupted:
        return _with_errors_said(given, interrupted)


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """Yields what is set when Ctrl-C was pressed.

    Native code that calls Python turns the KeyboardInterrupt of such a call into an error of its
    own, which says nothing.
    """
    pressed = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield pressed
        return

    def note(number: int, frame: FrameType | None) -> None:
        pressed.set()
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _with_errors_said(given: list[str], interrupted: threading.Event) -> int:
    debug = "--debug" in given
    try:
        with output.shown_log(debug=debug):
            code = _run(given)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has seen enough. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt as interrupt:
        _show_traceback(debug)
        output.error(str(interrupt) or "interrupted")
        return INTERRUPTED
    except Exception as error:
        _show_traceback(debug)
        if interrupted.is_set():
            output.error("interrupted")
            return INTERRUPTED
        if isinstance(error, TvmdetError):
            output.error(str(error))
            return FAILED
        text = " ".join(f"{type(error).__name__}: {error}".split())
        output.error(f"{text}\nThis was not foreseen; run again with --debug for the traceback")
        return FAILED
    return code


def _run(arguments: list[str]) -> int:
    """Parses and runs, without typer's own handling of exceptions."""
    command = typer.main.get_command(app)
    context = None
    try:
        with command.make_context("tvmdet", arguments) as context:
            return int(command.invoke(context) or 0)
    except typer.Exit as stop:
        return stop.exit_code
    except _UsageError as error:
        where = getattr(error, "ctx", None) or context
        verb = where.command_path if where is not None else "tvmdet"
        if verb == "tvmdet" and arguments and arguments[0] in getattr(command, "commands", {}):
            verb = f"tvmdet {arguments[0]}"
        message = error.format_message()  # type: ignore[attr-defined]
        output.error(f"{message}\nTry: {verb} --help")
        return WRONG_USAGE


def _show_traceback(debug: bool) -> None:
    if debug:
        traceback.print_exc()
