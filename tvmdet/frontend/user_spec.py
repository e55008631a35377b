"""The user's part of a spec: a TOML or JSON file, a mapping, or a whole DetectorSpec."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tvmdet.errors import InputError
from tvmdet.frontend.label_files import LABEL_SUFFIXES, read_labels
from tvmdet.frontend.sidecar import (
    Sidecar,
    find_sidecar,
    merge_given,
    read_json_spec,
    read_yaml_spec,
)
from tvmdet.spec import DetectorSpec

__all__ = ["read_given", "read_spec"]

_OPTIONAL_TABLES = ("masks", "keypoints")
_TABLES = ("input", "postprocess", "options", "masks", "keypoints")
_LISTS = {
    "labels": "a list of class names, or the path of a file of them",
    "outputs": "a list of the outputs to keep",
}
_KEYS = ("family", "oriented", *_LISTS, *_TABLES)


def read_given(
    model_path: Path, spec: str | Path | Mapping[str, Any] | DetectorSpec | None
) -> Sidecar:
    """Returns everything that is said about a model besides its graph.

    Args:
        model_path: The ONNX file, whose folder may hold sidecar files.
        spec: What the user gives, which wins: as for :func:`read_spec`, or the path of a JSON
            file: a spec, class names, or one of MMDeploy's or Hugging Face's configurations; or
            PaddleDetection's infer_cfg.yml.

    Returns:
        Both merged, and in ``reasons`` what came from which file.

    Raises:
        InputError: A file cannot be read or a value is malformed.
    """
    beside = find_sidecar(model_path)
    given = {}
    if beside.files:
        given = _check(dict(beside.given), ", ".join(beside.files), model_path.parent)
    path = Path(spec) if isinstance(spec, str | Path) else None
    named = None if path is None else _read_config(path)
    if path is None or named is None:
        merged = merge_given(given, read_spec(spec))
        return replace(beside, given=merged, with_spec=spec is not None)
    return Sidecar(
        given=merge_given(given, _check(dict(named.given), str(path), path.parent)),
        size_hw=named.size_hw or beside.size_hw,
        hints={**beside.hints, **named.hints},
        files=beside.files,
        reasons=beside.reasons + named.reasons,
        with_spec=True,
    )


def _read_config(path: Path) -> Sidecar | None:
    """Returns what a JSON file or a framework's YAML file says; None for a file of another kind."""
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return read_yaml_spec(path)
    return read_json_spec(path) if suffix == ".json" else None


def read_spec(spec: str | Path | Mapping[str, Any] | DetectorSpec | None) -> dict[str, Any]:
    """Returns the keys that the user gives, as plain values.

    Args:
        spec: Path of a TOML file, or of one with class names (:mod:`tvmdet.frontend.label_files`);
            a mapping of the same form, a whole spec, or None.

    Raises:
        InputError: The file cannot be read, is neither TOML nor class names, or holds unknown
            keys or values of the wrong kind.
    """
    if spec is None:
        return {}
    if isinstance(spec, DetectorSpec):
        return _check(spec.to_dict(), "the spec")
    if isinstance(spec, str | Path):
        path = Path(spec)
        if path.suffix.lower() in LABEL_SUFFIXES:
            return {"labels": read_labels(path)}
        return _check(_read_toml(path), str(spec), path.parent)
    if isinstance(spec, Mapping):
        return _check(dict(spec), "the spec")
    raise InputError(
        f"spec is a {type(spec).__name__}; "
        "give the path of a TOML file, a mapping or a DetectorSpec"
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise InputError(
            f"spec file {path} cannot be read: {error.strerror}; give a TOML file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"spec file {path} is not TOML: {error}") from error


def _check(given: dict[str, Any], where: str, folder: Path | None = None) -> dict[str, Any]:
    """Refuses what is malformed; reads the class names of a file, which is sought in a folder."""
    if isinstance(given.get("labels"), str):
        given["labels"] = read_labels((folder or Path()) / given["labels"])
    for key in _OPTIONAL_TABLES:
        if key in given and given[key] is None:
            # A whole spec of a detector without them, as to_dict writes it; nothing said is no key.
            given[key] = False
    for key, value in given.items():
        if key not in _KEYS:
            raise InputError(f"{where} has an unknown key {key!r}; allowed: {', '.join(_KEYS)}")
        if key in _OPTIONAL_TABLES and value is False:
            continue
        if key in _TABLES and not isinstance(value, Mapping):
            raise InputError(f"{where}: {key} is {value!r}; give a table of values")
    if type(given.get("oriented", False)) is not bool:
        raise InputError(f"{where}: oriented is {given['oriented']!r}; give true or false")
    for key, what in _LISTS.items():
        names = given.get(key, [])
        listed = isinstance(names, list | tuple)
        if not listed or not all(isinstance(name, str) and name.strip() for name in names):
            raise InputError(f"{where}: {key} is {names!r}; give {what}")
    size = given.get("input", {}).get("size_hw")
    if size is not None and not (
        isinstance(size, list | tuple) and [type(side) for side in size] == [int, int]
    ):
        raise InputError(f"{where}: input.size_hw is {size!r}; give [height, width] in pixels")
    return given
