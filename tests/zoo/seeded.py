"""Random weights that behave like trained ones. Needs torch.

Batch normalisation gets statistics that matter, biases are not zero, activations stay of order
one, and the classifier's bias is moved until a stated number of candidates passes the threshold.
The same versions of the packages draw the same numbers every time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["bias_for_count", "randomise", "scale_outputs"]


@torch.no_grad()
def randomise(model: nn.Module, run: Callable[[], object]) -> None:
    """Draws weights, biases and the statistics of batch normalisation.

    Weights are normal, scaled so that what each layer gives has unit variance on what ``run``
    shows it (Mishkin and Matas, "All you need is a good init", 2015, algorithm 1). Statistics are
    drawn near those of the data: drawn without looking, they would let activations grow with
    every residual sum.

    Args:
        model: The network, in evaluation mode.
        run: Runs it once.
    """
    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, std=0.2)
            hooks.append(module.register_forward_hook(_scaling(module, 1.0)))
        elif getattr(module, "running_mean", None) is not None:
            hooks.append(module.register_forward_pre_hook(_draw_statistics))
    run()
    for hook in hooks:
        hook.remove()


def _draw_statistics(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    (data,) = inputs
    mean = data.mean((0, 2, 3))
    # A channel of a 1x1 map has no variance of its own.
    variance = (data.var((0, 2, 3), correction=0) + data.var()) / 2
    module.running_mean.copy_(mean + torch.randn_like(mean) * 0.2 * variance.sqrt())
    module.running_var.copy_(variance * torch.empty_like(mean).uniform_(0.7, 1.4))
    # FrozenBatchNorm2d keeps these two as buffers.
    module.weight.uniform_(0.6, 1.4)
    module.bias.normal_(std=0.2)


def _scaling(module: nn.Module, deviation: float) -> Callable[..., Tensor | None]:
    """Returns a forward hook that scales the weights, by what it sees first."""
    seen: list[bool] = []

    def scale(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if seen:
            return None
        seen.append(True)
        bias: Tensor | float = 0.0
        if module.bias is not None:
            is_linear = isinstance(module, nn.Linear)
            bias = module.bias if is_linear else module.bias.view(-1, 1, 1)
        spread = (output - bias).std()
        # Queries that are zero at first say nothing about the layer.
        factor = deviation / spread if spread > 1e-6 else 1.0
        module.weight.mul_(factor)
        return (output - bias) * factor + bias

    return scale


@torch.no_grad()
def scale_outputs(layers: Sequence[nn.Module], deviation: float, run: Callable[[], object]) -> None:
    """Scales the weights of ``layers`` until what they give has a standard deviation.

    Classifiers get one of about 2, so that scores differ; layers that move boxes less than 1:
    large moves between random features would turn rounding into other answers.

    Args:
        layers: Convolutions or linear layers.
        deviation: The standard deviation over all of a layer's outputs.
        run: Runs the network once.
    """

    hooks = [layer.register_forward_hook(_scaling(layer, deviation)) for layer in layers]
    run()
    for hook in hooks:
        hook.remove()


@torch.no_grad()
def bias_for_count(
    biases: Sequence[Tensor],
    count: Callable[[], int],
    aim: range,
    *,
    low: float = -40,
    high: float = 40,
) -> int:
    """Moves ``biases`` in place by one number until ``count()`` lies in ``aim``.

    Args:
        biases: Those of the classifiers, or the parts of them that let candidates pass.
        count: How many candidates pass at present; grows with the biases.
        aim: Counts to accept.
        low: Smallest move.
        high: Largest move.

    Returns:
        The count reached.

    Raises:
        RuntimeError: No move reaches the aim.
    """
    start = [bias.clone() for bias in biases]
    reached = -1
    for _ in range(24):
        middle = (low + high) / 2
        for bias, before in zip(biases, start, strict=True):
            bias.copy_(before + middle)
        reached = count()
        if reached in aim:
            return reached
        low, high = (middle, high) if reached < aim.start else (low, middle)
    raise RuntimeError(f"no bias gives {aim} candidates: the last one gave {reached}")
