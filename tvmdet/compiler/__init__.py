"""From an imported detector to one ``.tvmdet`` file that proves itself."""

from tvmdet.compiler.compile import CompileReport, compile

__all__ = ["CompileReport", "compile"]
