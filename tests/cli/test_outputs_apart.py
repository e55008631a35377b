"""What a command writes is never what it reads, nor a device."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx_models
import pytest

from tvmdet.cli.files import check_apart, check_writable
from tvmdet.errors import InputError
from tvmdet.files import whole_file


@pytest.fixture
def files(tmp_path: Path, toy_path: Path) -> dict[str, Path]:
    """A model, a compiled file and a picture that may be lost."""
    made = {
        "model": onnx_models.save(onnx_models.yolov8(), tmp_path / "model.onnx"),
        "compiled": tmp_path / "compiled.tvmdet",
        "picture": tmp_path / "picture.png",
    }
    made["compiled"].write_bytes(toy_path.read_bytes())
    assert cv2.imwrite(str(made["picture"]), np.full((32, 48, 3), 200, np.uint8))
    return made


@pytest.mark.parametrize(
    "words",
    [
        ["compile", "{model}", "-o", "{model}"],
        ["compile", "{model}", "--json={model}"],
        ["compile", "{model}", "-o", "new.tvmdet", "--json=new.tvmdet"],
        ["doctor", "{model}", "--save-onnx", "{model}"],
        ["doctor", "{model}", "--json={model}"],
        ["doctor", "{model}", "--shrink", "{model}"],
        ["doctor", "{model}", "--shrink", "new.onnx", "--save-onnx", "new.onnx"],
        ["inspect", "{compiled}", "--json={compiled}"],
        ["inspect", "{compiled}", "--here", "--json={compiled}"],
        ["detect", "{compiled}", "{picture}", "--json={picture}"],
        ["detect", "{compiled}", "{picture}", "--json={compiled}"],
        ["detect", "{compiled}", "{folder}", "--json={picture}"],
        ["tune", "{model}", "--json={model}"],
        ["bench", "{compiled}", "--onnx", "{model}", "--json={model}"],
        ["eval", "{compiled}", "--annotations", "{model}", "--images", ".", "--json={model}"],
    ],
    ids=lambda words: " ".join(words),
)
def test_nothing_is_written_over_what_is_read(
    run: Callable, files: dict[str, Path], words: list[str]
) -> None:
    before = {path: path.read_bytes() for path in files.values()}
    folder = files["picture"].parent
    done = run(*(word.format(**files, folder=folder) for word in words))
    assert (done.code, done.out) == (2, "")
    assert "is a file of this command already, and would be written over" in done.error
    assert {path: path.read_bytes() for path in files.values()} == before


def test_other_spellings_and_links_are_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    (tmp_path / "link").symlink_to("a")
    for name in ("a", "link", f"../{tmp_path.name}/a"):
        with pytest.raises(Exception, match="would be written over"):
            check_apart(tmp_path / name, "-o", (None, tmp_path / "a"))
    check_apart("-", "--json", ("-",))
    check_apart(tmp_path / "b", "-o", (tmp_path / "a",))


def test_devices_and_pipes_stay_what_they_are(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(
        InputError, match=r"pipe: it is no ordinary file.*give -o a name of its own"
    ):
        check_writable(pipe, "-o")
    with pytest.raises(OSError, match="no ordinary file"), whole_file(pipe) as temporary:
        temporary.write_text("x")
    assert pipe.is_fifo() and list(tmp_path.iterdir()) == [pipe]


def test_compile_leaves_a_pipe_alone(run: Callable, files: dict[str, Path], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    done = run("compile", files["model"], "-o", pipe)
    assert done.code == 1 and "it is no ordinary file" in done.error
    assert pipe.is_fifo()


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("https://example.com/a.jpg", "https://example.com/a.jpg is an address, .*download it"),
        ("rtsp://camera/1", "is an address, and nothing is fetched"),
        ("/dev/null", "/dev/null is a device; give an image"),
        ("/dev/stdout", "/dev/stdout is a device"),
    ],
)
def test_sources_are_files(run: Callable, files: dict[str, Path], word: str, says: str) -> None:
    done = run("detect", files["compiled"], word)
    assert (done.code, done.out) == (1, "")
    assert re.search(says, done.error)


def test_results_beside_the_sources_are_named(run: Callable, files: dict[str, Path]) -> None:
    folder = files["picture"].parent
    done = run("detect", files["compiled"], folder, "--save", folder)
    assert done.code == 1
    assert "where --save puts results; save to another folder" in done.error


def test_addresses_and_open_files_are_refused_in_python(
    toy_path: Path, files: dict[str, Path]
) -> None:
    import tvmdet

    with tvmdet.load(toy_path, threads=1) as detector:
        with pytest.raises(InputError, match=r"https://x/a\.jpg is an address"):
            detector.detect("https://x/a.jpg")
        with files["picture"].open("rb") as file:
            source: Any = file
            with pytest.raises(InputError, match="sources is a BufferedReader; allowed: a path"):
                detector.detect(source)
        found = detector.detect(files["picture"], score=0.0)
        every = list(found)
        assert (found[0], found[-1]) == (every[0], every[-1])
        assert found[:2] == every[:2]
        with pytest.raises(IndexError):
            found[len(found)]


def test_a_picture_may_come_through_a_pipe(
    run: Callable, files: dict[str, Path], tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[files["picture"].read_bytes()])
    writer.start()
    done = run("detect", files["compiled"], pipe)
    writer.join(10)
    assert done.code == 0, done.err
