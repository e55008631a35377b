"""How pictures are fed: families' conventions, and what a graph itself says about its input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tvmdet.heads.base import GraphSummary, Normalisation, Question
from tvmdet.heads.dense_inputs import IMAGENET_MEAN, IMAGENET_RGB, IMAGENET_STD, padded, stretched
from tvmdet.heads.libreyolo import libreyolo_input

__all__ = ["UNIT", "detr_input", "fed_input", "mean_levels", "says_how", "stated_input"]

UNIT: dict[str, Any] = {"color": "rgb", "mean": (0.0, 0.0, 0.0), "std": (255.0, 255.0, 255.0)}
_BYTES: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
# By what pixels of 0 to 255 are divided before the network, with what is said of them.
_UNITS = ((1.0, UNIT, "0 to 1"), (255.0, _BYTES, "0 to 255"))

_FEWEST_BLOCKS = 4  # of a vision transformer; RT-DETR's encoder has one GELU
_CLOSE = 0.02  # of the largest pixel; exporters round ImageNet's values, and some have their own

# OWL-ViT's and OWLv2's: CLIP's mean and deviation (``OPENAI_CLIP_MEAN``); their
# ``post_process_object_detection`` reports a patch for its best text alone; OWLv2 pads with black.
_OWL_SPEC = """\
family = "{family}"
[input]    # those of OWL-ViT, in pixel units
color = "rgb"
mean = [122.7709383, 116.7460125, 104.09373615]
std = [68.5005327, 66.6321579, 70.32316305]
resize = "stretch"       # OWLv2: "letterbox", pad_position = "top_left", pad_value = 0
[postprocess]
multi_label = false      # a row is of its best class alone"""


def fed_input(
    summary: GraphSummary,
    usual: Mapping[str, Any],
    line: str,
    family: str,
    given: Mapping[str, Any],
) -> tuple[dict[str, Any], str] | Question:
    """Returns what a network is fed, so that nothing is normalised twice.

    A normalisation inside the network replaces the family's where it is the family's own, or says
    by itself what it is of (:func:`stated_input`). One of other numbers may be a part of it, or
    instead of it: the user is asked. A spec that gives mean and deviation has answered.

    Args:
        summary: The network.
        usual: The family's convention, as arguments of an InputSpec; ``color`` rgb, ``mean`` 0 and
            ``std`` 255 where it does not say. A border of the mean's colour follows the network's
            mean.
        line: The same for people.
        family: The family that asks.
        given: The user's spec.

    Returns:
        Arguments of an InputSpec and a line for people, or what to ask.
    """
    inner = summary.normalisation
    answered = says_how(given)
    bytes_in = summary.takes_bytes
    if inner is None:
        return dict(usual), line
    if inner.unknown and not answered and not bytes_in:
        return Question(
            f"the network computes with its picture before its first convolution "
            f"({', '.join(inner.unknown)}), and what that does is not recognised: say what is fed "
            "to it",
            spec_text=_spec_text(family),
        )
    if inner.reverses:
        usual, line = _turned(usual), f"{line}; the network turns the channels around"
    if bytes_in or _does_nothing(inner):
        return dict(usual), line
    if answered:
        return dict(usual), f"{line}; the network normalises what the spec's input makes of it, too"
    stated = _same_inside(inner, {**UNIT, **usual}) or stated_input(summary)
    if stated is None:
        return Question(
            f"the network normalises its picture itself, by mean {_shown(inner.mean)} and "
            f"deviation {_shown(inner.std)}, which this family does not: say what is fed to it",
            spec_text=_spec_text(family),
        )
    values = {**usual, **stated[0]}
    if isinstance(values.get("pad_value"), tuple):
        values["pad_value"] = mean_levels(summary, stated[0])
    return values, f"{line}, but {stated[1]}"


def says_how(given: Mapping[str, Any]) -> bool:
    """Returns whether a spec gives mean and deviation, which settles what a network is fed."""
    told = given.get("input") or {}
    return "mean" in told and "std" in told


def _spec_text(family: str) -> str:
    return (
        f'family = "{family}"\n[input]    # what the network itself expects\n'
        'color = "rgb"                  # or "bgr"\n'
        "mean = [0.0, 0.0, 0.0]         # in pixel units; normalised besides what it does\n"
        "std = [1.0, 1.0, 1.0]          # or [255.0, 255.0, 255.0] for pixels from 0 to 1"
    )


def _turned(usual: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a convention for a network that turns the channels around first."""
    whole = {**UNIT, **usual}
    for name in ("mean", "std", "pad_value"):
        if isinstance(whole.get(name), tuple):
            whole[name] = whole[name][::-1]
    return {**whole, "color": "bgr" if whole["color"] == "rgb" else "rgb"}


def _does_nothing(inner: Normalisation) -> bool:
    return set(inner.mean) == {0.0} and all(abs(std - 1) < 1e-6 for std in inner.std)


def _same_inside(
    inner: Normalisation, usual: Mapping[str, Any]
) -> tuple[dict[str, Any], str] | None:
    """Returns what is fed to a network that does the whole of a family's normalisation."""
    for unit, table, shown in _UNITS:
        for flip in (1, -1):
            mean = [value * unit / 255 for value in usual["mean"][::flip]]
            std = [value * unit / 255 for value in usual["std"][::flip]]
            if _is_near(inner.mean, mean, unit) and _is_near(inner.std, std, unit):
                colors = ("rgb", "bgr") if usual["color"] == "rgb" else ("bgr", "rgb")
                color = colors[0 if flip == 1 else 1]
                line = f"the network normalises {color.upper()} pixels of {shown} so by itself"
                return {**table, "color": color}, line
    return None


def _is_near(values: Sequence[float], wanted: Sequence[float], unit: float) -> bool:
    """Returns whether values are the same but for rounding."""
    return all(
        abs(value - want) <= 0.01 * abs(want) + 1e-4 * unit
        for value, want in zip(values, wanted, strict=True)
    )


def _shown(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def stated_input(summary: GraphSummary) -> tuple[dict[str, Any], str] | None:
    """Returns how pictures are fed to a network that normalises by itself.

    A network that subtracts ImageNet's mean wants what that mean is of: pixels from 0 to 1, or
    from 0 to 255; the order of the mean's channels is that of the picture.

    Returns:
        ``color``, ``mean`` and ``std`` of an InputSpec, and a line for people; None when the
        network normalises nothing, or by other numbers.
    """
    inner = summary.normalisation
    if inner is None or inner.unknown:
        return None
    for unit, table, shown in _UNITS:
        for color, flip in (("rgb", 1), ("bgr", -1)):
            mean = [value * unit / 255 for value in IMAGENET_MEAN[::flip]]
            std = [value * unit / 255 for value in IMAGENET_STD[::flip]]
            # Caffe's networks divide by nothing: differences of 0 to 255.
            whole = _is_close(inner.std, std, unit) or _is_near(inner.std, [unit / 255] * 3, unit)
            if whole and _is_close(inner.mean, mean, unit):
                line = f"the network normalises {color.upper()} pixels of {shown} by itself"
                return {**table, "color": color}, line
        half = [unit / 2] * 3
        if _is_close(inner.mean, half, unit) and _is_close(inner.std, half, unit):
            line = f"the network turns pixels of {shown} to -1 to 1 by itself; RGB, as is usual"
            line += ", in the end" * inner.reverses
            return {**table, "color": "bgr" if inner.reverses else "rgb"}, line
    return None


def mean_levels(summary: GraphSummary, stated: Mapping[str, Any]) -> tuple[int, int, int]:
    """Returns the border of a network that normalises by itself: zeros, once it has done so.

    torchvision, Detectron2 and MMDetection pad after they normalise (torchvision's
    ``GeneralizedRCNNTransform.batch_images``), that is with the colour that is the mean.

    Args:
        summary: The network, which has a normalisation.
        stated: What :func:`stated_input` says of it.

    Returns:
        Three levels from 0 to 255, in the order of the input's ``color``.
    """
    assert summary.normalisation is not None
    first, second, third = (
        min(max(round(mean * scale + offset), 0), 255)
        for mean, scale, offset in zip(
            summary.normalisation.mean, stated["std"], stated["mean"], strict=True
        )
    )
    return first, second, third


def _is_close(values: Sequence[float], wanted: Sequence[float], unit: float) -> bool:
    return all(
        abs(value - want) <= _CLOSE * unit for value, want in zip(values, wanted, strict=True)
    )


def _answers_for_each_patch(summary: GraphSummary) -> bool:
    """Returns whether a network cuts its picture into patches and has a row for each."""
    stem = summary.stem
    if stem is None or not stem.cuts_patches or len(summary.inputs) != 1:
        return False
    (picture,) = summary.inputs.values()
    sides = [side for side in picture.shape[1:] if side not in (1, 3, None)]
    if len(sides) != 2:
        return False
    patches = math.prod(side // stem.kernel for side in sides if side is not None)
    rows = [value.shape[1] for value in summary.outputs.values() if len(value.shape) == 3]
    return bool(rows) and set(rows) == {patches}


def detr_input(
    summary: GraphSummary, family: str = "rtdetr", given: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], str] | Question:
    """Returns what DETR-like networks with a sigmoid a class are fed, by what the graph shows.

    - RT-DETR, RT-DETRv2, D-FINE, DEIM (queries chosen by a TopK, features sampled or gathered, a
      convolutional stem, an encoder with SiLU): RGB from 0 to 1, stretched to the input's size
      (authors' ``configs/*/include/dataloader.yml``; Hugging Face's ``RTDetrImageProcessor`` has no
      mean).
    - RF-DETR, LW-DETR (a vision transformer's patches), DEIMv2 with one (the GELUs of its blocks,
      where convolutions cut the patches): ImageNet's mean and deviation, stretched
      (``rfdetr/detr.py``; square resize in ``datasets/coco.py``; DEIMv2's
      ``configs/deimv2/deimv2_dinov3_*.yml``).
    - Deformable, Conditional and DAB DETR, DINO: as DETR, ImageNet's mean and deviation, the aspect
      ratio kept (``datasets/coco.py``); LibreYOLO stretches them, whose metadata say so.
    """
    if (libreyolo := libreyolo_input(summary.metadata)) is not None:
        return fed_input(summary, *libreyolo, family, given or {})
    patches = summary.stem is not None and summary.stem.cuts_patches
    gelus = sum(summary.operators.get(name, 0) for name in ("Erf", "Gelu"))
    # Discrete sampling, and exports below opset 16, gather what GridSample would sample.
    sampled = any(summary.operators.get(name) for name in ("GridSample", "GatherElements"))
    chosen = bool(summary.operators.get("TopK")) and sampled
    values: dict[str, Any]
    if _answers_for_each_patch(summary) and not says_how(given or {}):
        return Question(
            "it cuts its picture into patches and answers for each of them, as OWL-ViT does and "
            "none of the detectors that are known to (RF-DETR, LW-DETR): say what is fed to it, "
            "and whether a row may be of several classes",
            spec_text=_OWL_SPEC.format(family=family),
        )
    if patches or (chosen and summary.gates and gelus >= _FEWEST_BLOCKS):
        values = stretched(IMAGENET_RGB)
        line = "input RGB, ImageNet mean and deviation, stretched: a vision transformer (RF-DETR)"
    elif chosen and summary.gates:
        values = stretched(UNIT)
        line = "input RGB / 255, stretched: an encoder with SiLU (RT-DETR, D-FINE)"
    else:
        values = padded(IMAGENET_RGB)
        line = (
            "input RGB, ImageNet mean and deviation, letterbox from the top left: as DETR "
            "(Conditional DETR, Deformable DETR, DINO)"
        )
    return fed_input(summary, values, line, family, given or {})
