"""MAML: weights from which a few gradient steps solve a new task."""

from collections.abc import Callable
from typing import final

from torch import Tensor, nn
from torch.func import functional_call

from kshot.core import Batch, Inputs, Learner
from kshot.learners.gradient.inner_loop import Differentiate, Weights, sgd_step
from kshot.losses import Loss, cross_entropy
from kshot.nets.norm import BatchStatisticsNorm, SupportStatisticsNorm, recorded_statistics

__all__ = ["MAML"]


@final
class MAML(Learner):
    r"""Adapt a network by gradient steps on the support set, from a meta-learned start.

    .. math:: w_{s+1} = w_s - \alpha \nabla L(w_s; \text{support}), \qquad \min_{w_0} L(w_S; \text{query})

    Chelsea Finn, Pieter Abbeel, Sergey Levine 2017, "Model-agnostic meta-learning for fast adaptation of deep networks".
    First-order MAML is ``differentiate="first_order"``. ANIL (Aniruddh Raghu et al. 2020, "Rapid learning or feature
    reuse?") is ``MAML(head, lr, encoder=body)``.

    Args:
        model: any module; its output is what the loss takes.
        lr: the inner step size for the mean loss over the support set. The original code sums over examples and divides
            by the shots, so its step sizes are to be multiplied by the number of ways.
        steps: inner gradient steps.
        differentiate: how the meta-gradient passes through the steps; see ``kshot.learners.gradient.inner_loop``.
        encoder: embeds examples once, before and outside the inner loop.
        adapts: tells by its name whether a parameter of ``model`` takes part in the inner loop; by default all do.
        loss: what support and query predictions are judged by.

    Raises:
        ValueError: no parameter is adapted, or a layer of ``model`` cannot stand inside an inner loop.

    >>> import torch
    >>> from kshot.losses import mean_squared_error
    >>> learner = MAML(nn.Linear(1, 1), lr=0.1, loss=mean_squared_error)
    >>> weights = learner.adapt(Batch(torch.ones(4, 1), torch.ones(4, 1)))
    >>> weights["weight"].shape
    torch.Size([1, 1])
    """

    fixed_ways = True

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        steps: int = 1,
        differentiate: Differentiate = "mixed",
        encoder: nn.Module | None = None,
        adapts: Callable[[str], bool] | None = None,
        loss: Loss = cross_entropy,
    ) -> None:
        super().__init__(loss)
        _check_layers(model)
        self.model, self.encoder = model, nn.Identity() if encoder is None else encoder
        self.lr, self.steps, self.differentiate = lr, steps, differentiate
        self.settings = {"inner steps": str(steps)}
        self.adapted = tuple(name for name, _ in model.named_parameters() if adapts is None or adapts(name))
        if not self.adapted:
            names = ", ".join(name for name, _ in model.named_parameters())
            raise ValueError(f"adapts must accept at least one parameter of the model; it has {names or 'none'}.")
        self._keeps_statistics = any(isinstance(layer, SupportStatisticsNorm) for layer in model.modules())
        self.exact_gradient = differentiate != "first_order"
        self.transductive = any(_normalises_by_queries(layer) for layer in model.modules())
        self.uses_unlabelled = self.transductive or self._keeps_statistics

    def encode(self, x: Inputs) -> Inputs:
        """Embed examples by the encoder, where there is one."""
        return self.encoder(x)

    def adapt(self, support: Batch) -> Weights:
        """Return the adapted weights, by name, and the support statistics where the model normalises by them."""
        weights, frozen = self._split_weights()

        def objective(weights: Weights, given: tuple[Weights, Batch]) -> Tensor:
            frozen, (x, y) = given
            return self.loss(functional_call(self.model, {**weights, **frozen}, (x,)), y)

        for _ in range(self.steps):
            weights = sgd_step(objective, weights, (frozen, support), self.lr, self.differentiate)
        if not self._keeps_statistics:
            return weights
        with recorded_statistics(self.model) as statistics:
            functional_call(self.model, {**weights, **frozen}, (support.x,))
        return {**weights, **statistics}

    def predict(self, state: Weights, x: Inputs) -> Tensor:
        """Return the outputs of the model with the adapted weights."""
        _, frozen = self._split_weights()
        return functional_call(self.model, {**state, **frozen}, (x,))  # type: ignore[no-any-return]

    def _split_weights(self) -> tuple[Weights, Weights]:
        frozen: Weights = dict(self.model.named_parameters())
        weights = {name: frozen.pop(name) for name in self.adapted}
        return weights, frozen


def _normalises_by_queries(layer: nn.Module) -> bool:
    stock = isinstance(layer, nn.modules.batchnorm._BatchNorm) and not layer.track_running_stats
    return stock or type(layer) is BatchStatisticsNorm


def _dropout(layer: nn.Module) -> float:
    if isinstance(layer, nn.MultiheadAttention | nn.RNNBase):
        return float(layer.dropout)  # theirs is no layer of its own
    return layer.p if isinstance(layer, nn.modules.dropout._DropoutNd) else 0.0


def _check_layers(model: nn.Module) -> None:
    for name, layer in model.named_modules():
        if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.track_running_stats:
            raise ValueError(
                f"the model's layer {name!r} ({type(layer).__name__}) writes running averages, which an inner loop cannot. "
                "Use kshot.nets.norm.BatchStatisticsNorm, or track_running_stats=False, or move the layer to the encoder."
            )
        if (p := _dropout(layer)) > 0:
            raise ValueError(
                f"the model's layer {name!r} drops out {p:.0%} at random, so that a step differentiated again would "
                "be another step. Set its p to 0, or move it to the encoder."
            )
