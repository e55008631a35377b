"""Options that several verbs share, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tvmdet.board.session import BoardAddress
    from tvmdet.targets import Target

__all__ = [
    "Batch",
    "Board",
    "BoardKey",
    "Debug",
    "Logs",
    "OnnxFile",
    "Precision",
    "Rounds",
    "Size",
    "Spec",
    "Threads",
    "Timeout",
    "ToleranceShare",
    "check_own_target",
    "given_again",
    "parse_batch",
    "parse_board",
    "parse_duration",
    "parse_names",
    "parse_share",
    "parse_size",
    "target_again",
]

Board = Annotated[
    str | None,
    typer.Option(
        "--rpc",
        metavar="HOST:PORT",
        help="Measure on the board that serves there; tracker://HOST:PORT asks a tracker for one.",
    ),
]
BoardKey = Annotated[
    str,
    typer.Option(
        "--key",
        metavar="K",
        help="Of the board's server, with --rpc; with a tracker, of the boards.",
    ),
]
OnnxFile = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The detector.")]
Batch = Annotated[
    str, typer.Option("--batch", metavar="N[,N...]", help="Batch sizes to specialise for.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Logs = Annotated[
    Path | None,
    typer.Option(
        "--logs",
        metavar="DIR",
        help="Folder of tuning records, beside those that come with tvmdet.",
        file_okay=False,
    ),
]
Rounds = Annotated[
    int | None,
    typer.Option(
        "--rounds", min=1, max=100_000, metavar="N", help="Timed calls of each, not a time."
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="P",
        help="fp32, or what layers may round factors to: bf16 on x86, fp16 on ARM and GPUs, tf32.",
    ),
]
Precisions = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="P|T=P[,T=P...]",
        help="fp32, or what layers may round factors to: bf16 on x86, fp16 on ARM and GPUs, tf32; "
        "of several targets by target, such as sm_90=fp16,cortex-a76=fp16, the others in fp32.",
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="HxW",
        help="Input height x width in pixels, for an export that leaves it open; 640 is 640x640.",
    ),
]
Spec = Annotated[
    Path | None,
    typer.Option(
        "--spec",
        metavar="FILE.toml",
        help="What the detector is, over what is recognised; or its class names: coco.names, "
        "labels.txt, data.yaml, a JSON list; or PaddleDetection's infer_cfg.yml.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        max=1024,
        metavar="N",
        help="Threads to compute with; by default every CPU that this process may use.",
    ),
]

ToleranceShare = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        min=0.0,
        metavar="SHARE",
        help="Greatest error of a raw output, as a share of its greatest value; "
        "by default 0.001, in bf16 0.05, in fp16 and tf32 0.01.",
    ),
]

Timeout = Annotated[
    str,
    typer.Option(
        "--timeout", metavar="TIME", help="Longest that reading the model may take: 90s, 30m, 1h."
    ),
]

_UNIT_S = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Reads ``480x640`` as height and width, and ``640`` as both."""
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,5})(?:[xX]([1-9]\d{0,5}))?", text.strip())
    if found is None:
        raise typer.BadParameter(
            f"{text!r} is no size; give height x width in pixels, such as 480x640, or 640 for both",
            param_hint="--size",
        )
    return int(found[1]), int(found[2] or found[1])


def given_again(
    *,
    batch: str = "1",
    size: str | None = None,
    spec: Path | None = None,
    raw: bool = False,
    precision: str = "fp32",
) -> list[str]:
    """Returns what of a model's options the next command must be given too."""
    return [
        *([] if batch == "1" else ["--batch", batch]),
        *([] if size is None else ["--size", size]),
        *([] if spec is None else ["--spec", str(spec)]),
        *(["--raw"] if raw else []),
        *(["--precision", precision] if precision != "fp32" else []),
    ]


def target_again(name: str, given: Sequence[str] = ()) -> str:
    """Returns what ``--target`` takes for a target, where its name alone would not do.

    Args:
        name: Of the target.
        given: What the user gave for this target and others: the path of a file is given again.
    """
    from tvmdet.targets import list_targets

    paths = {Path(one).stem: one for one in given if one.endswith(".toml")}
    known = any(target.name == name for target in list_targets())
    return paths.get(name, name if known else f"{name}.toml")


def check_own_target(target: Target) -> None:
    """Refuses a user's own target that LLVM and its file do not agree on.

    Raises:
        TargetError: As :func:`tvmdet.passes.check_target.check_target`.
    """
    if target.file:  # TVM's compiler is imported for these alone: it takes its time
        from tvmdet.passes.check_target import check_target

        check_target(target)


def parse_batch(text: str) -> tuple[int, ...]:
    """Reads ``1,4,8``."""
    words = [word.strip() for word in text.split(",")]
    if not all(re.fullmatch(r"[1-9]\d{0,3}", word) for word in words):
        raise typer.BadParameter(
            f"{text!r} is no list of batch sizes; give whole numbers from 1, such as 1,4",
            param_hint="--batch",
        )
    return tuple(sorted({int(word) for word in words}))


def parse_names(text: str) -> tuple[str, ...]:
    """Reads ``x86-64-v3,x86-64-v4``."""
    names = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    if not all(names):
        raise typer.BadParameter(
            f"{text!r} is no list of targets; give names as `tvmdet targets` lists them",
            param_hint="--target",
        )
    return names


def parse_precisions(text: str) -> str | dict[str, str]:
    """Reads ``fp16``, or ``sm_90=fp16,cortex-a76=fp16`` as the precision of each target."""
    if "=" not in text and "," not in text:
        return text
    found: dict[str, str] = {}
    for word in text.split(","):
        name, is_pair, value = (part.strip() for part in word.partition("="))
        if not (name and is_pair and value) or name in found:
            raise typer.BadParameter(
                f"{text!r} is no precision; give one for all targets, such as fp16, or one for "
                "each of some, such as sm_90=fp16,cortex-a76=fp16",
                param_hint="--precision",
            )
        found[name] = value
    return found


def parse_board(rpc: str | None, key: str) -> BoardAddress | None:
    """Returns the board to measure on, which must answer.

    Raises:
        InputError: ``rpc`` is no address.
        TargetError: No RPC server answers there.
    """
    if rpc is None:
        return None
    from tvmdet.board.session import BoardAddress

    board = BoardAddress.parse(rpc, key)
    board.check()
    return board


def parse_share(text: str, option: str) -> float:
    """Reads ``10%`` or ``0.1`` as a tenth."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(%?)", text.strip())
    share = float(found[1]) / (100.0 if found[2] else 1.0) if found else 0.0
    if not 0.0 < share <= 1.0:
        raise typer.BadParameter(
            f"{text!r} is no share of a time; give one above 0 and up to 100 %, such as 10% or 0.1",
            param_hint=option,
        )
    return share


def parse_duration(text: str, option: str = "--budget") -> float:
    """Reads ``90``, ``90s``, ``10m`` or ``1.5h`` as seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    seconds = float(found[1]) * _UNIT_S[found[2]] if found else 0.0
    if not seconds:
        raise typer.BadParameter(
            f"{text!r} is no time; give seconds, minutes or hours, such as 90s, 10m or 1h",
            param_hint=option,
        )
    return seconds
