"""Fixtures that several folders of tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
import toy_modules


@pytest.fixture(scope="session")
def toy_library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The compiled toy detector with batch sizes 1 and 2."""
    return toy_modules.compile_toy_detector(tmp_path_factory.mktemp("toy") / "detector.so")


@pytest.fixture(scope="session")
def toy_path(toy_library: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with the toy detector, letterboxed."""
    path = tmp_path_factory.mktemp("toy") / "toy.tvmdet"
    return toy_modules.write_toy(path, toy_library)


@pytest.fixture(scope="session")
def masks_library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The compiled toy detector with masks, batch sizes 1 and 2."""
    path = tmp_path_factory.mktemp("toy") / "masks.so"
    return toy_modules.compile_toy_detector(path, masks=True)


@pytest.fixture(scope="session")
def masks_path(masks_library: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with the toy detector whose masks span their boxes, letterboxed."""
    path = tmp_path_factory.mktemp("toy") / "masks.tvmdet"
    spec = toy_modules.toy_spec(masks={"frame": "box"}).to_dict()
    return toy_modules.write_toy(path, masks_library, spec=spec)


@pytest.fixture(scope="session")
def raw_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with the toy network, compiled without a head."""
    folder = tmp_path_factory.mktemp("raw")
    library = toy_modules.compile_toy_network(folder / "network.so")
    spec = toy_modules.toy_spec(family="raw", labels=()).to_dict()
    return toy_modules.write_toy(folder / "raw.tvmdet", library, spec=spec, raw=toy_modules.RAW)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps tests in one process that share what takes long to compile: a file, or a folder."""
    for item in items:
        folder = item.path.parent
        shared = folder if folder.name == "end_to_end" else item.path
        item.add_marker(pytest.mark.xdist_group(str(shared.relative_to(item.config.rootpath))))
