"""``tvmdet detect``: find objects in images and videos."""

from __future__ import annotations

import os
from contextlib import nullcontext
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmdet.cli import output
from tvmdet.cli.files import check_apart
from tvmdet.cli.json_output import Json, is_printed
from tvmdet.cli.options import Debug, Threads
from tvmdet.cli.pictures import PictureFolder
from tvmdet.cli.progress import Bar
from tvmdet.cli.records import Records, open_records
from tvmdet.cli.sources import Found, find_sources
from tvmdet.cli.tally import Tally
from tvmdet.counted import counted
from tvmdet.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tvmdet.runtime import Detector

__all__ = ["detect"]

_CHUNK = 16  # images of one call, at least; only results are kept, so any number of images fits


def detect(
    model: Annotated[Path, typer.Argument(metavar="FILE.tvmdet", help="A compiled detector.")],
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE", help="Images, folders, globs such as 'in/**/*.jpg', videos."
        ),
    ],
    score: Annotated[
        float | None,
        typer.Option(
            "--score",
            min=0.0,
            max=1.0,
            metavar="S",
            help="Report what scores more, 0 to 1; else as the file says.",
        ),
    ] = None,
    iou: Annotated[
        float | None,
        typer.Option(
            "--iou",
            min=0.0,
            max=1.0,
            metavar="I",
            help="Of boxes that overlap more, report the best, 0 to 1; else as the file says.",
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", metavar="DIR", help="Write annotated pictures and videos there."),
    ] = None,
    json: Json = None,
    threads: Threads = None,
    debug: Debug = False,
) -> int:
    """Find objects in images, folders, globs and videos."""
    if not debug:
        # What OpenCV and FFmpeg say of a file they cannot use is said once, by tvmdet. Both
        # read this when cv2 is imported.
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    found = find_sources(sources, left_out=save)
    check_apart(json, "--json", (model, *(source.path for source in found)))
    tally = Tally()
    pictures = _detect_in(found, model, {"score": score, "iou": iou}, save, json, threads, tally)
    if not is_printed(json):
        tally.print()
        if pictures is not None:
            output.stdout().print(f"{pictures.count} annotated in {pictures.folder}")
        if json is not None:
            output.stdout().print(f"every detection in {json}")
        if tally.failures < len(found):
            _name_next_step(model, sources, save, json)
    if tally.failures:
        output.error(f"{tally.failures} of {counted(len(found), 'source')} failed, as said above")
        return 1
    return 0


def _detect_in(
    found: Sequence[Found],
    model: Path,
    thresholds: dict[str, float | None],
    save: Path | None,
    json: str | None,
    threads: int | None,
    tally: Tally,
) -> PictureFolder | None:
    """Works through the sources; returns where pictures were saved, if anywhere."""
    from tvmdet.runtime import load

    with load(model, threads=threads) as detector:
        head = {"file": str(model), "model": detector.manifest["model"], "target": detector.target}
        pictures = None if save is None else PictureFolder(save, found)
        with (
            open_records(json, head) as records,
            Bar("detecting", total=len(found)) as bar,
        ):
            work = _Work(detector, thresholds, pictures, records, tally)
            for done in work.through(found):
                bar.update(done, f"{done}/{len(found)}, {counted(tally.objects, 'object')}")
    return pictures


class _Work:
    """Detects in sources, and hands what is found to everyone who wants it."""

    def __init__(
        self,
        detector: Detector,
        thresholds: dict[str, float | None],
        pictures: PictureFolder | None,
        records: Records | None,
        tally: Tally,
    ) -> None:
        self._detector = detector
        self._thresholds = thresholds
        self._pictures = pictures
        self._records = records
        self._tally = tally

    def through(self, sources: Sequence[Found]) -> Iterator[int]:
        """Works through the sources in order; yields how many are done."""
        done = 0
        chunk = max(_CHUNK, 2 * self._detector.batch_sizes[-1])
        for are_videos, group in groupby(sources, key=lambda source: source.is_video):
            alike = list(group)
            step = 1 if are_videos else chunk
            for start in range(0, len(alike), step):
                part = alike[start : start + step]
                if are_videos:
                    yield from (done for _ in self._video(part[0]))
                else:
                    self._images(part)
                done += len(part)
                yield done

    def _images(self, sources: Sequence[Found]) -> None:
        results = self._detector.detect([source.path for source in sources], **self._thresholds)
        for source, found in zip(sources, results, strict=True):
            self._record(found.to_dict())
            if found.error is not None:
                self._tally.fail(found.error)
                continue
            self._tally.add_image(str(source.path), found)
            if self._pictures is None:
                continue
            try:
                picture = self._pictures.draw(source, found)
            except InputError as error:
                self._tally.fail(str(error))
                continue
            self._pictures.save(picture)

    def _video(self, source: Found) -> Iterator[None]:
        """Works through one video; yields after every frame."""
        try:
            frames = self._detector.detect_video(source.path, **self._thresholds)
            with self._pictures.video(source) if self._pictures else nullcontext() as video:
                for number, (image, found) in enumerate(frames):
                    self._record({**found.to_dict(), "source": str(source.path), "frame": number})
                    self._tally.add_frame(str(source.path), found)
                    if video is not None:
                        video.add(found.draw(image))
                    yield
        except InputError as error:
            self._record({"source": str(source.path), "error": str(error), "detections": []})
            self._tally.fail(str(error))

    def _record(self, record: dict[str, Any]) -> None:
        if self._records is not None:
            self._records.add(record)


def _name_next_step(
    model: Path, sources: Sequence[str], save: Path | None, json: str | None
) -> None:
    command = ["tvmdet", "detect", str(model), *sources]
    if save is None:
        output.next_step(*command, "--save", "found")
    elif json is None:
        output.next_step(*command, "--json", "found.json")
    else:
        output.next_step("tvmdet", "inspect", model)
