"""Accuracy beside speed: what ``tvmdet eval --json`` found of the file that is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tvmdet.errors import InputError
from tvmdet.report.result_subject import Accuracy
from tvmdet.report.subject import sha256_of
from tvmdet.report.typed_json import Mismatch, from_json

__all__ = ["read_accuracy"]

_AGAIN = "give --eval a file that `tvmdet eval FILE.tvmdet --json` wrote"


def read_accuracy(path: Path, artifact: Path, target: str) -> Accuracy:
    """Reads an evaluation.

    Args:
        path: What ``tvmdet eval --json`` wrote.
        artifact: The compiled file that is measured: it must be the one that was evaluated, since
            another precision of the same model has another accuracy.
        target: Whose code is measured; likewise.

    Raises:
        InputError: The file cannot be read, is no evaluation, or is one of another file or target.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; {_AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}); {_AGAIN}") from error
    try:
        found = _accuracy(path, value)
        digest = value["file_sha256"]
    except Mismatch as error:
        raise InputError(f"{path} is no evaluation: {error}; {_AGAIN}") from error
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is no evaluation ({error!r}); {_AGAIN}") from error
    measured = sha256_of(artifact)
    if digest != measured:
        raise InputError(
            f"{path} is of another compiled file: of {value['file']}, SHA-256 {digest}; that of "
            f"{artifact} is {measured}. Evaluate this one: tvmdet eval {artifact} --json"
        )
    if found.target != target:
        raise InputError(
            f"{path} is of {found.target}, and {target} is measured: tvmdet eval {artifact} "
            f"--target {target} --json"
        )
    return found


def _accuracy(path: Path, value: Any) -> Accuracy:
    boxes, masks, reference = value["boxes"], value["masks"], value["reference"]
    given = {
        "file": str(path),
        "images": value["images"],
        "ap": boxes["ap"],
        "ap50": boxes["ap50"],
        "mask_ap": None if masks is None else masks["ap"],
        "reference_ap": None if reference is None else reference["boxes"]["ap"],
        "target": value["target"],
    }
    return from_json(Accuracy, given)
