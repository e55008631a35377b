"""Small healthy models that the fuzzer damages: detectors, operators, subgraphs, functions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_models
from onnx import TensorProto, helper
from onnx_models import Graph

__all__ = ["SEEDS", "write_seed"]

Seed = Callable[[], onnx.ModelProto]

_PICTURE = (1, 3, 16, 16)


@functools.cache
def _made(name: str) -> onnx.ModelProto:
    return SEEDS[name]()


def write_seed(name: str, path: Path) -> None:
    """Writes a seed model; one whose name ends in ``external`` keeps its weights beside it."""
    model = _made(name)
    if not name.endswith("external"):
        onnx_models.save(model, path)
        return
    copy = onnx.ModelProto()
    copy.CopyFrom(model)  # saving moves the weights out of it
    onnx.save_model(
        copy,
        str(path),
        save_as_external_data=True,
        location=f"{path.stem}.data",
        size_threshold=0,
    )


def _detector(**options: object) -> Seed:
    size = {"size": (32, 32), "classes": 2, **options}
    return lambda: onnx_models.yolov8(**size)  # type: ignore[arg-type]


def _picodet() -> onnx.ModelProto:
    return onnx_models.picodet(classes=2, reg_max=3, size=(64, 64))


def _operators(build: Callable[[Graph], str | Sequence[str]], opset: int = 17) -> Seed:
    """A network of one picture input with a few nodes between convolutions."""

    def make() -> onnx.ModelProto:
        graph = Graph()
        made = build(graph)
        outputs = [made] if isinstance(made, str) else made
        return graph.model({"images": _PICTURE}, dict.fromkeys(outputs), opset=opset)

    return make


def _unary(*operators: str) -> Callable[[Graph], str]:
    def build(graph: Graph) -> str:
        value = graph.conv("images", (3, 4), 3)
        for operator in operators:
            value = graph.node(operator, value)
        return value

    return build


def _activations(graph: Graph) -> str:
    value = graph.conv("images", (3, 4), 3, pads=[1, 1, 1, 1])
    value = graph.node("Clip", value, graph.constant(0.0), graph.constant(6.0))
    value = graph.node("HardSigmoid", value, alpha=0.2, beta=0.5)
    value = graph.node("LeakyRelu", graph.node("HardSwish", value), alpha=0.1)
    value = graph.node("PRelu", value, graph.constant(np.full((4, 1, 1), 0.2)))
    return graph.node("Softmax", value, axis=1)


def _normalised(graph: Graph) -> str:
    value = graph.conv("images", (3, 4), 3, auto_pad="SAME_UPPER", strides=[2, 2])
    four = [graph.constant(np.linspace(0.5, 1.5, 4)) for _ in range(4)]
    value = graph.node("BatchNormalization", value, *four, epsilon=1e-5)
    value = graph.node("InstanceNormalization", value, *four[:2], epsilon=1e-5)
    return graph.node(
        "LayerNormalization", value, graph.constant(np.ones(8)), graph.constant(np.ones(8)), axis=-1
    )


def _pools(graph: Graph) -> str:
    value = graph.node("MaxPool", "images", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    other = graph.node("AveragePool", "images", kernel_shape=[2, 2], strides=[2, 2])
    joined = graph.node("Concat", value, other, axis=1)
    padded = graph.node(
        "Pad", joined, graph.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64), graph.constant(0.0)
    )
    return graph.node("Mul", padded, graph.node("GlobalAveragePool", padded))


def _sampled(graph: Graph) -> str:
    value = graph.conv("images", (3, 4), 1)
    scales = graph.constant([1, 1, 2, 2])
    value = graph.node("Resize", value, "", scales, mode="linear")
    value = graph.node(
        "ConvTranspose", value, graph.constant(np.ones((4, 2, 2, 2))), strides=[2, 2]
    )
    grid = graph.constant(graph.rng.uniform(-1, 1, (1, 6, 6, 2)))
    return graph.node("GridSample", value, grid, align_corners=0)


def _tokens(graph: Graph) -> str:
    value = graph.node("Reshape", "images", graph.constant([1, 3, 256], np.int64))
    value = graph.node("Transpose", value, perm=[0, 2, 1])
    query = graph.node("MatMul", value, graph.constant(graph.rng.normal(0, 1, (3, 4))))
    turned = graph.node("Transpose", query, perm=[0, 2, 1])
    weights = graph.node("Softmax", graph.node("MatMul", query, turned), axis=-1)
    mixed = graph.node("MatMul", weights, query)
    flat = graph.node("Flatten", mixed, axis=1)
    return graph.node("Gemm", flat, graph.constant(np.ones((5, 1024)) * 0.01), transB=1, alpha=0.5)


def _moves(graph: Graph) -> str:
    halves = graph.node("Split", "images", graph.constant([8, 8], np.int64), outputs=2, axis=3)
    starts, ends = graph.constant([0, 1], np.int64), graph.constant([16, 9], np.int64)
    axes, steps = graph.constant([2, 3], np.int64), graph.constant([2, 1], np.int64)
    cut = graph.node("Slice", halves, starts, ends, axes, steps)
    wide = graph.node("Expand", f"{halves}.1", graph.constant([2, 3, 16, 8], np.int64))
    tall = graph.node("Tile", cut, graph.constant([2, 1, 2, 1], np.int64))
    seven = graph.node("Slice", wide, *(graph.constant([v], np.int64) for v in (0, 7, 3)))
    joined = graph.node("Add", tall, seven)
    gathered = graph.node("Gather", joined, graph.constant([2, 0], np.int64), axis=1)
    lifted = graph.node("Unsqueeze", gathered, graph.constant([0], np.int64))
    lowered = graph.node("Squeeze", lifted, graph.constant([0], np.int64))
    return graph.node("DepthToSpace", graph.node("SpaceToDepth", lowered, blocksize=1), blocksize=1)


def _reductions(graph: Graph) -> list[str]:
    mean = graph.node("ReduceMean", "images", axes=[2, 3], keepdims=1)
    most = graph.node("ReduceMax", "images", axes=[1], keepdims=0)
    total = graph.node("ReduceSum", "images", graph.constant([1], np.int64), keepdims=1)
    best = graph.node("Cast", graph.node("ArgMax", "images", axis=1), to=TensorProto.FLOAT)
    chosen = graph.node("Where", graph.node("Greater", total, mean), total, mean)
    return [most, best, graph.node("CumSum", chosen, graph.constant(2, np.int64))]


def _sorted(graph: Graph) -> str:
    flat = graph.node("Reshape", "images", graph.constant([1, -1], np.int64))
    values = graph.node("TopK", flat, graph.constant([5], np.int64), outputs=2, axis=1)
    again = graph.node("GatherElements", flat, f"{values}.1", axis=1)
    rows = graph.node("Reshape", flat, graph.constant([256, 3], np.int64))
    indices = graph.constant([[1], [0]], np.int64)
    scattered = graph.node("ScatterND", rows, indices, graph.constant(np.zeros((2, 3))))
    top = graph.node("GatherND", scattered, graph.constant([[3], [4], [5], [6], [7]], np.int64))
    turned = graph.node("Transpose", top, perm=[1, 0])
    return graph.node("Concat", again, values, turned, axis=0)


def _shapes(graph: Graph) -> str:
    shape = graph.node("Shape", "images")
    height = graph.node("Gather", shape, graph.constant([2], np.int64), axis=0)
    half = graph.node("Div", height, graph.constant([2], np.int64))
    target = graph.node("Concat", graph.constant([1, -1], np.int64), half, axis=0)
    moved = graph.node("Reshape", graph.conv("images", (3, 4), 1), target)
    filled = graph.node("ConstantOfShape", graph.node("Shape", moved))
    count = graph.node("Squeeze", half, graph.constant([0], np.int64))
    zero, one = graph.constant(0, np.int64), graph.constant(1, np.int64)
    steps = graph.node("Cast", graph.node("Range", zero, count, one), to=TensorProto.FLOAT)
    return graph.node("Add", graph.node("Add", moved, filled), steps)


def _suppressed(graph: Graph) -> str:
    flat = graph.node("Reshape", "images", graph.constant([1, 192, 4], np.int64))
    scores = graph.node("ReduceMax", flat, axes=[2], keepdims=1)
    rows = graph.node("Transpose", scores, perm=[0, 2, 1])
    limits = graph.constant([5], np.int64), graph.constant([0.5]), graph.constant([0.1])
    chosen = graph.node("NonMaxSuppression", flat, rows, *limits)
    column = graph.node("Gather", chosen, graph.constant(2, np.int64), axis=1)
    return graph.node("Gather", flat, column, axis=1)


def _regions(graph: Graph) -> str:
    boxes = graph.constant([[0, 0, 8, 8], [2, 2, 14, 12]])
    batch = graph.constant([0, 0], np.int64)
    pooled = graph.node(
        "RoiAlign", "images", boxes, batch, output_height=3, output_width=3, sampling_ratio=2
    )
    dense = graph.node("Flatten", pooled)
    return graph.node("Einsum", dense, dense, equation="ij,kj->ik")


def _quantised(graph: Graph) -> str:
    scale, zero = graph.constant(0.1), graph.constant(3, np.uint8)
    codes = graph.node("QuantizeLinear", "images", scale, zero)
    value = graph.node("DequantizeLinear", codes, scale, zero)
    return graph.node("Relu", graph.conv(value, (3, 4), 3))


def _integers(graph: Graph) -> str:
    """As ONNX Runtime quantises: its own operators between standard ones."""
    scale, zero = graph.constant(0.1), graph.constant(3, np.uint8)
    steps = (scale, zero)
    weights = graph.constant(graph.rng.integers(-99, 99, (4, 3, 3, 3)), np.int8)
    of_weights = (graph.constant(np.full(4, 0.01)), graph.constant(np.zeros(4), np.int8))
    bias = graph.constant(graph.rng.integers(-99, 99, 4), np.int32)
    codes = graph.node("QuantizeLinear", "images", *steps)
    value = graph.node(
        "QLinearConv", codes, *steps, weights, *of_weights, *steps, bias, pads=[1, 1, 1, 1]
    )
    value = graph.node("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
    own = {"domain": "com.microsoft"}
    other = graph.node("QLinearSigmoid", value, *steps, *steps, **own)
    value = graph.node("QLinearMul", value, *steps, other, *steps, *steps, **own)
    joined = graph.node("QLinearConcat", *steps, value, *steps, other, *steps, axis=1, **own)
    return graph.node("DequantizeLinear", joined, *steps)


def _of_domain(build: Callable[[Graph], str | Sequence[str]], domain: str, opset: int = 17) -> Seed:
    """A network with operators of another domain."""

    def make() -> onnx.ModelProto:
        model = _operators(build, opset)()
        model.opset_import.append(helper.make_opsetid(domain, 1))
        return model

    return make


def _sampled_by_mmdeploy(graph: Graph) -> str:
    """Its own nodes, which standard ONNX has from later opsets on."""
    own = {"domain": "mmdeploy"}
    grid = graph.constant(graph.rng.uniform(-1, 1, (1, 8, 8, 2)))
    modes = {"interpolation_mode": 0, "padding_mode": 0, "align_corners": 0}
    value = graph.node("grid_sampler", "images", grid, **modes, **own)
    offsets = graph.conv(value, (3, 18), 3, pads=[1] * 4)
    mask = graph.node("Sigmoid", graph.conv(value, (3, 9), 3, pads=[1] * 4))
    weights = graph.constant(graph.rng.normal(0, 0.1, (4, 3, 3, 3)))
    settings = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    operands = (value, offsets, mask, weights)
    return graph.node("MMCVModulatedDeformConv2d", *operands, **settings, deform_groups=1, **own)


def _suppressed_by_tensorrt(graph: Graph) -> list[str]:
    boxes = graph.node("Reshape", "images", graph.constant([1, 192, 4], np.int64))
    scores = graph.node("ReduceMax", boxes, axes=[2], keepdims=1)
    settings = {"background_class": [-1], "box_coding": [1], "score_activation": 0}
    limits = {"iou_threshold": 0.5, "score_threshold": 0.1, "max_output_boxes": 5}
    node = graph.node(
        "EfficientNMS_TRT", boxes, scores, outputs=4, **settings, **limits, domain="TRT"
    )
    return [f"{node}.1", f"{node}.2"]


def _quantised_to_16_bits(graph: Graph) -> str:
    own = {"domain": "com.microsoft"}
    scale, zero = graph.constant(0.01), graph.constant(3, np.int16)
    codes = graph.node("QuantizeLinear", "images", scale, zero, **own)
    value = graph.node("DequantizeLinear", codes, scale, zero, **own)
    return graph.node("Relu", graph.conv(value, (3, 4), 3))


def _counted(graph: Graph) -> list[str]:
    """Rows that the picture chooses: looked up as Paddle2ONNX does, cut and padded by counts."""
    boxes = graph.node("Reshape", "images", graph.constant([1, 192, 4], np.int64))
    scores = graph.node("Transpose", boxes, perm=[0, 2, 1])
    limits = graph.constant([5], np.int64), graph.constant([0.5]), graph.constant([0.1])
    chosen = graph.node("NonMaxSuppression", boxes, scores, *limits)
    kind, box = (
        graph.node("Gather", chosen, graph.constant([at], np.int64), axis=1) for at in (1, 2)
    )
    place = graph.node("Add", graph.node("Mul", kind, graph.constant([-1], np.int64)), box)
    flat = graph.constant([-1], np.int64)
    every = graph.node("Reshape", scores, flat)
    values = graph.node("Gather", every, graph.node("Reshape", place, flat), axis=0)
    count, most = graph.node("Shape", values), graph.constant([4], np.int64)
    least = graph.node("Where", graph.node("Less", count, most), count, most)
    best = graph.node("TopK", values, least, outputs=2)
    rest = graph.node("Clip", graph.node("Sub", count, most), graph.constant(0, np.int64))
    return [
        graph.node("Pad", best, graph.constant([1, 2], np.int64)),
        graph.node("Slice", values, graph.constant([0], np.int64), rest),
    ]


def _dynamic(graph: Graph) -> str:
    codes = graph.node("DynamicQuantizeLinear", "images", outputs=3)
    weights = graph.constant(graph.rng.integers(0, 255, (4, 3, 3, 3)), np.uint8)
    of_weights = graph.constant(0.01), graph.constant(128, np.uint8)
    sums = graph.node("ConvInteger", codes, weights, f"{codes}.2", of_weights[1])
    step = graph.node("Mul", f"{codes}.1", of_weights[0])
    return graph.node("Mul", graph.node("Cast", sums, to=TensorProto.FLOAT), step)


def _recurrent(graph: Graph) -> str:
    flat = graph.node("Reshape", "images", graph.constant([16, 1, 48], np.int64))
    weights = graph.constant(graph.rng.normal(0, 0.1, (1, 16, 48)))
    state = graph.constant(graph.rng.normal(0, 0.1, (1, 16, 4)))
    return graph.node("LSTM", flat, weights, state, hidden_size=4)


def _inner(name: str, operator: str, source: str) -> onnx.GraphProto:
    node = helper.make_node(operator, [source], [f"{name}_out"], name=f"{name}_node")
    output = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
    return helper.make_graph([node], name, [], [output])


def _branch(graph: Graph) -> str:
    condition = graph.node(
        "Greater", graph.node("ReduceSum", "images", keepdims=0), graph.constant(0.0)
    )
    value = graph.conv("images", (3, 4), 1)
    return graph.node(
        "If",
        condition,
        then_branch=_inner("yes", "Relu", value),
        else_branch=_inner("no", "Sigmoid", value),
    )


def _loop(graph: Graph) -> str:
    shape = [None] * 4
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"], name="inner_go"),
            helper.make_node("Relu", ["state"], ["state_out"], name="inner_relu"),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, shape),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", TensorProto.FLOAT, shape),
        ],
    )
    count, go = graph.constant(3, np.int64), graph.constant(True, np.bool_)
    return graph.node("Loop", count, go, graph.conv("images", (3, 4), 1), body=body)


def _function() -> onnx.ModelProto:
    graph = Graph()
    model = graph.model({"images": _PICTURE}, {graph.conv("images", (3, 4), 3): None})
    opsets = [helper.make_opsetid("", onnx_models.OPSET), helper.make_opsetid("local", 1)]
    inner = [
        helper.make_node("Sigmoid", ["x"], ["s"], name="f_sigmoid"),
        helper.make_node("Mul", ["x", "s"], ["y"], name="f_mul"),
    ]
    model.functions.append(helper.make_function("local", "swish", ["x"], ["y"], inner, opsets))
    model.opset_import.append(opsets[1])
    call = helper.make_node("swish", [model.graph.output[0].name], ["z"], domain="local", name="f")
    model.graph.node.append(call)
    model.graph.output[0].name = "z"
    model.ir_version = 10
    return model


SEEDS: dict[str, Seed] = {
    "yolov8": _detector(),
    "yolov8 open": _detector(size=("h", "w"), batch="n", metadata={"imgsz": "[32, 32]"}),
    "yolov8 external": _detector(),
    "picodet": _picodet,
    "activations": _operators(_activations),
    "unary": _operators(_unary("Relu", "Tanh", "Exp", "Abs", "Sqrt", "Neg", "Softplus", "Erf")),
    "rounding": _operators(_unary("Floor", "Ceil", "Round", "Sign", "Elu", "Selu", "Mish"), 18),
    "normalised": _operators(_normalised),
    "pools": _operators(_pools),
    "sampled": _operators(_sampled),
    "tokens": _operators(_tokens),
    "moves": _operators(_moves),
    "reductions": _operators(_reductions),
    "sorted": _operators(_sorted),
    "shapes": _operators(_shapes),
    "suppressed": _operators(_suppressed),
    "regions": _operators(_regions),
    "quantised": _operators(_quantised),
    "integers": _of_domain(_integers, "com.microsoft"),
    "16 bits": _of_domain(_quantised_to_16_bits, "com.microsoft"),
    "mmdeploy": _of_domain(_sampled_by_mmdeploy, "mmdeploy", 11),
    "tensorrt": _of_domain(_suppressed_by_tensorrt, "TRT"),
    "counted": _operators(_counted),
    "dynamic integers": _operators(_dynamic),
    "recurrent": _operators(_recurrent),
    "branch": _operators(_branch),
    "loop": _operators(_loop),
    "function": _function,
    "shapes external": _operators(_shapes),
}
