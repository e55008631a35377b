"""Trains the small detectors of ``models/`` on drawn shapes, and writes them as ONNX.

Usage: train_shapes.py NAME [--folder DIR]
where NAME is one of the networks below. Each takes two to six minutes of a quiet CPU core.
``one_stage`` comes first: the others begin with the backbone that it has learned.

Needs torch, onnx, onnxruntime and OpenCV; ``two_stage`` needs torchvision, ``queries``
transformers and scipy.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import onnxruntime
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from shapes_data import Pool  # noqa: E402

SEED = 7
PICTURES = 3000
COMPARED = 8  # pictures
MOST_DIFFERENCE = 0.01  # boxes are pixels


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one network is trained."""

    module: str
    steps: int
    batch: int
    rate: float
    decay: float = 1e-4
    clip: float = 10.0


RECIPES = {
    "one_stage": Recipe(module="shapes_one_stage", steps=600, batch=16, rate=4e-3),
    "two_stage": Recipe(module="shapes_two_stage", steps=380, batch=8, rate=2e-3),
    "queries": Recipe(module="shapes_queries", steps=1500, batch=8, rate=1.5e-3, clip=1.0),
}


def train(name: str, folder: Path) -> torch.nn.Module:
    """Returns a trained network, in evaluation mode; what it begins with lies in the folder."""
    recipe = RECIPES[name]
    torch.manual_seed(SEED)
    # One thread adds in the same order everywhere, and does not wait for another on a busy machine.
    torch.set_num_threads(1)
    module = importlib.import_module(recipe.module)
    steps = recipe.steps
    pool, model = Pool(PICTURES), module.build(folder)
    count = sum(weight.numel() for weight in model.parameters())
    print(f"{name}: {count} weights", flush=True)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=recipe.rate, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.rate, total_steps=steps, pct_start=0.1
    )
    model.train()
    start, mean = time.monotonic(), 0.0
    for step in range(1, steps + 1):
        value = module.loss(model, pool.batch(recipe.batch))
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(weights, recipe.clip)
        optimizer.step()
        schedule.step()
        mean += (float(value.detach()) - mean) / min(step, 50)
        if step % 50 == 0:
            took = time.monotonic() - start
            print(f"step {step}/{steps}: loss {mean:.4f}, {took:.0f} s", flush=True)
    return model.eval()


def difference(module: ModuleType, model: torch.nn.Module, path: Path) -> float:
    """Returns how far ONNX Runtime is from torch on pictures, at most.

    Raises:
        RuntimeError: Too far.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    worst = 0.0
    for image in Pool(COMPARED).batch(COMPARED).images:
        pixels = image if len(given.shape) == 3 else image[None]
        answers = session.run(None, {given.name: pixels.numpy()})
        with torch.no_grad():
            wanted = module.run(model, image)
        for answer, right in zip(answers, wanted, strict=True):
            if tuple(answer.shape) != tuple(right.shape):
                raise RuntimeError(f"{path}: {answer.shape} instead of {tuple(right.shape)}")
            worst = max(worst, float(abs(answer - right.numpy()).max(initial=0.0)))
    if not worst <= MOST_DIFFERENCE:
        raise RuntimeError(f"{path}: ONNX Runtime is off by {worst}")
    return worst


def main() -> None:
    """Trains and exports what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--folder", type=Path, default=HERE / "models")
    arguments = parser.parse_args()
    model = train(arguments.name, arguments.folder)
    path = arguments.folder / f"shapes_{arguments.name}.onnx"
    arguments.folder.mkdir(parents=True, exist_ok=True)
    # Not committed: the others begin with the weights of ``one_stage``.
    torch.save(model.state_dict(), path.with_suffix(".pt"))
    module = importlib.import_module(RECIPES[arguments.name].module)
    with warnings.catch_warnings():
        # The exporter warns of every Python branch on a shape; shapes are static here.
        warnings.simplefilter("ignore")
        module.export(model, path)
    print(f"wrote {path}: {path.stat().st_size} bytes")
    print(f"ONNX Runtime differs from torch by {difference(module, model, path):.2g} at most")


if __name__ == "__main__":
    main()
