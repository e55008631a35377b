"""Small ONNX detectors with seeded weights, built for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

OPSET = 17
Dim = int | str


class Graph:
    """Collects nodes and weights of one graph."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, values: object, dtype: type = np.float32) -> str:
        """Adds a constant and returns its name."""
        name = f"constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype=dtype), name))
        return name

    def node(self, operator: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        """Adds a node and returns its first output; further ones end in ``.1``, ``.2``."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        names = [name] + [f"{name}.{index}" for index in range(1, outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, name=name, **attributes))
        return name

    def conv(self, data: str, channels: tuple[int, int], kernel: int, **attributes: object) -> str:
        """Adds a convolution with bias, ``channels`` as (in, out)."""
        shape = (channels[1], channels[0], kernel, kernel)
        scale = (channels[0] * kernel * kernel) ** -0.5
        weight = self.constant(self.rng.normal(0, scale, shape))
        bias = self.constant(self.rng.normal(0, 0.5, channels[1]))
        return self.node("Conv", data, weight, bias, **attributes)

    def model(
        self,
        inputs: dict[str, Sequence[Dim]],
        outputs: dict[str, Sequence[Dim] | None],
        *,
        metadata: dict[str, str] | None = None,
        opset: int = OPSET,
        dtype: int = TensorProto.FLOAT,
    ) -> onnx.ModelProto:
        """Returns the graph as a model."""
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info(n, dtype, list(s)) for n, s in inputs.items()],
            [
                helper.make_tensor_value_info(n, TensorProto.FLOAT, None if s is None else list(s))
                for n, s in outputs.items()
            ],
            self.weights,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], producer_name="test"
        )
        model.ir_version = 8
        helper.set_model_props(model, metadata or {})
        return model


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Writes a model and returns its path."""
    path.write_bytes(model.SerializeToString())
    return path


def yolov8(
    *,
    classes: int = 3,
    size: tuple[Dim, Dim] = (64, 96),
    batch: Dim = 1,
    reshape_batch: int | None = None,
    metadata: dict[str, str] | None = None,
    transposed: bool = False,
    rows: int | None = None,
) -> onnx.ModelProto:
    """A YOLOv8-style detector with strides 8, 16, 32.

    Args:
        classes: Number of class rows.
        size: Height and width, names where open.
        batch: Batch size, a name where open.
        reshape_batch: First entry of the Reshape targets; 0 (as the input) when None.
        metadata: Metadata; class names a, b, c, ... when None.
        transposed: Whether the output is [N, A, 4 + C].
        rows: Rows of the output when not 4 + classes.
    """
    graph = Graph()
    rows = rows or 4 + classes
    features = graph.conv("images", (3, 16), 8, strides=[8, 8])
    levels = []
    for _ in range(3):
        features = graph.node("Mul", features, graph.node("Sigmoid", features))
        head = graph.conv(features, (16, rows), 1)
        first = 0 if reshape_batch is None else reshape_batch
        target = graph.constant([first, rows, -1], np.int64)
        levels.append(graph.node("Reshape", head, target))
        features = graph.conv(features, (16, 16), 3, strides=[2, 2], auto_pad="SAME_UPPER")
    joined = graph.node("Concat", *levels, axis=2)
    boxes = graph.node("Split", joined, graph.constant([4, rows - 4], np.int64), outputs=2, axis=1)
    scaled = graph.node("Mul", boxes, graph.constant([[[8.0], [8.0], [16.0], [16.0]]]))
    output = graph.node("Concat", scaled, graph.node("Sigmoid", f"{boxes}.1"), axis=1)
    if transposed:
        output = graph.node("Transpose", output, perm=[0, 2, 1])
    if metadata is None:
        metadata = {"names": str({i: chr(97 + i) for i in range(classes)}), "task": "detect"}
    return graph.model({"images": [batch, 3, *size]}, {output: None}, metadata=metadata)


def picodet(
    *,
    classes: int = 5,
    reg_max: int = 7,
    size: tuple[int, int] = (96, 72),
    nchw: bool = False,
    sigmoid: bool = True,
    metadata: dict[str, str] | None = None,
    shuffle: bool = False,
) -> onnx.ModelProto:
    """A PicoDet-style detector with strides 8 to 64 and batch 1 fixed in its Reshape nodes."""
    graph = Graph(seed=1)
    channels = 4 * (reg_max + 1)
    features = graph.conv("image", (3, 16), 8, strides=[8, 8])
    outputs = []
    for _ in range(4):
        bound = (graph.constant(0.0), graph.constant(6.0))
        shifted = graph.node("Add", features, graph.constant([3.0]))
        gated = graph.node("Mul", features, graph.node("Clip", shifted, *bound))
        features = graph.node("Div", gated, graph.constant([6.0]))
        for count, is_class in ((classes, True), (channels, False)):
            head = graph.conv(features, (16, count), 1)
            if is_class and sigmoid:
                head = graph.node("Sigmoid", head)
            if not nchw:
                target = graph.constant([1, count, -1], np.int64)
                flat = graph.node("Reshape", head, target)
                head = graph.node("Transpose", flat, perm=[0, 2, 1])
            outputs.append(head)
        features = graph.conv(features, (16, 16), 3, strides=[2, 2], pads=[1, 1, 1, 1])
    graph.nodes.pop()  # the last down-sampling leads nowhere
    if shuffle:
        graph.rng.shuffle(outputs)
    if metadata is None:
        metadata = {"character": "\n".join(f"label {i}" for i in range(classes))}
    return graph.model({"image": [1, 3, *size]}, dict.fromkeys(outputs), metadata=metadata)


def run_relax(module: tvm.IRModule, *arrays: np.ndarray) -> list[np.ndarray]:
    """Compiles a module with TVM's own pipeline, runs it once, returns its outputs."""
    executable = tvm.compile(module, target="llvm")
    machine = relax.VirtualMachine(executable, tvm.cpu())
    result = machine["main"](*(tvm.runtime.tensor(array) for array in arrays))
    tensors = [result] if hasattr(result, "numpy") else list(result)
    return [tensor.numpy() for tensor in tensors]
