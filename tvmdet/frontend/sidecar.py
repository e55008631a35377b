"""What lies beside a model and says what it is: a spec, MMDeploy's files, Hugging Face's, Paddle's.

Which files belong to ``folder/detector.onnx``:

- ``detector.toml``, a spec, always; ``spec.toml`` when the folder has no other ONNX file;
- MMDeploy's ``deploy.json`` when it names ``detector.onnx`` as a net, and then ``pipeline.json``
  and ``detail.json`` with it;
- Hugging Face's ``preprocessor_config.json`` and ``config.json`` when the model is called
  ``model*.onnx`` or is alone in the folder; for a folder called ``onnx`` those of its parent too;
- PaddleDetection's ``infer_cfg.yml``, or else ``inference.yml``, when the model is called
  ``model*.onnx`` or ``inference*.onnx`` or is alone in the folder.

What a user gives wins over a spec file, a spec file over the others, and all over the graph.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tvmdet.errors import InputError
from tvmdet.frontend.huggingface_files import read_huggingface
from tvmdet.frontend.label_files import names_in, read_labels
from tvmdet.frontend.mmdeploy_files import read_mmdeploy
from tvmdet.frontend.paddle_files import is_paddle, read_paddle

__all__ = ["Sidecar", "find_sidecar", "merge_given", "read_json_spec", "read_yaml_spec"]

_LARGEST = 4 * 1024 * 1024  # bytes; a configuration is thousands of times smaller
_MMDEPLOY = ("deploy.json", "pipeline.json", "detail.json")
_HUGGINGFACE = ("preprocessor_config.json", "config.json")
_PADDLE = ("infer_cfg.yml", "inference.yml")


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What files beside a model say.

    Attributes:
        given: Keys and tables as in a spec, without ``input.size_hw``.
        size_hw: Height and width, for an export that leaves them open.
        hints: Evidence for the heads, merged under the graph's metadata.
        files: The files that were read.
        reasons: What they said, one fact a line.
        with_spec: Whether the user gave a spec as well, which is merged into ``given``.
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    size_hw: tuple[int, int] | None = None
    hints: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    with_spec: bool = False

    @property
    def source(self) -> str:
        """Where ``given`` was read, for people: the files and the spec."""
        return " and ".join([*self.files, *(["the spec"] if self.with_spec else [])])


def find_sidecar(model_path: Path) -> Sidecar:
    """Reads the files beside a model that belong to it.

    Args:
        model_path: The ONNX file.

    Raises:
        InputError: A file that belongs to the model cannot be read or does not parse.
    """
    folder = model_path.parent
    found = Sidecar()
    for names, values in _belonging(model_path, folder):
        found = _merge(found, _interpret(values, names))
    for path in _spec_files(model_path, folder):
        found = _merge(found, Sidecar(given=_load_toml(path), files=(path.name,)))
    return found


def read_json_spec(path: Path) -> Sidecar:
    """Reads a JSON file that the user gives as the spec.

    Either a spec in JSON, class names, or any of MMDeploy's and Hugging Face's files.

    Raises:
        InputError: The file cannot be read, or is none of these.
    """
    values = _parse_json(path)
    if names_in(values) is not None:
        return Sidecar(given={"labels": read_labels(path)}, files=(path.name,))
    name = _kind(_table(path, values))
    if name:
        return _interpret({name: values}, (path.name,))
    return Sidecar(given=values, files=(path.name,))


def read_yaml_spec(path: Path) -> Sidecar | None:
    """Reads a YAML file that the user gives as the spec, where it is PaddleDetection's.

    Returns:
        What it says, or None for another file, which may hold class names.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        values = yaml.safe_load(_read(path))
    except (yaml.YAMLError, ValueError, RecursionError):
        return None  # who reads class names says what is wrong
    return _interpret({path.name: values}, (path.name,)) if is_paddle(values) else None


def merge_given(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns both, ``over`` winning; tables are merged key by key."""
    merged = dict(under)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            value = {**old, **value}
        merged[key] = value
    return merged


def _belonging(model_path: Path, folder: Path) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """Returns groups of files that belong to the model: names, and values by plain name."""
    groups = []
    deploy = _load_json(folder / _MMDEPLOY[0]) if (folder / _MMDEPLOY[0]).is_file() else {}
    nets = deploy.get("models")
    # For TensorRT the file names the engine that MMDeploy makes of the model.
    names = (model_path.name, f"{model_path.stem}.engine")
    if isinstance(nets, list) and any(
        isinstance(net, Mapping) and net.get("net") in names for net in nets
    ):
        present = [name for name in _MMDEPLOY if (folder / name).is_file()]
        groups.append((tuple(present), {name: _load_json(folder / name) for name in present}))
    if model_path.name.startswith("model") or _is_alone(folder):
        places = [folder.parent, folder] if folder.name == "onnx" else [folder]
        paths = [place / name for place in places for name in _HUGGINGFACE]
        values = {path.name: _load_json(path) for path in paths if path.is_file()}
        values = {name: value for name, value in values.items() if _kind(value) == name}
        if values:
            groups.append((tuple(values), values))
    paddle = [name for name in _PADDLE if (folder / name).is_file()]
    if paddle and (model_path.name.startswith(("model", "inference")) or _is_alone(folder)):
        parsed = _load_yaml(folder / paddle[0])
        if is_paddle(parsed):
            groups.append(((paddle[0],), {paddle[0]: parsed}))
    return groups


def _spec_files(model_path: Path, folder: Path) -> list[Path]:
    """Returns the spec files of a model, the one of its own name last."""
    found = [folder / "spec.toml"] if _is_alone(folder) else []
    found.append(model_path.with_suffix(".toml"))
    return [path for path in found if path.is_file()]


def _is_alone(folder: Path) -> bool:
    return len(list(folder.glob("*.onnx"))) == 1


def _interpret(values: Mapping[str, Any], names: tuple[str, ...]) -> Sidecar:
    """Returns what files of one framework say."""
    paddle = next((one for one in values.values() if is_paddle(one)), None)
    if paddle is not None:
        given, size_hw, hints, reasons = read_paddle(paddle)
    else:
        mmdeploy = any(name in _MMDEPLOY for name in values)
        given, size_hw, hints, reasons = (read_mmdeploy if mmdeploy else read_huggingface)(values)
    shown = ", ".join(names)
    return Sidecar(
        given=given,
        size_hw=size_hw,
        hints=hints,
        files=names,
        reasons=tuple(f"from {shown}: {reason}" for reason in reasons),
    )


def _kind(values: Mapping[str, Any]) -> str:
    """Returns the plain name of a JSON file by what it holds, or '' for a spec."""
    if "pipeline" in values:
        return "pipeline.json"
    if "models" in values:
        return "deploy.json"
    if "codebase_config" in values or "onnx_config" in values:
        return "detail.json"
    if "image_mean" in values or "image_processor_type" in values or "do_normalize" in values:
        return "preprocessor_config.json"
    return "config.json" if "id2label" in values or "model_type" in values else ""


def _merge(under: Sidecar, over: Sidecar) -> Sidecar:
    return Sidecar(
        given=merge_given(under.given, over.given),
        size_hw=over.size_hw or under.size_hw,
        hints={**under.hints, **over.hints},
        files=under.files + over.files,
        reasons=under.reasons + over.reasons,
    )


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _LARGEST:
        raise InputError(f"{path} is larger than {_LARGEST} bytes; it is no configuration")
    return data


def _load_json(path: Path) -> dict[str, Any]:
    return _table(path, _parse_json(path))


def _parse_json(path: Path) -> Any:
    try:
        return json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}; correct it, or move it away") from error


def _load_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(_read(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise InputError(f"{path} is not YAML: {problem}; correct it, or move it away") from error


def _table(path: Path, values: Any) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise InputError(f"{path} holds a {type(values).__name__}; allowed: a table of values")
    return values


def _load_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_read(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}, the spec beside the model, is not TOML: {error}; correct it, or move it away"
        ) from error
