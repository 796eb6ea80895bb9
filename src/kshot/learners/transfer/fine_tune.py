"""Fine-tuning: a trained body and a fresh head, trained on the support set for a while."""

from typing import Literal, TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.core import Batch, Inputs, Learner
from kshot.learners.gradient.inner_loop import InnerLoop
from kshot.learners.gradient.layers import keeps_statistics, normalises_by_queries, step_told, support_statistics
from kshot.learners.gradient.update_rules import UpdateRule, momentum
from kshot.learners.transfer.blocks import parameter_blocks
from kshot.losses import Loss, cross_entropy
from kshot.plain_operations import PlainOperations
from kshot.weights import Weights, call, own_weights

__all__ = ["Depth", "FineTune"]

Depth: TypeAlias = Literal["head", "all"] | int

_WEIGHT, _BIAS = "head weight", "head bias"  # no parameter of a module has a blank in its name


@final
class FineTune(Learner):
    r"""Train a new last layer, and as many of the last blocks of the body as one likes, on the support set.

    .. math:: w_{l} \leftarrow w_{l} - \alpha \beta^{l} \nabla_{w_l} L(\text{support})

    l counts blocks from the head, which has 0. The body keeps its weights for the next task, and is not meta-trained: it
    comes from pretraining (``kshot.learners.transfer.Classifier``, say). Its layers stay in eval mode, so that
    normalisation keeps the statistics of pretraining. With ``warm_up`` the head alone is trained first, so that what the
    features know is not lost while the head knows nothing (Ananya Kumar et al. 2022, "Fine-tuning can distort pretrained
    features and underperform out-of-distribution").

    Jason Yosinski et al. 2014, "How transferable are features in deep neural networks?"; rates by depth after Jeremy
    Howard, Sebastian Ruder 2018, "Universal language model fine-tuning for text classification".

    Args:
        body: any module that maps examples to features ``(n, d)``, trained before.
        lr: the step size of the head, alpha.
        steps: gradient steps on the whole support set.
        adapts: the ``"head"`` alone, ``"all"``, or how many of the last blocks of the body beside the head; see
            ``kshot.learners.transfer.blocks``. Parameters that need no gradient are never adapted.
        depth_decay: beta; one for a single rate, 0.4 in the paper.
        head: where the last layer starts: at ``"zero"``, or from the class means, as ``ProtoMAML`` does.
        warm_up: steps that train the head alone, before the others.
        loss: what support and query predictions are judged by.
        rule: how a gradient becomes new weights; momentum of 0.9 by default.

    Raises:
        ValueError: the body has not as many blocks, a layer of it has values for each step, or class means are asked
            for where a loss has no labels.

    >>> from kshot.core import one_hot
    >>> learner = FineTune(nn.Linear(1, 4), lr=0.1, steps=20)
    >>> weights = learner.adapt(Batch(torch.tensor([[0.0], [2.0]]), one_hot([0, 1], 2)))
    >>> learner.predict(weights, torch.tensor([[-1.0], [3.0]])).argmax(1)
    tensor([0, 1])
    """

    meta_trained = False
    exact_gradient = False

    def __init__(
        self,
        body: nn.Module,
        lr: float,
        steps: int = 50,
        adapts: Depth = "all",
        *,
        depth_decay: float = 1.0,
        head: Literal["zero", "mean"] = "zero",
        warm_up: int = 0,
        loss: Loss = cross_entropy,
        rule: UpdateRule | None = None,
    ) -> None:
        super().__init__(loss)
        if step_told(body, 0):
            raise ValueError("PerStepNorm has to be told the step, which MAML alone does; use BatchStatisticsNorm.")
        if head == "mean" and not loss.labels:
            raise ValueError("head='mean' needs labels, of which this loss has none; use head='zero'.")
        self.body = body.eval()
        self.lr, self.steps, self.warm_up, self.head = lr, steps, warm_up, head
        self.rates = self._rates(adapts, depth_decay)
        self.loop = InnerLoop(momentum() if rule is None else rule, "first_order")
        self.settings = {"inner steps": str(warm_up + steps), "adapts": str(adapts)}
        self.transductive = normalises_by_queries(body)
        self.uses_unlabelled = self.transductive or keeps_statistics(body)
        # Where it neither adapts nor normalises by other examples, it encodes all tasks in one pass instead.
        self._runs_body = bool(self.rates) or self.uses_unlabelled

    def train(self, mode: bool = True) -> "FineTune":
        """Set the mode, in which the body alone never trains."""
        super().train(mode)
        self.body.eval()
        return self

    def encode(self, x: Inputs) -> Inputs:
        """Return the features where the body does not adapt, else x itself."""
        features: Inputs = x if self._runs_body else self.body(x)
        return features

    @torch.no_grad()  # of the gradients that lead out of here; those of the steps are taken all the same
    def adapt(self, support: Batch) -> Weights:
        """Return the weights of the last layer and of what is adapted of the body."""
        named = own_weights(self.body)
        features = self._features({}, support.x)
        weights = self._head(features, support.y)
        if self.warm_up:
            weights = self.loop(
                self._head_objective, weights, (features, support.y), self._sizes(weights, self.warm_up)
            )
        weights = {**weights, **{name: named[name] for name in self.rates}}
        weights = self.loop(self._objective, weights, support, self._sizes(weights, self.steps))
        return {**weights, **support_statistics(self.body, lambda: self.predict(weights, support.x))}

    def predict(self, state: Weights, x: Inputs) -> Float[Tensor, "q ways"]:
        """Return logits or targets of queries, ``(q, ways)``."""
        return F.linear(self._features(state, x), state[_WEIGHT], state[_BIAS])

    def _objective(self, weights: Weights, support: Batch) -> Tensor:
        return self.loss(self.predict(weights, support.x), support.y)

    def _head_objective(self, weights: Weights, given: tuple[Tensor, Tensor]) -> Tensor:
        features, y = given
        return self.loss(F.linear(features, weights[_WEIGHT], weights[_BIAS]), y)

    def _features(self, weights: Weights, x: Inputs) -> Tensor:
        body = {name: weight for name, weight in weights.items() if name not in (_WEIGHT, _BIAS)}
        with PlainOperations():  # so that layers without a rule for vmap have one here too
            features: Tensor = call(self.body, body, x) if self._runs_body else x
        return features

    def _head(self, features: Tensor, y: Tensor) -> Weights:
        means: Tensor = y.mT @ features / y.sum(0).clamp_min(1)[:, None]
        if self.head == "mean":
            return {_WEIGHT: 2 * means, _BIAS: -means.square().sum(1)}
        return {_WEIGHT: torch.zeros_like(means), _BIAS: torch.zeros_like(means[:, 0])}

    def _sizes(self, weights: Weights, steps: int) -> list[dict[str, Tensor]]:
        size = {name: weight.new_tensor(self.lr * self.rates.get(name, 1.0)) for name, weight in weights.items()}
        return [size] * steps

    def _rates(self, adapts: Depth, depth_decay: float) -> dict[str, float]:
        """Return how fast each adapted parameter of the body moves, beside the head."""
        blocks = parameter_blocks(self.body)
        count = {"head": 0, "all": len(blocks)}[adapts] if isinstance(adapts, str) else adapts
        if not 0 <= count <= len(blocks):
            raise ValueError(f"adapts must be 'head', 'all' or 0 .. {len(blocks)} blocks of the body; found {adapts}.")
        wanted = {name for name, parameter in self.body.named_parameters() if parameter.requires_grad}
        last = enumerate(reversed(blocks[len(blocks) - count :]), start=1)
        return {name: depth_decay**depth for depth, names in last for name in names if name in wanted}
