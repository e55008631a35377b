"""Emulated boards for the tests of compiled ARM code."""

from __future__ import annotations

from arm_kernels import boards

__all__ = ["boards"]
