"""The frontend as one list of steps: load, specialise, recognise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tvmdet.arguments import as_path, as_size_hw, check_flag, check_kind
from tvmdet.errors import InputError, ModelError, ShapeError
from tvmdet.frontend.bind_inputs import Bound, bind_inputs, find_picture
from tvmdet.frontend.converters import converter_map
from tvmdet.frontend.image_input import input_summaries
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.load import LoadedModel, load_onnx
from tvmdet.frontend.model import Model
from tvmdet.frontend.network import Network
from tvmdet.frontend.onnx_tools import graph_inputs, input_summary
from tvmdet.frontend.operators import find_blocks, refuse
from tvmdet.frontend.recognise import recognise
from tvmdet.frontend.sidecar import Sidecar
from tvmdet.frontend.specialise import image_axes
from tvmdet.frontend.summary import summarise
from tvmdet.frontend.user_spec import read_given
from tvmdet.heads.base import GraphSummary, Recognition
from tvmdet.heads.ultralytics import read_ultralytics
from tvmdet.spec import DetectorSpec, InputSpec

__all__ = ["choose_size", "import_onnx", "raw_recognition", "size_beside"]

_DEFAULT_LIMITS = Limits()
_RAW_DTYPES = ("float32", "float16", "uint8", "int8", "int32", "int64", "bool")


def import_onnx(
    path: str | Path,
    *,
    spec: str | Path | Mapping[str, Any] | DetectorSpec | None = None,
    size_hw: int | tuple[int, int] | None = None,
    raw: bool = False,
    limits: Limits | None = None,
) -> Model:
    """Reads an ONNX detector and recognises what it is.

    Args:
        path: The ONNX file; external data must lie in its folder.
        spec: What the user knows better, as a TOML or JSON file, a mapping or a DetectorSpec;
            merged over what is recognised and over what files beside the model say
            (:mod:`tvmdet.frontend.sidecar`). With a ``family`` no other family is asked.
        size_hw: Height and width in pixels for an export that leaves them open; one number is both.
        raw: Take the network as it is, without a head.
        limits: Bounds on what the file may ask for.

    Returns:
        The model. Nothing is compiled yet.

    Raises:
        ModelError: The file cannot be used, or no family (or several) claims the network.
        UnsupportedOperatorError: Nodes cannot be imported; all of them are named.
        ShapeError: An input's rank, type or size does not fit.
        InputError: ``spec``, ``size_hw`` or another argument is malformed.
    """
    path = as_path(path, "path")
    size_hw = None if size_hw is None else as_size_hw(size_hw)
    check_flag(raw, "raw")
    limits = _DEFAULT_LIMITS if limits is None else limits
    check_kind(limits, Limits, "limits", "a tvmdet.frontend.Limits, or None")
    beside = read_given(path, spec)
    given = beside.given
    loaded = load_onnx(path, limits, outputs=given.get("outputs", ()))
    raw = raw or given.get("family") == "raw"
    size_hw = size_hw or size_beside(loaded, beside)
    size_hw = choose_size(loaded, given, size_hw, raw=raw)
    bound = Bound(loaded=loaded, constants={}, reasons=())
    if not raw:
        assert size_hw is not None  # choose_size raises for images without a size
        bound = bind_inputs(loaded, size_hw, given)
    network = Network(bound.loaded, size_hw, limits)
    static = network.at(network.fixed_batch or 1)
    refuse(find_blocks(static.graph, converter_map()))
    summary = replace(
        summarise(static), constants=bound.constants, channels_last=bound.channels_last
    )
    summary = replace(summary, metadata={**beside.hints, **summary.metadata})
    if raw:
        found = raw_recognition(summary, given)
    else:
        assert size_hw is not None
        with _naming(beside):
            found = recognise(
                summary,
                size_hw,
                {**given, "input": _input(given, size_hw)},
                source=beside.source,
            )
        found = _with_constants(found, bound)
    return Model(
        name=loaded.name,
        sha256=loaded.sha256,
        spec=found.spec,
        recognition=(*found.reasons, *beside.reasons, *network.notes),
        input_names=tuple(summary.inputs),
        output_names=tuple(summary.outputs),
        network=network,
    )


@contextlib.contextmanager
def _naming(beside: Sidecar) -> Iterator[None]:
    """Adds to errors which files beside the model were read: what is wrong may be theirs."""
    try:
        yield
    except (ModelError, InputError) as error:
        if not beside.files:
            raise
        raise type(error)(
            f"{error}\n(read beside the model: {', '.join(beside.files)}; what it says counts as "
            "the spec's; move it away if it is not this model's)"
        ) from error


def size_beside(loaded: LoadedModel, beside: Sidecar) -> tuple[int, int] | None:
    """Returns the size that files beside a model give, where the export leaves it open.

    Inputs without a shape are left to what refuses them.
    """
    inputs = [input_summary(value) for value in graph_inputs(loaded.proto.graph)]
    shapes = [summary.shape for summary in inputs if summary is not None]
    is_open = any(None in shape[1:] for shape in shapes if len(shape) == 4)
    return None if beside.given.get("input", {}).get("size_hw") or not is_open else beside.size_hw


def choose_size(
    loaded: LoadedModel,
    given: Mapping[str, Any],
    size_hw: tuple[int, int] | None,
    *,
    raw: bool,
) -> tuple[int, int] | None:
    """Chooses the input's height and width.

    The first of these counts: ``size_hw``, the spec's ``input.size_hw``, the export's fixed
    size, the metadata key ``imgsz`` of Ultralytics exports.

    Returns:
        Height and width; None for a raw network that takes no image.

    Raises:
        InputError: ``size_hw`` is not two positive numbers.
        ModelError: None or several inputs can take a picture.
        ShapeError: The export leaves the size open and nothing gives one.
    """
    wanted = size_hw if size_hw is not None else given.get("input", {}).get("size_hw")
    if wanted is not None:
        return as_size_hw(wanted)
    if raw:
        images = [s for s in input_summaries(loaded.proto).values() if len(s.shape) == 4]
        if not images:
            return None
        value = images[0]
        height, width = (value.shape[axis] for axis in image_axes(value.shape))
    else:
        image = find_picture(loaded, given)
        value, (height, width) = image.value, image.size_hw
    metadata = {entry.key: entry.value for entry in loaded.proto.metadata_props}
    usual = read_ultralytics(metadata).size_hw
    if usual is not None and height in (None, usual[0]) and width in (None, usual[1]):
        return usual
    if height is None or width is None:
        raise ShapeError(
            f"the export leaves the input's size open ({value}) and its metadata give no "
            "'imgsz'; give --size HxW (size_hw=(640, 640) in Python)"
        )
    return height, width


def raw_recognition(summary: GraphSummary, given: Mapping[str, Any]) -> Recognition:
    """Returns the spec of a network without a head.

    Raises:
        ShapeError: An input or output has an element type that cannot be passed.
    """
    for name, value in (*summary.inputs.items(), *summary.outputs.items()):
        if value.dtype not in _RAW_DTYPES:
            raise ShapeError(
                f"{name!r} is {value}; allowed element types: {', '.join(_RAW_DTYPES)}"
            )
    images = [value.shape for value in summary.inputs.values() if len(value.shape) == 4]
    height, width = (images[0][axis] for axis in image_axes(images[0])) if images else (1, 1)
    spec = DetectorSpec(
        family="raw", labels=(), input=InputSpec(size_hw=(int(height or 1), int(width or 1)))
    )
    spec.override({**given, "family": "raw"})  # refuses malformed values, used or not
    kept = ("input", "options", "outputs")
    overrides = {key: value for key, value in given.items() if key in kept}
    reasons = (
        "raw: the network without a head, inputs and outputs as in the ONNX file",
        *(f"input {name} {value}" for name, value in summary.inputs.items()),
        *(f"output {name} {value}" for name, value in summary.outputs.items()),
        *_unused(spec, given),
    )
    return Recognition(family="raw", reasons=reasons, spec=spec.override(overrides))


def _unused(raw: DetectorSpec, given: Mapping[str, Any]) -> list[str]:
    """Returns a line on what the user's spec says in vain of a network without a head."""
    plain = raw.to_dict()
    keys = ("family", "labels", "postprocess", "masks", "keypoints")
    said = {key: given[key] for key in keys if given.get(key)}
    unused = [key for key, value in said.items() if value != plain[key]]
    if not unused:
        return []
    return [f"from the spec, not used without a head: {', '.join(unused)}"]


def _with_constants(found: Recognition, bound: Bound) -> Recognition:
    """Returns what was recognised, with what was done to the network's inputs before."""
    spec = found.spec
    if bound.constants:
        spec = replace(spec, input=replace(spec.input, constants=dict(bound.constants)))
    return replace(found, spec=spec, reasons=(*found.reasons, *bound.reasons))


def _input(given: Mapping[str, Any], size_hw: tuple[int, int]) -> dict[str, Any]:
    """Returns the user's input table with the size that was chosen."""
    table = dict(given.get("input", {}))
    if "size_hw" in table:
        table["size_hw"] = size_hw
    return table
