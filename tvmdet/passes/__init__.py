"""Relax to Relax, one pass per file; :mod:`tvmdet.passes.lower` lists them in their order."""

from tvmdet.passes.lower import lower

__all__ = ["lower"]
