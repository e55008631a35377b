"""From an ONNX file to a checked, recognised, static network."""

from tvmdet.frontend.import_onnx import import_onnx
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.model import Model

__all__ = ["Limits", "Model", "import_onnx"]
