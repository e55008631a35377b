"""Checks of the options that a spec may give a head."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tvmdet.errors import InputError, ShapeError
from tvmdet.heads.base import GraphSummary
from tvmdet.spec import DetectorSpec

__all__ = [
    "choice",
    "names_of",
    "refuse_unknown_options",
    "strides_of",
    "validate_roles",
    "whole_number",
]

_LARGEST_STRIDE = 1024


def refuse_unknown_options(options: Mapping[str, Any], family: str, known: Sequence[str]) -> None:
    """Refuses options that the family does not have.

    Raises:
        InputError: There is one.
    """
    for name in options:
        if name not in known:
            raise InputError(
                f"the spec has an unknown options.{name}; family {family} has: {', '.join(known)}"
            )


def strides_of(options: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Returns ``options.strides``, or None when it is not given.

    Raises:
        InputError: It is no list of rising strides.
    """
    given = options.get("strides")
    if given is None:
        return None
    whole = (
        isinstance(given, list | tuple)
        and len(given) > 0
        and all(type(stride) is int and 1 <= stride <= _LARGEST_STRIDE for stride in given)
    )
    if not whole or list(given) != sorted(set(given)):
        raise InputError(
            f"the spec's options.strides is {given!r}; allowed: a list of rising whole numbers "
            f"from 1 to {_LARGEST_STRIDE}, one for each level, such as [8, 16, 32]"
        )
    return tuple(given)


def choice(options: Mapping[str, Any], name: str, allowed: Sequence[str]) -> str | None:
    """Returns an option that is one of some words, or None when it is not given.

    Raises:
        InputError: It is another word, or no word.
    """
    given = options.get(name)
    if given is None:
        return None
    if not isinstance(given, str) or given not in allowed:
        raise InputError(f"the spec's options.{name} is {given!r}; allowed: {', '.join(allowed)}")
    return given


def whole_number(options: Mapping[str, Any], name: str, low: int, high: int) -> int | None:
    """Returns an option that is a whole number, or None when it is not given.

    Raises:
        InputError: It is no whole number, or out of range.
    """
    given = options.get(name)
    if given is None:
        return None
    if type(given) is not int or not low <= given <= high:
        raise InputError(
            f"the spec's options.{name} is {given!r}; allowed: a whole number from {low} to {high}"
        )
    return given


def names_of(
    options: Mapping[str, Any], name: str, outputs: Collection[str]
) -> tuple[str, ...] | None:
    """Returns an option that lists outputs of the network, or None when it is not given.

    Raises:
        InputError: It is no list of different outputs.
    """
    given = options.get(name)
    if given is None:
        return None
    listed = isinstance(given, list | tuple) and all(isinstance(item, str) for item in given)
    if not listed or len(set(given)) != len(given) or not set(given) <= set(outputs):
        raise InputError(
            f"the spec's options.{name} is {given!r}; allowed: a list of different outputs of "
            f"the network, which are {', '.join(outputs)}"
        )
    return tuple(given)


def validate_roles(
    spec: DetectorSpec,
    summary: GraphSummary,
    roles: Sequence[str],
    check: Callable[[Mapping[str, tuple[int, ...]], DetectorSpec], object],
) -> None:
    """Refuses a spec that does not name an output for every role, or one of another shape.

    Args:
        spec: What the user says.
        summary: The network.
        roles: Options, each of which names an output.
        check: Raises ShapeError where the shapes, by output, do not fit the spec.

    Raises:
        InputError: A role is missing, or what it names does not fit.
    """
    for key in roles:
        if choice(spec.options, key, tuple(summary.outputs)) is None:
            raise InputError(f"the spec's options lack {key!r}; needed: {', '.join(roles)}")
    shapes = {n: tuple(dim or 0 for dim in v.shape) for n, v in summary.outputs.items()}
    try:
        check(shapes, spec)
    except ShapeError as error:
        raise InputError(str(error)) from error
