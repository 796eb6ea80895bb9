"""Proto-MAML: the inner loop starts from the classifier that prototypes give."""

from typing import final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch, Inputs, Learner
from kshot.learners.gradient.inner_loop import InnerLoop, Mode
from kshot.learners.gradient.layers import check_layers, keeps_statistics, normalises_by_queries, support_statistics
from kshot.learners.gradient.update_rules import UpdateRule, check_step, sgd
from kshot.losses import Loss, cross_entropy
from kshot.plain_operations import PlainOperations
from kshot.validation import check_choice
from kshot.weights import Weights, call, own_weights

__all__ = ["ProtoMAML"]

_WEIGHT, _BIAS = "head weight", "head bias"  # no parameter of a module has a blank in its name


@final
class ProtoMAML(Learner):
    r"""Adapt a network and a last layer by gradient steps, the last layer from the prototypes of the support set.

    .. math:: w_k = 2 c_k, \qquad b_k = -\lVert c_k \rVert^2, \qquad c_k = \frac{\sum_i y_{ik} f(x_i)}{\sum_i y_{ik}}

    Before the first step it classifies as prototypical networks do; the meta-gradient reaches the prototypes too. Unlike
    MAML it takes tasks of any number of classes, and their order does not matter.

    Eleni Triantafillou et al. 2020, "Meta-Dataset: a dataset of datasets for learning to learn from few examples".

    Args:
        body: f, any module that maps examples to features ``(n, d)``.
        lr: the inner step size.
        steps: inner gradient steps.
        differentiate: how the meta-gradient passes through the steps; see ``kshot.learners.gradient.inner_loop``.
        loss: what support and query predictions are judged by.
        rule: how a gradient becomes new weights.

    Raises:
        ValueError: a layer of ``body`` cannot stand inside an inner loop, there is no such ``differentiate``, the
            loss is none of labels, or steps or the step size are negative.

    >>> import torch
    >>> from kshot.core import one_hot
    >>> learner = ProtoMAML(nn.Identity(), lr=0.1, steps=0)
    >>> weights = learner.adapt(Batch(torch.tensor([[0.0], [2.0]]), one_hot([0, 1], 2)))
    >>> learner.predict(weights, torch.tensor([[2.0]]))  # the square of x, 4, less the squared distances
    tensor([[0., 4.]])
    """

    def __init__(
        self,
        body: nn.Module,
        lr: float,
        steps: int = 1,
        differentiate: Mode = "mixed",
        loss: Loss = cross_entropy,
        *,
        rule: UpdateRule | None = None,
    ) -> None:
        super().__init__(loss)
        check_choice("differentiate", differentiate, Mode)
        check_step(lr)
        if not loss.labels:
            raise ValueError(
                f"ProtoMAML classifies; found a loss judged by {loss.metric_name}. For regression take MAML."
            )
        if steps < 0:
            raise ValueError(f"ProtoMAML expects steps of at least 0; found {steps}.")
        check_layers(body)
        self.body, self.lr, self.steps = body, lr, steps
        self.loop = InnerLoop(sgd() if rule is None else rule, differentiate)
        self.exact_gradient = differentiate != "first_order" or steps == 0
        self.settings = {"inner steps": str(steps)}
        self.transductive = normalises_by_queries(body)
        self.uses_unlabelled = self.transductive or keeps_statistics(body)

    def adapt(self, support: Batch) -> Weights:
        """Return the adapted weights of the body and the last layer, and support statistics where the body uses them."""
        body: Weights = own_weights(self.body)
        with PlainOperations():  # so that layers without a rule for vmap have one here too
            features = self.body(support.x)
        counts = support.y.sum(0).clamp_min(1)
        prototypes = support.y.mT @ features / counts[:, None]
        start = {**body, _WEIGHT: 2 * prototypes, _BIAS: -prototypes.square().sum(1)}
        size = {name: weight.new_tensor(self.lr) for name, weight in start.items()}
        weights = self.loop(self._objective, start, support, [size] * self.steps)
        return {**weights, **support_statistics(self.body, lambda: self.predict(weights, support.x))}

    def predict(self, state: Weights, x: Inputs) -> Float[Tensor, "q ways"]:
        """Return the logits of queries, ``(q, ways)``."""
        with PlainOperations():
            return self._outputs(state, x)

    def _objective(self, weights: Weights, support: Batch) -> Tensor:
        return self.loss(self._outputs(weights, support.x), support.y)

    def _outputs(self, weights: Weights, x: Inputs) -> Tensor:
        body = {name: weight for name, weight in weights.items() if name not in (_WEIGHT, _BIAS)}
        return F.linear(call(self.body, body, x), weights[_WEIGHT], weights[_BIAS])
