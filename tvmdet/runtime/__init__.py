"""Compiled detectors, loaded and run.

This package runs on ``tvm_ffi`` and ``libtvm_runtime.so`` alone: importing and using it loads
neither the rest of TVM nor onnx, torch, or tvmdet's frontend, tuning and compiler.
"""

from tvmdet.runtime.detector import Detector
from tvmdet.runtime.loader import load

__all__ = ["Detector", "load"]
