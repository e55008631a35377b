"""Fixtures that several folders of tests share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import toy_modules
from together import shared_scope
from tvmdet.targets import Target, get_target


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


@pytest.fixture(params=("x86-64-v3", "x86-64-v4"))
def target(request: pytest.FixtureRequest) -> Target:
    """Each width of x86's vectors that this machine can run."""
    return _runnable(request.param)


@pytest.fixture
def bf16_target() -> Target:
    """AVX-512 with dot products of bfloat16, where this machine has them."""
    return _runnable("x86-64-v4", "bf16")


@pytest.fixture
def amx_target() -> Target:
    """Matrix tiles, where this machine has them."""
    return _runnable("sapphirerapids", "bf16")


def _runnable(name: str, precision: str = "fp32") -> Target:
    found = get_target(name).at_precision(precision)
    if missing := found.missing_features():
        pytest.skip(f"this machine lacks {', '.join(missing)}")
    return found


@pytest.hookimpl(optionalhook=True)  # of xdist, where it is installed
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keeps tests in one process that share what takes long to compile.

    Marks of groups do not do this: xdist 3.8 adds them to a name that pytest 9.2 no longer reads.
    """
    from xdist.scheduler import LoadScopeScheduling

    class TogetherScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return shared_scope(nodeid)

    return TogetherScheduling(config, log)
