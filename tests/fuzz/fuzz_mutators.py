"""Seeded damage to ONNX files: bytes, attributes, shapes, types, tensors and graph edits."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import TensorProto, helper, numpy_helper

__all__ = ["damage_file"]

_INTS = (-(2**63), -(2**31), -17, -2, -1, 0, 1, 2, 3, 7, 255, 4096, 2**31 - 1, 2**40, 2**63 - 1)
_FLOATS = (0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), float("-inf"), 0.5)
_DTYPES = tuple(range(24))
_COUNTS = (1, 1, 1, 1, 2, 2, 3)  # mutations on top of each other

# Nothing of that kind is there, or a value does not fit it.
_NOTHING_TO_DAMAGE = (
    IndexError,
    TypeError,
    ValueError,
    DecodeError,
    onnx.checker.ValidationError,
)

Mutator = Callable[[onnx.ModelProto, random.Random], None]


def damage_file(path: Path, rng: random.Random) -> str:
    """Damages a model file in place and returns what was done to it."""
    names = []
    if rng.random() < 0.8:
        model = onnx.ModelProto()
        model.ParseFromString(path.read_bytes())
        for _ in range(rng.choice(_COUNTS)):
            mutate = rng.choice(_MUTATORS)
            names.append(mutate.__name__.strip("_"))
            try:
                mutate(model, rng)
            except _NOTHING_TO_DAMAGE:
                continue
        try:
            path.write_bytes(model.SerializeToString())
        except (EncodeError, ValueError):
            names.append("not_serialisable")
    if not names or rng.random() < 0.1:
        names.append(_damage_bytes(path, rng))
    data = path.with_suffix(".data")
    if data.exists() and rng.random() < 0.2:
        names.append(f"data_{_damage_bytes(data, rng)}")
    return "+".join(names)


def _damage_bytes(path: Path, rng: random.Random) -> str:
    data = bytearray(path.read_bytes())
    if not data:
        return "empty"
    kind = rng.choice(("flip", "cut", "drop", "insert", "repeat", "zero", "number"))
    at = rng.randrange(len(data))
    # Structure is at the start of small messages and at the end; weights are in between.
    if rng.random() < 0.5:
        at = rng.choice((rng.randrange(min(400, len(data))), len(data) - 1 - at % 2000))
        at = max(at, 0)
    length = rng.choice((1, 2, 4, 8, 64))
    if kind == "flip":
        for _ in range(length):
            data[rng.randrange(len(data)) if rng.random() < 0.5 else at] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del data[at:]
    elif kind == "drop":
        del data[at : at + length]
    elif kind == "insert":
        data[at:at] = rng.randbytes(length)
    elif kind == "repeat":
        data[at:at] = data[at : at + length] * rng.choice((1, 2, 100))
    elif kind == "zero":
        data[at : at + length] = bytes(length)
    else:
        data[at : at + 1] = b"\xff" * rng.randint(1, 9) + b"\x01"
    path.write_bytes(bytes(data))
    return kind


def _graphs(model: onnx.ModelProto) -> list[Any]:
    found: list[Any] = [model.graph]
    for graph in found:
        found.extend([a.g for node in graph.node for a in node.attribute if a.HasField("g")])
    return found


def _graph(model: onnx.ModelProto, rng: random.Random) -> Any:
    return rng.choice(_graphs(model)) if rng.random() < 0.3 else model.graph


def _node(model: onnx.ModelProto, rng: random.Random) -> Any:
    if model.functions and rng.random() < 0.3:
        return rng.choice(rng.choice(model.functions).node)
    return rng.choice(_graph(model, rng).node)


def _names(graph: Any) -> list[str]:
    names = [value.name for value in graph.input]
    names += [tensor.name for tensor in graph.initializer]
    names += [name for node in graph.node for name in node.output]
    return [*names, "", "nowhere"]


def _attribute_value(model: onnx.ModelProto, rng: random.Random) -> None:
    attribute = rng.choice([a for n in _graph(model, rng).node for a in n.attribute])
    if attribute.type == attribute.INT:
        attribute.i = rng.choice(_INTS)
    elif attribute.type == attribute.FLOAT:
        attribute.f = rng.choice(_FLOATS)
    elif attribute.type == attribute.STRING:
        attribute.s = rng.choice((b"", b"NOTSET", b"SAME_UPPER", b"linear", b"\xff", b"x" * 999))
    elif attribute.type == attribute.INTS:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(_INTS)
    elif attribute.type == attribute.FLOATS:
        attribute.floats[rng.randrange(len(attribute.floats))] = rng.choice(_FLOATS)


def _attribute_length(model: onnx.ModelProto, rng: random.Random) -> None:
    listed = [a for n in model.graph.node for a in n.attribute if a.type == a.INTS]
    attribute = rng.choice(listed)
    if rng.random() < 0.5:
        del attribute.ints[rng.randrange(len(attribute.ints)) :]
    else:
        attribute.ints.extend(rng.choice(_INTS) for _ in range(rng.choice((1, 2, 50))))


def _attribute_kind(model: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice([n for n in model.graph.node if n.attribute])
    at = rng.randrange(len(node.attribute))
    name = node.attribute[at].name
    value: Any = rng.choice((1, 0.5, "text", [1, 2], [0.5], np.zeros(2, np.float32)))
    if isinstance(value, np.ndarray):
        value = numpy_helper.from_array(value)
    node.attribute[at].CopyFrom(helper.make_attribute(name, value))


def _attribute_type_code(model: onnx.ModelProto, rng: random.Random) -> None:
    rng.choice([a for n in model.graph.node for a in n.attribute]).type = rng.randrange(15)


def _attribute_gone(model: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice([n for n in model.graph.node if n.attribute])
    del node.attribute[rng.randrange(len(node.attribute))]


def _attribute_new(model: onnx.ModelProto, rng: random.Random) -> None:
    name = rng.choice(("axis", "axes", "to", "mode", "group", "pads", "perm", "kernel_shape", "x"))
    value: Any = rng.choice((rng.choice(_INTS), [rng.choice(_INTS)], "text", 0.5))
    _node(model, rng).attribute.append(helper.make_attribute(name, value))


def _input_dim(model: onnx.ModelProto, rng: random.Random) -> None:
    value = rng.choice([*model.graph.input, *model.graph.output, *model.graph.value_info])
    dims = value.type.tensor_type.shape.dim
    dim = dims[rng.randrange(len(dims))]
    if rng.random() < 0.3:
        dim.dim_param = rng.choice(("n", "height", "", "-1"))
    else:
        dim.dim_value = rng.choice((*_INTS, 5, 8, 31, 33, 64))


def _input_rank(model: onnx.ModelProto, rng: random.Random) -> None:
    shape = rng.choice([*model.graph.input, *model.graph.output]).type.tensor_type.shape
    if rng.random() < 0.5:
        del shape.dim[rng.randrange(len(shape.dim)) :]
    else:
        for _ in range(rng.choice((1, 2, 40))):
            shape.dim.add().dim_value = rng.choice((1, 2, 3))


def _input_type(model: onnx.ModelProto, rng: random.Random) -> None:
    value = rng.choice([*model.graph.input, *model.graph.output])
    kind = rng.choice(("element", "element", "no shape", "no type", "sequence", "map"))
    if kind == "element":
        value.type.tensor_type.elem_type = rng.choice(_DTYPES)
    elif kind == "no shape":
        value.type.tensor_type.ClearField("shape")
    elif kind == "no type":
        value.ClearField("type")
    elif kind == "sequence":
        value.type.sequence_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    else:
        value.type.map_type.key_type = TensorProto.INT64


def _tensors(model: onnx.ModelProto) -> list[Any]:
    found = [t for graph in _graphs(model) for t in graph.initializer]
    return found + [a.t for n in model.graph.node for a in n.attribute if a.HasField("t")]


def _tensor_dtype(model: onnx.ModelProto, rng: random.Random) -> None:
    rng.choice(_tensors(model)).data_type = rng.choice(_DTYPES)


def _tensor_cast(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(_tensors(model))
    dtype = rng.choice((np.float16, np.float64, np.int32, np.int64, np.uint8, np.bool_))
    with np.errstate(all="ignore"):
        values = numpy_helper.to_array(tensor).astype(dtype)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _tensor_dims(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(_tensors(model))
    kind = rng.choice(("value", "fewer", "more", "flat"))
    if kind == "value":
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(_INTS)
    elif kind == "fewer":
        del tensor.dims[-1]
    elif kind == "more":
        tensor.dims.append(rng.choice((1, 1, 0, 2)))
    else:
        values = numpy_helper.to_array(tensor).reshape(-1)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _tensor_values(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(_tensors(model))
    values = numpy_helper.to_array(tensor).copy()
    flat = values.reshape(-1)
    for _ in range(rng.choice((1, 1, 3))):
        at = rng.randrange(flat.size)
        if values.dtype.kind == "f":
            with np.errstate(over="ignore"):
                flat[at] = rng.choice(_FLOATS)
        else:
            info = np.iinfo(values.dtype) if values.dtype.kind in "iu" else None
            value = rng.choice(_INTS)
            flat[at] = value if info is None else min(max(value, info.min), info.max)
    tensor.CopyFrom(numpy_helper.from_array(flat.reshape(values.shape), tensor.name))


def _tensor_small(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(_tensors(model))
    values = numpy_helper.to_array(tensor)
    shape = [rng.choice((0, 1, 2, 3)) for _ in range(rng.randint(0, 5))]
    made = np.zeros(shape, values.dtype)
    tensor.CopyFrom(numpy_helper.from_array(made, tensor.name))


def _tensor_external(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = rng.choice(_tensors(model))
    tensor.data_location = TensorProto.EXTERNAL
    keys = {"location", "offset", "length", *(e.key for e in tensor.external_data)}
    entry = tensor.external_data.add()
    entry.key = rng.choice(sorted(keys))
    entry.value = rng.choice(("", "/etc/passwd", "../x", "model.data", "-1", "0", str(2**70), "\0"))


def _rewire_input(model: onnx.ModelProto, rng: random.Random) -> None:
    graph = _graph(model, rng)
    node = rng.choice(graph.node)
    node.input[rng.randrange(len(node.input))] = rng.choice(_names(graph))


def _input_count(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if rng.random() < 0.5:
        del node.input[rng.randrange(len(node.input)) :]
    else:
        node.input.extend(rng.choice(_names(model.graph)) for _ in range(rng.choice((1, 2, 20))))


def _rewire_output(model: onnx.ModelProto, rng: random.Random) -> None:
    node = _node(model, rng)
    if rng.random() < 0.5:
        node.output[rng.randrange(len(node.output))] = rng.choice(_names(model.graph))
    else:
        node.output.append(rng.choice(("extra", "", "images")))


def _drop_node(model: onnx.ModelProto, rng: random.Random) -> None:
    graph = _graph(model, rng)
    del graph.node[rng.randrange(len(graph.node))]


def _repeat_node(model: onnx.ModelProto, rng: random.Random) -> None:
    graph = _graph(model, rng)
    graph.node.append(rng.choice(graph.node))


def _bypass_node(model: onnx.ModelProto, rng: random.Random) -> None:
    graph = _graph(model, rng)
    at = rng.randrange(len(graph.node))
    node = graph.node[at]
    source, gone = node.input[0], set(node.output)
    del graph.node[at]
    for other in graph.node:
        for index, name in enumerate(other.input):
            if name in gone:
                other.input[index] = source


def _reorder(model: onnx.ModelProto, rng: random.Random) -> None:
    graph = _graph(model, rng)
    nodes = list(graph.node)
    rng.shuffle(nodes)
    del graph.node[:]
    graph.node.extend(nodes)


_OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain})


def _operator(model: onnx.ModelProto, rng: random.Random) -> None:
    _node(model, rng).op_type = rng.choice(_OPERATORS)


def _similar_operator(model: onnx.ModelProto, rng: random.Random) -> None:
    groups = (
        ("Relu", "Sigmoid", "Tanh", "Not", "IsNaN", "Identity", "Shape", "NonZero", "Celu", "Sin"),
        ("Add", "Mul", "Pow", "Mod", "MatMul", "Equal", "And", "BitShift", "Less", "Max", "Div"),
        ("Concat", "Split", "Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape", "Expand", "Tile"),
        ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "ConvInteger", "Gemm"),
        ("ReduceSum", "ReduceMean", "ArgMax", "ReduceL2", "CumSum", "TopK", "Softmax"),
    )
    node = _node(model, rng)
    near = [group for group in groups if node.op_type in group] or [groups[0]]
    node.op_type = rng.choice(near[0])


def _domain(model: onnx.ModelProto, rng: random.Random) -> None:
    _node(model, rng).domain = rng.choice(("ai.onnx", "com.microsoft", "ai.onnx.ml", "mmdeploy"))


def _opset(model: onnx.ModelProto, rng: random.Random) -> None:
    model.opset_import[0].version = rng.choice((0, -1, 1, 7, 11, 12, 13, 16, 18, 19, 20, 21, 99))


def _ir_version(model: onnx.ModelProto, rng: random.Random) -> None:
    model.ir_version = rng.choice((0, 1, 3, 7, 10, 13, 99, 2**62))


def _drop_initializer(model: onnx.ModelProto, rng: random.Random) -> None:
    del model.graph.initializer[rng.randrange(len(model.graph.initializer))]


def _repeat_initializer(model: onnx.ModelProto, rng: random.Random) -> None:
    tensor = model.graph.initializer.add()
    tensor.CopyFrom(rng.choice(model.graph.initializer))
    if rng.random() < 0.5:
        tensor.name = rng.choice(_names(model.graph)[:-2])


def _graph_output(model: onnx.ModelProto, rng: random.Random) -> None:
    output = rng.choice(model.graph.output)
    if rng.random() < 0.5:
        model.graph.output.add().CopyFrom(output)
    output.name = rng.choice(_names(model.graph))


def _graph_input(model: onnx.ModelProto, rng: random.Random) -> None:
    if rng.random() < 0.5:
        model.graph.input.add().CopyFrom(rng.choice(model.graph.input))
    model.graph.input[-1].name = rng.choice(_names(model.graph))


def _input_gone(model: onnx.ModelProto, rng: random.Random) -> None:
    del model.graph.input[rng.randrange(len(model.graph.input))]


def _names_same(model: onnx.ModelProto, rng: random.Random) -> None:
    names = [node.name for node in model.graph.node]
    _node(model, rng).name = rng.choice((*names, "", "a/b c'\"\\\n", "\u2028" * 50, "n" * 5000))


def _metadata(model: onnx.ModelProto, rng: random.Random) -> None:
    entry = model.metadata_props.add()
    entry.key = rng.choice(("names", "imgsz", "stride", "task", "character"))
    entry.value = rng.choice(
        ("", "{", "[32, 32]", "[" * 5000, "{0: 'a'}", "9" * 5000, "[-1, 2]", "{'a': []}", "\n" * 50)
    )


def _nest(model: onnx.ModelProto, rng: random.Random) -> None:
    inner = onnx.GraphProto()
    inner.CopyFrom(model.graph)
    _node(model, rng).attribute.append(helper.make_attribute("body", inner))


def _function(model: onnx.ModelProto, rng: random.Random) -> None:
    function = rng.choice(model.functions)
    kind = rng.choice(("call", "name", "input", "output", "gone", "opset"))
    if kind == "call":
        call = helper.make_node(function.name, ["x"], ["y"], domain=function.domain)
        function.node.append(call)
    elif kind == "name":
        function.name = rng.choice(("Relu", "", "Conv"))
    elif kind == "input":
        function.input.append(rng.choice(("x", "", "more")))
    elif kind == "output":
        function.output.append(rng.choice(("y", "", "nowhere")))
    elif kind == "opset":
        del function.opset_import[:]
    else:
        del model.functions[:]


def _large_constant(model: onnx.ModelProto, rng: random.Random) -> None:
    shapes = ([2**20, 2**20], [65536, 65536], [10**5, 3, 64, 64], [2**31], [-1], [2**62, 4])
    shape = numpy_helper.from_array(np.array(rng.choice(shapes), np.int64), "large_shape")
    model.graph.initializer.append(shape)
    node = rng.choice(model.graph.node)
    name = node.input[0]
    operator = rng.choice(("Expand", "ConstantOfShape", "Reshape", "Tile"))
    inputs = ["large_shape"] if operator == "ConstantOfShape" else [name, "large_shape"]
    model.graph.node.insert(0, helper.make_node(operator, inputs, ["large"], name="large"))
    node.input[0] = "large"


_MUTATORS: tuple[Mutator, ...] = (
    _attribute_value,
    _attribute_value,
    _attribute_length,
    _attribute_kind,
    _attribute_type_code,
    _attribute_gone,
    _attribute_new,
    _input_dim,
    _input_dim,
    _input_rank,
    _input_type,
    _tensor_dtype,
    _tensor_cast,
    _tensor_dims,
    _tensor_values,
    _tensor_values,
    _tensor_small,
    _tensor_external,
    _rewire_input,
    _rewire_input,
    _input_count,
    _rewire_output,
    _drop_node,
    _repeat_node,
    _bypass_node,
    _reorder,
    _operator,
    _similar_operator,
    _domain,
    _opset,
    _ir_version,
    _drop_initializer,
    _repeat_initializer,
    _graph_output,
    _graph_input,
    _input_gone,
    _names_same,
    _metadata,
    _nest,
    _function,
    _large_constant,
)
