"""Every error that tvmdet raises on purpose.

The tree::

    TvmdetError
    ├── ModelError                  the ONNX file or the detector in it
    │   ├── UnsupportedOperatorError    an operator that cannot be imported, with its node
    │   └── ShapeError                  a rank or shape that does not fit
    ├── TargetError                 a target that is unknown, or that this machine is not
    ├── TuningError                 the tuning store or the measuring of kernels
    ├── ParityError                 the compiled detector disagrees with ONNX Runtime
    ├── ArtifactError               a .tvmdet file that is damaged, unsafe or cannot be written
    └── InputError                  an image, an option or a value that a caller passed

A message says what was got, what is allowed and how to fix it.
"""

__all__ = [
    "ArtifactError",
    "InputError",
    "ModelError",
    "ParityError",
    "ShapeError",
    "TargetError",
    "TuningError",
    "TvmdetError",
    "UnsupportedOperatorError",
]


class TvmdetError(Exception):
    """Base of every error that tvmdet raises on purpose."""


class ModelError(TvmdetError):
    """The ONNX file, or the detector in it, cannot be used."""


class UnsupportedOperatorError(ModelError):
    """An ONNX operator cannot be imported; the message names the node and the operator."""


class ShapeError(ModelError):
    """A tensor of the model has a rank or shape that does not fit."""


class TargetError(TvmdetError):
    """A target is unknown, malformed, or not one that this machine can run."""


class TuningError(TvmdetError):
    """The tuning store cannot be used, or kernels cannot be measured."""


class ParityError(TvmdetError):
    """The compiled detector disagrees with ONNX Runtime beyond the stated tolerance."""


class ArtifactError(TvmdetError):
    """A ``.tvmdet`` file is damaged, unsafe, of another version, or cannot be written."""


class InputError(TvmdetError):
    """An image, an option or a value passed by the caller cannot be used."""
