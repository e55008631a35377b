"""From a path to a checked ONNX model in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx
import onnx.shape_inference
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from tvmdet.diagnosis import Proof
from tvmdet.errors import ModelError
from tvmdet.frontend.check_operands import check_operands
from tvmdet.frontend.custom_sampling import replace_custom_sampling
from tvmdet.frontend.custom_suppression import replace_custom_suppressions
from tvmdet.frontend.drop_idle_nodes import drop_idle_nodes
from tvmdet.frontend.external_data import embed_external_data
from tvmdet.frontend.functions import inline_functions
from tvmdet.frontend.fused_operators import SPLIT, has_fused, split_fused
from tvmdet.frontend.keep_outputs import keep_outputs
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.match_types import match_types
from tvmdet.frontend.onnx_tools import (
    DEFAULT_DOMAINS,
    describe,
    first_line,
    iter_tensors,
    name_nodes,
    tensor_bytes,
)
from tvmdet.frontend.operators import find_foreign, refuse
from tvmdet.frontend.quantised import (
    FOLDED,
    MOVED,
    MULTIPLIED,
    PAIRED,
    ROUNDED,
    TAKEN,
    drop_rounding,
    fold_weights,
    has_integer_operators,
    is_quantised,
    move_integers,
    opset_of_pairs,
    prove_weights,
    take_pairs,
    write_pairs,
    write_products,
)
from tvmdet.frontend.raise_opset import OLDEST_READ, RAISED, raise_opset, raised_to
from tvmdet.frontend.shape_lengths import check_shape_lengths
from tvmdet.frontend.sort_nodes import sort_nodes
from tvmdet.model_file import check_model_file
from tvmdet.steps import reached

__all__ = ["Earlier", "LoadedModel", "load_onnx"]

_LEAST_IR = 4  # before, every initializer is an input too, and new ones are none


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """A model before a rewrite.

    Attributes:
        model: It.
        rewrite: What was done to it.
        proof: That it computes the same still; None where it must run to be proven, which wants
            inputs of static shapes.
    """

    model: onnx.ModelProto
    rewrite: str
    proof: Proof | None = None


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model that passed the checks.

    Attributes:
        name: The file's name without its suffix.
        proto: The model, external data embedded, every node named. Not to be changed.
        sha256: Digest of the file and its external data files.
        opset: Version of the default operator set.
        ir_version: Version of the file's format.
        exported_opset: That of the file, where its operators were brought to a later one.
        earlier: What it was when it was read, and after each rewrite but the last; empty when
            that is proven.
        one_image: Whether the picture of the export has no batch dimension, so that the network
            works at batch 1 only.
    """

    name: str
    proto: onnx.ModelProto
    sha256: str
    opset: int
    ir_version: int
    exported_opset: int | None = None
    earlier: tuple[Earlier, ...] = ()
    one_image: bool = False

    def rewritten(self, rewrite: Callable[[onnx.ModelProto], onnx.ModelProto]) -> LoadedModel:
        """Returns it with a rewrite of the model, and of what it was earlier.

        Args:
            rewrite: Returns a changed copy of a model, or the model itself where nothing is to be
                done; then this comes back itself.
        """
        proto = rewrite(self.proto)
        if proto is self.proto:
            return self
        earlier = tuple(replace(one, model=rewrite(one.model)) for one in self.earlier)
        return replace(self, proto=proto, earlier=earlier)

    @property
    def exported(self) -> onnx.ModelProto:
        """The model as the file has it, as long as nothing was proven of it."""
        return self.earlier[0].model if self.earlier else self.proto


def load_onnx(
    path: str | Path,
    limits: Limits | None = None,
    *,
    outputs: Sequence[str] = (),
    allow_foreign: bool = False,
) -> LoadedModel:
    """Reads and checks an ONNX file.

    Args:
        path: The file.
        limits: Bounds; the defaults of :class:`Limits` when None.
        outputs: Names of the outputs to keep; none for all.
        allow_foreign: Return a model with operators of custom domains too, for a diagnosis.

    Raises:
        UnsupportedOperatorError: Nodes are no standard ONNX operators; names all of them.
        ModelError: The file cannot be read, is no ONNX model, is damaged or exceeds a limit.
        InputError: ``outputs`` names what is no output.
    """
    limits = limits or Limits()
    path = Path(path)
    reached(f"reading {path}")
    data = _read(path, limits)
    proto = _parse(path, data)
    opset = _check_opset(path, proto, limits)
    files = embed_external_data(proto, path.parent, limits)
    _check_tensors(path, proto)
    proto = inline_functions(path, proto, limits)
    ir_version = int(proto.ir_version)
    proto.ir_version = max(ir_version, _LEAST_IR)
    drop_idle_nodes(proto.graph)
    sort_nodes(proto.graph)
    name_nodes(proto.graph)
    if outputs:
        keep_outputs(proto, outputs)
    proto = replace_custom_suppressions(replace_custom_sampling(path, proto))
    given, opset = opset, _check_opset(path, proto, limits)
    exported = None if given == opset else given
    earlier: list[Earlier] = []
    if (needed := opset_of_pairs(proto)) is not None:
        if opset < needed:
            _check_model(path, proto)
            earlier.append(Earlier(model=proto, rewrite=raised_to(needed)))
            exported = opset
            proto, opset = raise_opset(path, proto, opset, needed), needed
        earlier += _rewritten(proto, take_pairs, TAKEN)
    if has_fused(proto):
        earlier += _rewritten(proto, split_fused, SPLIT)
    if has_integer_operators(proto):
        check_shape_lengths(proto)
        _check_model(path, proto)
        earlier += _rewritten(proto, write_pairs, PAIRED)
    foreign = find_foreign(proto.graph)
    if not allow_foreign:
        refuse(foreign)
    if not foreign:
        check_shape_lengths(proto)
        check_operands(path, proto)
        _check_model(path, proto)
        match_types(proto)
    if not foreign and opset < OLDEST_READ:
        earlier.append(Earlier(model=proto, rewrite=RAISED))
        exported = opset
        proto, opset = raise_opset(path, proto, opset), OLDEST_READ
        _check_model(path, proto)
    if not foreign and is_quantised(proto):
        earlier += _unquantise(proto)
    digest = _digest(data, files)
    return LoadedModel(
        name=path.stem,
        proto=proto,
        sha256=digest,
        opset=opset,
        ir_version=ir_version,
        exported_opset=exported,
        earlier=tuple(earlier),
    )


def _unquantise(proto: onnx.ModelProto) -> Iterator[Earlier]:
    """Makes a quantised model one of floats, in place; yields what it was before each rewrite."""
    yield from _rewritten(proto, write_products, MULTIPLIED)
    yield from _rewritten(proto, move_integers, MOVED)
    yield from _rewritten(proto, fold_weights, FOLDED, prove_weights)
    yield from _rewritten(proto, drop_rounding, ROUNDED)


def _rewritten(
    proto: onnx.ModelProto,
    rewrite: Callable[[onnx.ModelProto], int],
    what: str,
    prove: Callable[[onnx.ModelProto, onnx.ModelProto], Proof] | None = None,
) -> Iterator[Earlier]:
    """Rewrites a model in place; yields what it was, where the rewrite counts anything."""
    before = onnx.ModelProto()
    before.CopyFrom(proto)
    if rewrite(proto):
        proof = None if prove is None else prove(before, proto)
        yield Earlier(model=before, rewrite=what, proof=proof)


def _read(path: Path, limits: Limits) -> bytes:
    size = check_model_file(path)
    if size > limits.max_file_bytes:
        raise ModelError(
            f"{path} has {size} bytes; allowed: {limits.max_file_bytes} "
            "(Limits.max_file_bytes); keep the weights as external data"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {first_line(error)}") from error


def _parse(path: Path, data: bytes) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except (DecodeError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"{path} is not an ONNX model, or is cut short ({len(data)} bytes that do not "
            "parse); give an .onnx file, or export or copy it again"
        ) from error
    if not _is_text(model):
        raise ModelError(
            f"{path} is damaged: it holds names that are not UTF-8 text; export or copy it again"
        )
    if not model.HasField("graph") or not model.graph.node or not model.graph.output:
        raise ModelError(
            f"{path} is not an ONNX model, or is cut short: it holds no graph with nodes and "
            "outputs; give an .onnx file, or export or copy it again"
        )
    return model


def _is_text(model: onnx.ModelProto) -> bool:
    """Returns whether every string is text; protobuf hands damaged ones over as bytes."""
    stack: list[Any] = [model]
    while stack:
        for field, value in stack.pop().ListFields():
            values = [value] if hasattr(value, "ListFields") else value
            if field.type == field.TYPE_MESSAGE:
                stack.extend(values)
            elif field.type == field.TYPE_STRING:
                strings = [value] if isinstance(value, str | bytes) else value
                if any(isinstance(string, bytes) for string in strings):
                    return False
    return True


def _check_opset(path: Path, model: onnx.ModelProto, limits: Limits) -> int:
    versions = [o.version for o in model.opset_import if o.domain in DEFAULT_DOMAINS]
    highest = min(limits.max_opset, onnx.defs.onnx_opset_version())
    allowed = f"allowed: {limits.min_opset} to {highest}"
    if not versions:
        raise ModelError(
            f"{path} states no version of the default ONNX operator set; {allowed}; "
            "the file is cut short or its exporter is broken: export it again"
        )
    opset = int(versions[0])
    if not limits.min_opset <= opset <= highest:
        raise ModelError(
            f"{path} has opset {opset}; {allowed}; export it again with opset_version=17, or "
            "convert it with onnx.version_converter"
        )
    return opset


def _check_tensors(path: Path, model: onnx.ModelProto) -> None:
    """Refuses tensors whose stored bytes are not what their shape says."""
    for tensor in iter_tensors(model):
        expected = tensor_bytes(tensor)
        stored = len(tensor.raw_data)
        if any(dim < 0 for dim in tensor.dims) or (
            stored and expected is not None and expected != stored
        ):
            raise ModelError(
                f"{path}: tensor {tensor.name!r} of shape {list(tensor.dims)} holds {stored} "
                f"bytes and needs {expected}; the file is damaged: export or copy it again"
            )


def _check_model(path: Path, model: onnx.ModelProto) -> None:
    reached("the ONNX checker reads the model")
    try:
        onnx.checker.check_model(_with_output_shapes(model))
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        ValueError,
        RuntimeError,
    ) as error:
        why = _missing_value(model.graph) or first_line(error)
        raise ModelError(f"{path} breaks the ONNX standard: {why}; export it again") from error


def _missing_value(graph: onnx.GraphProto) -> str:
    """Says which node reads what nothing gives, or ''; the checker says that nodes are not sorted.

    torch's dynamo exporter leaves such values away at times.
    """
    known = {value.name for value in graph.input} | {one.name for one in graph.initializer}
    known |= {one.values.name for one in graph.sparse_initializer}
    known |= {name for node in graph.node for name in node.output}
    for node in graph.node:
        for name in node.input:
            if name and name not in known:
                return (
                    f"{describe(node)} reads {name!r}, which is no input or weight of the file, "
                    "and no node computes it"
                )
    return ""


def _with_output_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a model that states a shape for each output, which the checker wants.

    Some exporters leave them away; after a Loop or an If nobody can say what they are, and any
    will do.
    """
    bare = [o for o in model.graph.output if not o.type.tensor_type.HasField("shape")]
    if not bare or any(o.type.WhichOneof("value") not in (None, "tensor_type") for o in bare):
        return model
    inferred = onnx.shape_inference.infer_shapes(model)
    for output in inferred.graph.output:
        output.type.tensor_type.shape.SetInParent()
    return inferred


def _digest(data: bytes, files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256(data)
    for file in files:
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()
