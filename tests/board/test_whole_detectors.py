"""One command from ONNX to a file for two machines: the same detections on both."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from assertions import assert_detections_close
from tvmdet.targets import get_target

import tvmdet
from tvmdet.board.detector import load_on_board
from tvmdet.board.emulator import Emulator, why_no_emulator
from tvmdet.board.session import BoardAddress
from tvmdet.cli import main

ZOO = Path(__file__).parents[1] / "zoo"
sys.path.append(str(ZOO))
import shapes  # noqa: E402

pytestmark = pytest.mark.arm

SPECS = {
    "shapes_one_stage": "",
    "shapes_queries": f"labels = {json.dumps(shapes.LABELS)}\n",
}


@pytest.mark.parametrize("name", ["cortex-a72", "cortex-a76"])
@pytest.mark.parametrize("network", SPECS)
def test_the_same_detections_on_both_machines(
    network: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if missing := why_no_emulator():
        pytest.skip(missing)
    spec, output = tmp_path / "spec.toml", tmp_path / "both.tvmdet"
    spec.write_text(SPECS[network], encoding="utf-8")
    words = ["compile", ZOO / "models" / f"{network}.onnx", "--target", f"host,{name}"]
    words += ["--spec", spec, "-o", output, "--logs", tmp_path / "no logs", "--json"]
    assert main([*map(str, words)]) == 0
    certificate = json.loads(capsys.readouterr().out)["parity"][name]
    assert certificate["emulated"] == f"qemu-aarch64 -cpu {name}"
    assert certificate["boxes"] > 0
    assert certificate["worst_iou"] >= 0.99 and certificate["worst_score_drift"] <= 1e-3

    picture = shapes.draw(5).pixels
    with tvmdet.load(output) as here:
        assert here.target == get_target("host").name
        expected = here.detect(picture, score=0.1)
    with Emulator(name) as board:
        address = BoardAddress(host="127.0.0.1", port=board.port)
        with load_on_board(output, address, name) as there:
            found = there.detect(picture, score=0.1)
        with pytest.raises(tvmdet.TargetError, match=f"no target 'z80'; it holds: .*{name}"):
            load_on_board(output, address, "z80")
    assert len(expected) > 0
    assert_detections_close(found, expected, score_threshold=0.1)
