"""Exports networks of the zoo, and what each finds in the drawn pictures. Needs torch.

Usage: export.py < REQUESTS, a JSON list of objects with ``builder``, ``network``, ``exporter``
(script or dynamo), ``opset`` and ``path``.

For each request it writes ``path`` and, beside it, the candidates that ONNX Runtime and the
framework's own post-processing find, as ``.npz``; or a file ``.error`` with what the exporter said.
"""

from __future__ import annotations

import importlib
import io
import json
import sys
import traceback
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from built import Built
from drawn import PICTURES, draw

# Candidates kept of each picture, best first: more than any detector reports.
KEPT = 400
# Of a static output, relative to the largest value: rounding of the two runtimes.
CLOSE = 2e-3


def export(built: Built, exporter: str, opset: int) -> onnx.ModelProto:
    """Returns what torch's exporter writes, without the stack traces in it."""
    names = {"input_names": list(built.inputs), "output_names": list(built.outputs)}
    with warnings.catch_warnings(), torch.no_grad():
        # The exporters warn of every Python branch on a shape; shapes are static here.
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            program = torch.onnx.export(
                built.model,
                built.arguments,
                dynamo=True,
                opset_version=opset,
                verbose=False,
                **names,
            )
            model = program.model_proto
        else:
            buffer = io.BytesIO()
            torch.onnx.export(
                built.model,
                built.arguments,
                buffer,
                dynamo=False,
                opset_version=opset,
                dynamic_axes=built.dynamic or None,
                **names,
            )
            model = onnx.load_from_string(buffer.getvalue())
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in model.graph.value_info:
        del value.metadata_props[:]
    onnx.helper.set_model_props(model, dict(built.metadata))
    return model


def prepare(built: Built, picture: np.ndarray) -> np.ndarray:
    """Returns a picture uint8 ``[h, w, 3]`` RGB as the network wants it, float32 ``[3, h, w]``."""
    pixels = picture if built.color == "rgb" else picture[..., ::-1]
    mean, std = np.asarray(built.mean, np.float32), np.asarray(built.std, np.float32)
    return np.ascontiguousarray(((pixels.astype(np.float32) - mean) / std).transpose(2, 0, 1))


def find(built: Built, model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Returns the candidates of the drawn pictures, by ONNX Runtime and the framework's code.

    Raises:
        RuntimeError: ONNX Runtime and torch disagree: the exporter wrote another network.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    wanted = {entry.name for entry in session.get_inputs()}
    found = {}
    for number in range(PICTURES):
        pixels = prepare(built, draw(*built.size_hw, number))
        fed = {name: value for name, value in built.feed(pixels).items() if name in wanted}
        results = session.run(list(built.outputs), fed)
        outputs = dict(zip(built.outputs, results, strict=True))
        if number == 0:
            _hold_against_torch(built, pixels, outputs)
        candidates = built.decode(outputs)
        best = np.argsort(-candidates.scores.max(axis=1, initial=0), kind="stable")[:KEPT]
        found[f"boxes_{number}"] = candidates.boxes[best].astype(np.float32)
        found[f"scores_{number}"] = candidates.scores[best].astype(np.float32)
        if candidates.points is not None:
            found[f"points_{number}"] = candidates.points[best].astype(np.float32)
    return found


def _hold_against_torch(built: Built, pixels: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
    """Holds ONNX Runtime's outputs against torch's, where their sizes do not depend on data."""
    tensors = [torch.from_numpy(value) for value in built.feed(pixels).values()]
    arguments = [tensors[0]] if isinstance(built.arguments[0], list) else None
    with torch.no_grad():
        results = built.model(arguments) if arguments else built.model(*tensors)
    if isinstance(results, list) and results and isinstance(results[0], dict):
        results = tuple(results[0].values())
    results = results if isinstance(results, tuple | list) else (results,)
    for name, result in zip(built.outputs, results, strict=True):
        want, got = result.numpy(), outputs[name]
        # Suppression on rounded boxes may choose otherwise; that is not the exporter's doing.
        if want.shape != got.shape or "NonMaxSuppression" in str(type(built.model)):
            continue
        if want.dtype.kind != "f" or isinstance(built.arguments[0], list):
            continue
        worst = np.abs(want - got).max(initial=0) / max(np.abs(want).max(initial=0), 1e-6)
        if not worst <= CLOSE:
            raise RuntimeError(f"{name}: ONNX Runtime differs from torch by {worst:.3g}")


def reason(error: BaseException) -> str:
    """Returns in one line why there is no export: what torch's exporter wraps, if anything."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def main() -> None:
    """Exports what standard input asks for."""
    torch.set_num_threads(1)
    networks: dict[tuple[str, str], Built] = {}
    for request in json.load(sys.stdin):
        path = Path(request["path"])
        key = (request["builder"], request["network"])
        try:
            if key not in networks:
                networks.clear()
                torch.manual_seed(20)
                networks[key] = importlib.import_module(key[0]).NETWORKS[key[1]]()
            built = networks[key]
            model = export(built, request["exporter"], request["opset"])
            found = find(built, model)
            if built.finish is not None:
                model = built.finish(model)
        except Exception as error:  # whatever an exporter raises is the result
            path.with_suffix(".error").write_text(reason(error) + "\n")
            traceback.print_exc()
            continue
        np.savez_compressed(
            path.with_suffix(".npz"),
            size_hw=np.asarray(built.size_hw),
            classes=np.asarray(built.classes),
            **found,
        )
        path.write_bytes(model.SerializeToString())
        print(f"wrote {path}", flush=True)


if __name__ == "__main__":
    main()
