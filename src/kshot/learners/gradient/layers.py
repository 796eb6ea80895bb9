"""What the layers of a model mean for a learner whose inner loop runs through them."""

from collections.abc import Callable

import torch
from torch import nn

from kshot.nets.norm import PerStepNorm, SupportStatisticsNorm, normalises_by_batch, recorded_statistics
from kshot.weights import Weights

__all__ = ["check_layers", "keeps_statistics", "normalises_by_queries", "step_told", "support_statistics"]


def check_layers(model: nn.Module, *, tells_steps: bool = False) -> None:
    """Refuse layers that cannot stand inside an inner loop, or in one that does not tell them which step it is at.

    Raises:
        ValueError: a layer writes running averages, or has values for each step that would never be told.
    """
    if not tells_steps and step_told(model, 0):
        raise ValueError("PerStepNorm has to be told the step, which MAML alone does; use BatchStatisticsNorm.")
    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.track_running_stats:
            raise ValueError(
                f"the model's layer {name!r} ({type(layer).__name__}) writes running averages, which an inner loop cannot. "
                "Use kshot.nets.norm.BatchStatisticsNorm, or track_running_stats=False, or move the layer to an encoder."
            )


def normalises_by_queries(model: nn.Module) -> bool:
    """Return whether a query's output depends on the queries beside it."""
    return any(normalises_by_batch(layer) and not isinstance(layer, SupportStatisticsNorm) for layer in model.modules())


def keeps_statistics(model: nn.Module) -> bool:
    """Return whether queries are to be normalised by statistics of the support set."""
    return any(isinstance(layer, SupportStatisticsNorm) for layer in model.modules())


def support_statistics(model: nn.Module, run: Callable[[], object]) -> Weights:
    """Return the statistics that a state keeps beside its weights; ``run`` shows the support set to the adapted model."""
    if not keeps_statistics(model):
        return {}
    with recorded_statistics(model) as statistics:
        run()
    return statistics


def step_told(model: nn.Module, step: int) -> Weights:
    """Return the buffers that tell layers with values for each step which one it is."""
    return {
        f"{name}.step": torch.full_like(layer.step, step)
        for name, layer in model.named_modules()
        if isinstance(layer, PerStepNorm)
    }
