"""From an ONNX file to a checked, recognised, static network."""

from tvmdet.diagnosis import Diagnosis, NodeVerdict
from tvmdet.frontend.doctor import diagnose
from tvmdet.frontend.import_onnx import import_onnx
from tvmdet.frontend.limits import Limits
from tvmdet.frontend.model import Model

__all__ = ["Diagnosis", "Limits", "Model", "NodeVerdict", "diagnose", "import_onnx"]
