"""The meta-learner LSTM: the update rule is learned too."""

from typing import final

from torch import Tensor, nn

from kshot.core import Batch, Inputs, Learner
from kshot.learners.gradient.inner_loop import InnerLoop, Mode
from kshot.learners.gradient.layers import check_layers, keeps_statistics, normalises_by_queries, support_statistics
from kshot.learners.gradient.learned_rule import LearnedRule
from kshot.losses import Loss, cross_entropy
from kshot.plain_operations import PlainOperations
from kshot.validation import check_choice
from kshot.weights import Weights, call, own_weights

__all__ = ["MetaLSTM"]


@final
class MetaLSTM(Learner):
    r"""Adapt a network by steps whose rule is meta-learned, together with the start.

    .. math:: w_s = f_s \odot w_{s-1} - i_s \odot \nabla L(w_{s-1}; \text{support})

    The gates f and i come from one small LSTM that all coordinates of the weights share, each with a state of its own; see
    ``kshot.learners.gradient.learned_rule``, which also says what is left out.

    Sachin Ravi, Hugo Larochelle 2017, "Optimization as a model for few-shot learning".

    Args:
        model: any module; its output is what the loss takes.
        steps: inner steps; 12 with one shot and 5 with five in the paper.
        differentiate: how the meta-gradient passes through a step. As in the paper ``first_order`` takes the gradients that
            the LSTM sees for constants; ``mixed`` and ``reverse`` are exact.
        loss: what support and query predictions are judged by.
        rule: the learned rule, by default one of 20 units that begins with a step size of 0.01.

    Raises:
        ValueError: a layer of ``model`` cannot stand inside an inner loop, there is no such ``differentiate``, or
            there is no step.

    >>> import torch
    >>> learner = MetaLSTM(nn.Linear(4, 2), steps=3)
    >>> weights = learner.adapt(Batch(torch.randn(2, 4), torch.eye(2)))
    >>> weights["weight"].shape
    torch.Size([2, 4])
    """

    fixed_ways = True

    def __init__(
        self,
        model: nn.Module,
        steps: int = 5,
        differentiate: Mode = "first_order",
        loss: Loss = cross_entropy,
        *,
        rule: LearnedRule | None = None,
    ) -> None:
        super().__init__(loss)
        check_choice("differentiate", differentiate, Mode)
        if steps < 1:
            raise ValueError(f"MetaLSTM expects steps of at least 1, for its rule to take; found {steps}.")
        check_layers(model)
        self.model, self.steps, self.differentiate = model, steps, differentiate
        self.rule = LearnedRule() if rule is None else rule
        self.exact_gradient = differentiate != "first_order"
        self.settings = {"inner steps": str(steps)}
        self.transductive = normalises_by_queries(model)
        self.uses_unlabelled = self.transductive or keeps_statistics(model)

    def adapt(self, support: Batch) -> Weights:
        """Return the adapted weights, by name, and the support statistics where the model normalises by them."""
        start: Weights = own_weights(self.model)
        learned: Weights = own_weights(self.rule)
        loop = InnerLoop(self.rule.rule(), self.differentiate)
        weights = loop(self._objective, start, support, [learned] * self.steps)
        return {**weights, **support_statistics(self.model, lambda: self.predict(weights, support.x))}

    def predict(self, state: Weights, x: Inputs) -> Tensor:
        """Return the outputs of the model with the adapted weights."""
        with PlainOperations():  # so that layers without a rule for vmap have one here too
            output: Tensor = call(self.model, state, x)
        return output

    def _objective(self, weights: Weights, support: Batch) -> Tensor:
        return self.loss(call(self.model, weights, support.x), support.y)
