"""From an imported detector to one ``.tvmdet`` file that proves itself."""

from tvmdet.compiler.compile import CompileReport, compile
from tvmdet.compiler.tolerance import Tolerance

__all__ = ["CompileReport", "Tolerance", "compile"]
