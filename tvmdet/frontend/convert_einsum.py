"""Einsum as a matrix product, which has fast kernels; TVM's own is one loop over every letter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import relax
from tvm.relax.frontend.onnx import onnx_frontend

__all__ = ["Einsum", "explicit_equation"]


@dataclass(frozen=True, kw_only=True)
class _Product:
    """An equation of two operands, its letters by what becomes of them.

    Attributes:
        left: Letters of the first operand.
        right: Letters of the second one.
        output: Letters of the result.
    """

    left: str
    right: str
    output: str

    @classmethod
    def parse(cls, equation: str) -> _Product | None:
        """Reads ``bnqd,bnkd->bnqk``; None of what is no plain product of two operands."""
        inputs, _, output = explicit_equation(equation).partition("->")
        left, comma, right = inputs.partition(",")
        if not comma or "," in right or "." in equation:
            return None
        if any(len(set(letters)) < len(letters) for letters in (left, right, output)):
            return None
        return cls(left=left, right=right, output=output)

    @property
    def batch(self) -> str:
        """Letters of all three, in the order of the result."""
        return "".join(c for c in self.output if c in self.left and c in self.right)

    @property
    def summed(self) -> str:
        """Letters of both operands and not of the result."""
        return "".join(c for c in self.left if c in self.right and c not in self.output)

    def alone(self, letters: str) -> str:
        """Returns letters of one operand that only the result has too, in its order."""
        return "".join(c for c in self.output if c in letters and c not in self.batch)


def explicit_equation(equation: str) -> str:
    """Returns an equation without spaces and with its result: ``qd , kd`` is ``qd,kd->kq``.

    Without an arrow the result has every letter that occurs once, by the alphabet, after what
    ``...`` stands for (the ONNX standard of Einsum).
    """
    plain = equation.replace(" ", "")
    if "->" in plain:
        return plain
    letters = plain.replace(".", "").replace(",", "")
    once = "".join(sorted(letter for letter in set(letters) if letters.count(letter) == 1))
    return f"{plain}->{'...' if '...' in plain else ''}{once}"


class Einsum(onnx_frontend.Einsum):  # type: ignore[misc]
    """``matmul`` of two operands, or ``multiply`` where nothing is summed."""

    @classmethod
    def _impl_v12(cls, bb: Any, inputs: Any, attr: Any, params: Any) -> Any:
        product = _Product.parse(attr["equation"].decode("utf-8"))
        if len(inputs) != 2 or product is None:
            return super()._impl_v12(bb, inputs, attr, params)
        left, left_letters = _sum_alone(bb, inputs[0], product.left, product.right + product.output)
        right, right_letters = _sum_alone(
            bb, inputs[1], product.right, product.left + product.output
        )
        sides = ((left, left_letters), (right, right_letters))
        sized = [pair for value, names in sides for pair in zip(names, _shape(value), strict=True)]
        sizes = dict(sized)
        if any(sizes[letter] != size for letter, size in sized):  # a side of 1 is repeated
            return super()._impl_v12(bb, inputs, attr, params)
        if not product.summed:
            return relax.op.multiply(
                *(_spread(bb, value, letters, product.output, sizes) for value, letters in sides)
            )
        batch, summed = product.batch, product.summed
        rows, columns = product.alone(left_letters), product.alone(right_letters)
        first = _arrange(bb, left, left_letters, (batch, rows, summed), sizes)
        second = _arrange(bb, right, right_letters, (batch, summed, columns), sizes)
        found = bb.normalize(relax.op.matmul(first, second))
        made = batch + rows + columns
        found = bb.normalize(relax.op.reshape(found, [sizes[c] for c in made]))
        return _permute(bb, found, made, product.output)


def _shape(value: Any) -> list[int]:
    return [int(size) for size in value.ty.shape]


def _sum_alone(bb: Any, value: Any, letters: str, others: str) -> tuple[Any, str]:
    """Sums what no other operand and not the result has; returns the value and its letters."""
    axes = [at for at, letter in enumerate(letters) if letter not in others]
    if not axes:
        return value, letters
    kept = "".join(letter for letter in letters if letter in others)
    return bb.normalize(relax.op.sum(value, axes)), kept


def _permute(bb: Any, value: Any, letters: str, wanted: str) -> Any:
    if letters == wanted:
        return value
    return bb.normalize(relax.op.permute_dims(value, [letters.index(c) for c in wanted]))


def _arrange(
    bb: Any, value: Any, letters: str, groups: Sequence[str], sizes: dict[str, int]
) -> Any:
    """Returns a value with an axis for each group of letters; the first one only if it has any."""
    value = _permute(bb, value, letters, "".join(groups))
    kept = [group for at, group in enumerate(groups) if group or at]
    shape = [math.prod(sizes[c] for c in group) for group in kept]
    if shape == _shape(value):
        return value
    return bb.normalize(relax.op.reshape(value, shape))


def _spread(bb: Any, value: Any, letters: str, wanted: str, sizes: dict[str, int]) -> Any:
    """Returns a value in the order of the result, with axes of 1 where it has none."""
    value = _permute(bb, value, letters, "".join(c for c in wanted if c in letters))
    shape = [sizes[c] if c in letters else 1 for c in wanted]
    return bb.normalize(relax.op.reshape(value, shape))
