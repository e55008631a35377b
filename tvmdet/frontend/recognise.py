"""Which detector family a network belongs to, and what to write when nobody knows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tvmdet.coco_names import spread_over_numbers
from tvmdet.errors import InputError, ModelError
from tvmdet.heads import AtOdds, GraphSummary, Near, Question, Recognition, all_heads, get_head
from tvmdet.heads.angles import says_oriented
from tvmdet.heads.no_detector import refuse_without_boxes
from tvmdet.heads.paddledetection import refuse_metric
from tvmdet.heads.ultralytics import refuse_task
from tvmdet.spec import DetectorSpec, InputSpec, PostprocessSpec

__all__ = ["recognise"]

_OF_ITSELF = "the network normalises"
# What families say of their thresholds.
_THRESHOLDS = re.compile(r"^score [\d.]+, IoU [\d.]+(, as \w+ predicts)?")


def recognise(
    summary: GraphSummary,
    size_hw: tuple[int, int],
    given: Mapping[str, Any],
    source: str = "the spec",
) -> Recognition:
    """Finds the family of a network and merges the user's spec over what was recognised.

    Args:
        summary: The network at batch 1.
        size_hw: Height and width of its input.
        given: The user's spec, which wins; with a ``family`` no other family is asked.
        source: Where that was read, for people.

    Raises:
        ModelError: No family, or several, claim the network, or the given one cannot be.
        InputError: The spec names an unknown family or key, or a value that does not fit.
    """
    if "family" in given:
        found = _ask_for(str(given["family"]), summary, size_hw, given)
    else:
        found = _ask_all(summary, size_hw, given)
    found = _of_bytes(found, summary)
    overrides = {key: value for key, value in given.items() if value not in ({}, None)}
    kept = dict(overrides)
    if spread_over_numbers(given.get("labels") or (), len(found.spec.labels)) == found.spec.labels:
        del kept["labels"]  # the family has put them at their columns
    if summary.takes_bytes and isinstance(kept.get("input"), Mapping):
        # Bytes cannot be normalised before they are fed; divided by 255 they would be 0 or 1.
        told = kept["input"]
        kept["input"] = {key: told[key] for key in told if key not in ("mean", "std")}
    spec = found.spec.override(kept)
    _check_keypoints(spec, found.spec)
    if spec.oriented != found.spec.oriented:
        there = "angles" if found.spec.oriented else "no angles"
        raise InputError(
            f"the spec says oriented = {str(spec.oriented).lower()}, but family {found.family} "
            f"found {there} in the network's outputs; remove oriented"
        )
    get_head(found.family).validate(spec, summary)
    if not overrides:
        return found
    reasons = [one.replace("from the spec", f"from {source}") for one in found.reasons]
    if _fed(spec.input) != _fed(found.spec.input):
        # What the family has by default is no longer true; what the network does itself still is.
        reasons = [one for one in reasons if not one.startswith("input ") or _OF_ITSELF in one]
        reasons.append(f"input {_fed(spec.input)}, from {source}")
    thresholds = _thresholds(spec.postprocess)
    if thresholds != _thresholds(found.spec.postprocess):
        reasons = [_THRESHOLDS.sub(f"{thresholds}, from {source}", one) for one in reasons]
    if kept.get("input") != overrides.get("input"):
        reasons.append(f"mean and std from {source} are not used: bytes are fed as they are")
    reasons.append(f"from {source}: {', '.join(sorted(overrides))}")
    return Recognition(family=found.family, reasons=tuple(reasons), spec=spec)


def _thresholds(given: PostprocessSpec) -> str:
    return f"score {given.score_threshold}, IoU {given.iou_threshold}"


def _fed(given: InputSpec) -> str:
    """Returns how pictures are fed, in words."""
    mean, std = (" ".join(f"{value:g}" for value in table) for table in (given.mean, given.std))
    where = "stretched"
    if given.resize == "letterbox":
        levels = given.pad_value if isinstance(given.pad_value, tuple) else (given.pad_value,)
        border = " ".join(map(str, levels))
        where = f"letterbox from the {given.pad_position.replace('_', ' ')}, border {border}"
        if given.rounding != "nearest":
            where += f", sides rounded {given.rounding.replace('_', ' ')}"
        if given.scale != "auto":
            where += f", boxes by scale {given.scale}"
    how = "" if given.interpolation == "bilinear" else f", {given.interpolation} interpolation"
    return f"{given.color.upper()}, mean {mean}, deviation {std}, {where}{how}"


def _check_keypoints(spec: DetectorSpec, found: DetectorSpec) -> None:
    """Refuses keypoints that the family has not found in the network's outputs."""
    given, there = spec.keypoints, found.keypoints
    if given is None:
        return
    if there is None:
        raise InputError(
            f"the spec has keypoints, but family {found.family} found none in the network's "
            "outputs; remove the table keypoints"
        )
    if (len(given.names), given.scored) != (len(there.names), there.scored):
        scored = "with" if there.scored else "without"
        raise InputError(
            f"the spec's keypoints have {len(given.names)} names and scored = "
            f"{str(given.scored).lower()}; the network has {len(there.names)} points {scored} "
            "a score"
        )


def _of_bytes(found: Recognition, summary: GraphSummary) -> Recognition:
    """Returns a recognition that feeds bytes as they are to a network that takes bytes."""
    if not summary.takes_bytes:
        return found
    plain = replace(found.spec.input, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    line = "the input takes bytes: the network normalises by itself"
    return replace(found, spec=replace(found.spec, input=plain), reasons=(*found.reasons, line))


def _ask_for(
    family: str, summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> Recognition:
    head = get_head(family)
    answer = _unless_oriented(head.examine(summary, size_hw, given), summary, given)
    if isinstance(answer, str):
        advice = "correct the spec, leave the family away to have it recognised, or use --raw"
        if isinstance(answer, Question):
            advice = f"add this to the spec:\n{_indented(answer.spec_text)}"
        raise ModelError(f"the spec says family {family!r} ({head.title}), but {answer}; {advice}")
    return Recognition(
        family=answer.family,
        reasons=(f"family {family} from the spec", *answer.reasons),
        spec=answer.spec,
    )


def _ask_all(
    summary: GraphSummary, size_hw: tuple[int, int], given: Mapping[str, Any]
) -> Recognition:
    if refusal := refuse_task(summary.metadata) or refuse_metric(summary.metadata):
        raise ModelError(
            f"{refusal}; compile the network without a head (--raw) and keep your own "
            "post-processing, or give its family in a spec if the metadata are wrong"
        )
    answers: dict[str, Recognition | str] = {}
    errors: list[InputError] = []
    for head in all_heads():
        try:
            answer = head.examine(summary, size_hw, given)
            answers[head.name] = _unless_oriented(answer, summary, given)
        except InputError as error:  # options of another family may mean nothing to this one
            answers[head.name] = str(error)
            errors.append(error)
    claims = {name: a for name, a in answers.items() if isinstance(a, Recognition)}
    if errors and not claims:
        raise errors[-1]
    if len(claims) == 1:
        (found,) = claims.values()
        title = get_head(found.family).title
        return Recognition(
            family=found.family,
            reasons=(f"family {found.family}: {title}", *found.reasons),
            spec=found.spec,
        )
    outputs = ", ".join(f"{name} {value}" for name, value in summary.exported_outputs.items())
    if claims:
        head_line = f"several detector families claim this network ({outputs}):"
        lines = [f"  {name}: {'; '.join(claim.reasons)}" for name, claim in claims.items()]
    else:
        head_line = f"no known detector family recognises this network ({outputs}):"
        # Where families fit but for something that must be said, the others do not matter.
        asking = [name for name, answer in answers.items() if isinstance(answer, Question)]
        at_odds = [name for name, answer in answers.items() if isinstance(answer, AtOdds)]
        # Those that come near are read first.
        ranked = sorted(answers, key=lambda name: not isinstance(answers[name], Near))
        lines = [f"  {name}: {answers[name]}" for name in asking or at_odds or ranked]
        if at_odds and not asking:
            head_line = f"what is said of this network does not fit it ({outputs}):"
            raise ModelError("\n".join([head_line, *lines, "Correct the spec"]))
    questions = [answer for answer in answers.values() if isinstance(answer, Question)]
    if not claims and not questions and (refusal := refuse_without_boxes(summary, size_hw)):
        raise ModelError(
            f"{refusal} ({outputs}); compile the network without a head (--raw) and keep your own "
            "post-processing"
        )
    texts = [f'family = "{name}"' for name in claims] or [one.spec_text for one in questions]
    advice = _choice(texts) if texts else _advice(size_hw)
    raise ModelError("\n".join([head_line, *lines, advice]))


def _unless_oriented(
    answer: Recognition | str, summary: GraphSummary, given: Mapping[str, Any]
) -> Recognition | str:
    """Returns an answer; a refusal of a family without angles where boxes are oriented."""
    if not isinstance(answer, Recognition) or answer.spec.oriented:
        return answer
    if not says_oriented(summary, given):
        return answer
    return "boxes are oriented, as the metadata or the spec say, and this family's have no angles"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _choice(texts: Sequence[str]) -> str:
    """Returns the spec files that would settle it, as TOML."""
    blocks = "\nor\n".join(map(_indented, texts))
    return (
        "Say which it is in a file detector.toml and give --spec detector.toml:\n"
        f"{blocks}\nor compile the network without a head (--raw) and keep your own "
        "post-processing"
    )


def _advice(size_hw: tuple[int, int]) -> str:
    """Returns the spec file to write, as TOML, and the way without one."""
    families = ", ".join(head.name for head in all_heads())
    return f"""Say what it is in a file detector.toml and give --spec detector.toml:
  # {families}
  family = "one of these"
  labels = ["first class", "second class"]
  [input]
  size_hw = [{size_hw[0]}, {size_hw[1]}]
  color = "rgb"                   # or "bgr"
  resize = "letterbox"            # or "stretch"
  mean = [0.0, 0.0, 0.0]          # in pixel units
  std = [255.0, 255.0, 255.0]
  [postprocess]
  score_threshold = 0.25
  iou_threshold = 0.45
or compile the network without a head (--raw) and keep your own post-processing"""
