"""Classes of instructions, against what the assembler makes of their names."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tvmdet.board.block_counts import BasicBlock
from tvmdet.board.instructions import count_instructions, is_branch, multiply_adds

pytestmark = pytest.mark.arm

CLASSES = {
    "fma_f32": [
        "fmla v0.4s, v1.4s, v2.4s",
        "fmls v0.2s, v1.2s, v2.2s",
        "fmla v0.4s, v1.4s, v2.s[3]",
        "fmls v31.4s, v30.4s, v29.s[0]",
        "fmla s0, s1, v2.s[1]",
        "fmadd s0, s1, s2, s3",
        "fnmsub s0, s1, s2, s3",
    ],
    "fma_f16": [
        "fmla v0.8h, v1.8h, v2.8h",
        "fmls v0.4h, v1.4h, v2.4h",
        "fmla v0.8h, v1.8h, v2.h[7]",
        "fmla h0, h1, v2.h[1]",
        "fmadd h0, h1, h2, h3",
        "fmlal v0.4s, v1.4h, v2.4h",
        "fmlal2 v0.4s, v1.4h, v2.4h",
        "fmlsl v0.4s, v1.4h, v2.h[3]",
        "fmlal2 v0.4s, v1.4h, v2.h[3]",
    ],
    "fma_other": [
        "fmla v0.2d, v1.2d, v2.2d",
        "fmls v0.2d, v1.2d, v2.d[1]",
        "fmadd d0, d1, d2, d3",
        "fnmadd d0, d1, d2, d3",
        "sdot v0.4s, v1.16b, v2.16b",
        "udot v0.4s, v1.16b, v2.4b[1]",
        "usdot v0.4s, v1.16b, v2.16b",
        "sudot v0.4s, v1.16b, v2.4b[2]",
        "smmla v0.4s, v1.16b, v2.16b",
        "bfdot v0.4s, v1.8h, v2.8h",
        "bfdot v0.4s, v1.8h, v2.2h[3]",
        "bfmmla v0.4s, v1.8h, v2.8h",
        "bfmlalb v0.4s, v1.8h, v2.8h",
        "bfmlalt v0.4s, v1.8h, v2.h[3]",
        "mla v0.4s, v1.4s, v2.4s",
        "mls v0.8h, v1.8h, v2.h[1]",
        "smlal v0.4s, v1.4h, v2.4h",
        "umlsl2 v0.4s, v1.8h, v2.h[1]",
    ],
    "other_vector": [
        "fadd v0.4s, v1.4s, v2.4s",
        "fmul v0.4s, v1.4s, v2.s[1]",
        "fmul s0, s1, s2",
        "fmulx v0.4s, v1.4s, v2.4s",
        "fmax v0.4s, v1.4s, v2.4s",
        "fcvtl v0.4s, v1.4h",
        "movi v0.4s, #0",
        "dup v0.4s, w1",
        "smull v0.4s, v1.4h, v2.4h",
        "mul v0.4s, v1.4s, v2.4s",
        "fcmgt v0.4s, v1.4s, v2.4s",
        "bsl v0.16b, v1.16b, v2.16b",
        "fmov s0, w1",
        "zip1 v0.4s, v1.4s, v2.4s",
    ],
    "loads": [
        "ldr q0, [x1]",
        "ldr s0, [x1, x2, lsl #2]",
        "ldur q0, [x1, #-16]",
        "ldp q0, q1, [x2], #32",
        "ldr x0, [x1, #8]!",
        "ldrsw x0, [x1]",
        "ldrb w0, [x1, #3]",
        "ldp x29, x30, [sp]",
        "ld1 {v0.4s, v1.4s}, [x1]",
        "ld1r {v0.4s}, [x1], #4",
        "ld4 {v0.4s, v1.4s, v2.4s, v3.4s}, [x1]",
        "ldxr x0, [x1]",
        "ldr x0, .",
    ],
    "stores": [
        "str q0, [x1]",
        "str s0, [x1, x2, lsl #2]",
        "stur q0, [x1, #-16]",
        "stp q0, q1, [x2], #32",
        "str x0, [x1, #8]!",
        "strb w0, [x1, #3]",
        "stp x29, x30, [sp, #-16]!",
        "st1 {v0.4s}, [x1], x2",
        "st2 {v0.4s, v1.4s}, [x1]",
        "stlr x0, [x1]",
    ],
    "branches": ["b .", "b.ne .", "bl .", "blr x1", "br x1", "ret", "cbz x0, .", "tbnz w0, #3, ."],
    "": ["add x0, x1, x2", "mov w0, #1", "madd x0, x1, x2, x3", "nop", "dmb ish", "cmp x0, #4"],
}


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of every instruction of the table."""
    tools = [shutil.which(f"aarch64-linux-gnu-{name}") for name in ("as", "objcopy")]
    assembler, copier = tools
    if assembler is None or copier is None:
        pytest.skip("no assembler for aarch64")
    folder = tmp_path_factory.mktemp("assembled")
    names = [name for group in CLASSES.values() for name in group]
    Path(folder, "all.s").write_text("\n".join(names) + "\n")
    options = ["-march=armv8.6-a+fp16fml", "-o", f"{folder}/all.o", f"{folder}/all.s"]
    subprocess.run([assembler, *options], check=True)
    subprocess.run(
        [copier, "-O", "binary", "-j", ".text", f"{folder}/all.o", f"{folder}/all"], check=True
    )
    data = Path(folder, "all").read_bytes()
    assert len(data) == 4 * len(names)
    return {name: data[4 * i : 4 * i + 4] for i, name in enumerate(names)}


@pytest.mark.parametrize("group", CLASSES)
def test_classes(group: str, codes: dict[str, bytes]) -> None:
    for name in CLASSES[group]:
        code = codes[name]
        block = BasicBlock(place=0, executed=3, owner=-1, instructions=(code,))
        found = {key: n for key, n in count_instructions([block]).to_dict().items() if n}
        assert found == {"all": 3, **({group: 3} if group else {})}, name
        assert is_branch(code) is (group == "branches"), name
        assert bool(multiply_adds(code)) is group.startswith("fma"), name
