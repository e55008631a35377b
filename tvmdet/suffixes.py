"""Which files are taken for pictures and videos when a folder is searched."""

from __future__ import annotations

from typing import Final

__all__ = ["IMAGE_SUFFIXES", "UNREAD_SUFFIXES", "VIDEO_SUFFIXES"]

IMAGE_SUFFIXES: Final = frozenset(
    [
        ".avif",
        ".bmp",
        ".gif",
        ".jp2",
        ".jpeg",
        ".jpg",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
"""In lower case. A picture that is named by itself is tried whatever its suffix."""

UNREAD_SUFFIXES: Final = frozenset(
    {".arw", ".cr2", ".cr3", ".dng", ".heic", ".heif", ".jxl", ".nef", ".psd", ".svg"}
)
"""In lower case. Pictures that OpenCV does not read: a folder's are left out, and that is said."""

VIDEO_SUFFIXES: Final = frozenset(
    {".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}
)
"""In lower case. They tell videos from pictures, also where a file is named by itself."""
