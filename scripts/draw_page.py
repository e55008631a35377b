"""Draws a page of a scientific article, for the demo: `draw_page.py FILE.png`."""

from __future__ import annotations

import math
import sys

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, MARGIN, GUTTER = 1240, 1640, 110, 40
COLUMN = (WIDTH - 2 * MARGIN - GUTTER) // 2
INK, PAPER = (25, 25, 25), (252, 252, 250)
LINE = 27
PROSE = (
    "A detector is specialised to the shapes that it serves. Its convolutions are packed once, "
    "at compile time, into the order in which the vector units read them, and the search for "
    "a fast schedule runs on the machine that will serve the pictures. What one run measures is "
    "kept, so that the next one begins where it stopped. The network takes bytes as the camera "
    "gives them; normalisation, decoding and suppression are part of the compiled graph, and "
    "what leaves it are boxes. A build that disagrees with its reference is not written. "
)


def font(size: int) -> ImageFont.FreeTypeFont:
    """Returns Pillow's own font."""
    return ImageFont.load_default(size)


def paragraph(draw: ImageDraw.ImageDraw, x: int, y: int, lines: int, start: int = 0) -> int:
    """Writes justified lines of prose into a column; returns where the next may begin."""
    words = PROSE.split() * 9
    words, face = words[start:], font(19)
    for number in range(lines):
        row: list[str] = []
        while draw.textlength(" ".join([*row, words[0]]), face) < COLUMN:
            row.append(words.pop(0))
        free = COLUMN - sum(draw.textlength(word, face) for word in row)
        step = free / (len(row) - 1)
        if number == lines - 1:
            step = min(step, 6)
        left = float(x)
        for word in row:
            draw.text((left, y), word, INK, face)
            left += draw.textlength(word, face) + step
        y += LINE
    return y


def heading(draw: ImageDraw.ImageDraw, x: int, y: int, text: str) -> int:
    """Writes a section's title; returns where the next may begin."""
    draw.text((x, y), text, INK, font(27), stroke_width=1)
    return y + 50


def chart(draw: ImageDraw.ImageDraw, x: int, y: int) -> int:
    """Draws a figure of two curves with its caption."""
    height = 300
    draw.rectangle((x, y, x + COLUMN, y + height), "white", (120, 120, 120), 2)
    left, bottom = x + 60, y + height - 50
    for tick in range(6):
        level = bottom - tick * 42
        draw.line((left, level, x + COLUMN - 20, level), (220, 220, 220), 2)
        draw.text((x + 18, level - 10), f"{tick * 5}", INK, font(16))
    for color, decay in (((31, 119, 180), 4.0), ((214, 39, 40), 1.6)):
        points = [
            (left + i * (COLUMN - 90) / 60, bottom - 20 - 180 * math.exp(-i * decay / 60))
            for i in range(61)
        ]
        draw.line(points, color, 4)
        for point in points[::6]:
            draw.ellipse((point[0] - 6, point[1] - 6, point[0] + 6, point[1] + 6), color)
    caption = ("Figure 1: Latency of the tuned kernels while", "the search goes on, two machines.")
    draw.multiline_text((x + 20, y + height + 14), "\n".join(caption), INK, font(17))
    return y + height + 85


def numbers(draw: ImageDraw.ImageDraw, x: int, y: int) -> int:
    """Draws a ruled table under its caption."""
    draw.text((x + 20, y), "Table 1: Kernels of one detector, by kind.", INK, font(17))
    rows = [
        ("Kernel", "Count", "Share", "Rate"),
        ("3x3 convolution", "21", "58 %", "226"),
        ("1x1 convolution", "34", "27 %", "219"),
        ("depthwise", "12", "9 %", "41"),
        ("pooling", "3", "2 %", "-"),
        ("elementwise", "18", "3 %", "-"),
        ("suppression", "1", "1 %", "-"),
    ]
    top = y + 34
    for number, row in enumerate(rows):
        level = top + number * 36
        draw.line((x, level, x + COLUMN, level), INK, 3 if number < 2 else 1)
        for text, offset in zip(row, (12, 230, 320, 415), strict=True):
            draw.text((x + offset, level + 8), text, INK, font(19))
    bottom = top + len(rows) * 36
    draw.line((x, bottom, x + COLUMN, bottom), INK, 3)
    return bottom + 34


def main(path: str) -> None:
    """Draws the page and writes it."""
    page = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 50), "Notes on compiled detectors", INK, font(17))
    draw.text((WIDTH - MARGIN - 60, 50), "page 7", INK, font(17))
    title = "From a Graph to Boxes: Compiling Detectors"
    width = draw.textlength(title, font(44))
    draw.text(((WIDTH - width) / 2, 120), title, INK, font(44), stroke_width=1)

    left, right = MARGIN, MARGIN + COLUMN + GUTTER
    y = heading(draw, left, 240, "1  Introduction")
    y = paragraph(draw, left, y, 13)
    y = chart(draw, left, y + 30)
    y = heading(draw, left, y + 10, "2  Search")
    paragraph(draw, left, y, 14, 30)

    y = paragraph(draw, right, 240, 11, 50)
    y = heading(draw, right, y + 24, "3  Results")
    y = paragraph(draw, right, y, 9, 11)
    y = numbers(draw, right, y + 26)
    y = heading(draw, right, y + 6, "4  Discussion")
    paragraph(draw, right, y, 9, 70)
    draw.text((WIDTH / 2 - 10, HEIGHT - 70), "7", INK, font(18))
    page.save(path)


if __name__ == "__main__":
    main(sys.argv[1])
