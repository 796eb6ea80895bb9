"""Reptile: move the start towards where training on a task ends."""

from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from operator import itemgetter
from typing import final

import torch
from torch import Tensor, nn
from torch.func import grad
from torch.utils._pytree import tree_leaves, tree_map

from kshot.batching import map_leaves
from kshot.core import Batch, Episode, Inputs, Learner
from kshot.learners.gradient.inner_loop import plainly
from kshot.learners.gradient.layers import check_layers
from kshot.learners.gradient.maml import MAML
from kshot.learners.gradient.update_rules import Slots
from kshot.weights import Weights

__all__ = ["Reptile"]


@final
class Reptile(Learner):
    r"""Train on a task, and take the way from its end back to the start for the meta-gradient.

    .. math:: \theta \leftarrow \theta - \epsilon\, \frac{1}{T} \sum_{t=1}^{T} (\theta - \phi_t)

    :math:`\phi_t` is where some steps on all examples of task t end, support and query alike. The meta-loss is
    :math:`\tfrac12 \lVert \theta - \phi \rVert^2`, whose gradient this is with :math:`\phi` held fixed; epsilon is the
    step size of ``torch.optim.SGD``, one at first and falling to zero in the paper.

    What the rule keeps between steps (moments of Adam) is carried from task to task: like the start it is moved to where
    training ends, and test tasks begin with it too. The paper's code hands it on whole from one task to the next. Another
    outer optimizer than SGD would spoil it, and is not what ``train`` takes by default here.

    With ``tail`` it is first-order MAML as in that paper: the start moves as the last step alone moved, whose batch no
    earlier step saw where a task has ``steps * batch_size`` examples.

    Alex Nichol, Joshua Achiam, John Schulman 2018, "On first-order meta-learning algorithms".

    Args:
        learner: whose start is moved; its rule and step size serve in training too, its own steps at test time only.
        steps: inner steps on a training task.
        batch_size: of the examples of a training task that one of these steps sees, all in turn; by default all at once.
        tail: take the last step for the way, instead of all.

    Raises:
        ValueError: steps or the batch size are below 1, or the learner has parameters that its inner loop does not adapt,
            or layers with values for each step: nothing would train them.
        TypeError: the learner is no MAML.

    >>> from kshot.learners.gradient.update_rules import adam
    >>> inner = MAML(torch.nn.Linear(6, 3), 1e-3, steps=50, differentiate="first_order", rule=adam((0.0, 0.999)))
    >>> learner = Reptile(inner, steps=5, batch_size=10)
    >>> optimizer = torch.optim.SGD(learner.parameters(), lr=1.0)
    """

    fixed_ways = True
    exact_gradient = False

    def __init__(self, learner: MAML, steps: int, batch_size: int | None = None, *, tail: bool = False) -> None:
        if not isinstance(learner, MAML):
            raise TypeError(
                f"Reptile moves the start of a MAML; found a {type(learner).__name__}. Give it MAML(net, lr)."
            )
        super().__init__(learner.loss)
        if steps < 1 or (batch_size is not None and batch_size < 1):
            raise ValueError(f"Reptile expects steps and batch_size of at least 1; found {steps} and {batch_size}.")
        check_layers(learner.model)
        adapted = {f"model.{name}" for name in learner.adapted}
        if others := sorted(name for name, p in learner.named_parameters() if p.requires_grad and name not in adapted):
            raise ValueError(
                f"Reptile moves what the inner loop adapts; {', '.join(others)} would never be trained. Let the loop adapt "
                "them, freeze them by requires_grad_(False), or meta-train by MAML."
            )
        self.learner, self.steps, self.batch_size = copy(learner), steps, batch_size  # with the same weights
        self.tail = tail
        self.transductive, self.uses_unlabelled = learner.transductive, learner.uses_unlabelled
        kept = learner.rule.init(learner.split_weights()[0])
        self.carried = nn.ModuleDict(
            {kind: nn.ParameterList(tensor.detach().clone() for tensor in slot.values()) for kind, slot in kept.items()}
        )
        self.learner.rule = replace(learner.rule, init=self._carried)
        self.settings = learner.settings

    def default_optimizer(self) -> torch.optim.Optimizer:
        """Return SGD with a step size of one: the start moves all the way."""
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def encode(self, x: Inputs) -> Inputs:
        """Embed examples as the learner does."""
        return self.learner.encode(x)

    def adapt(self, support: Batch) -> Weights:
        """Return the weights that the learner adapts."""
        return self.learner.adapt(support)

    def predict(self, state: Weights, x: Inputs) -> Tensor:
        """Return what the learner predicts."""
        return self.learner.predict(state, x)

    def task_loss(self, task: Episode) -> Tensor:
        """Return half the squared way to where training on all examples leads, of weights and of what the rule keeps."""
        start, _ = self.learner.split_weights()
        slots = self.learner.rule.init(start)
        with torch.no_grad():
            end = self._trained(start, slots, tree_map(lambda *parts: torch.cat(parts), *task))
        pairs = zip(tree_leaves((start, slots)), tree_leaves(end), strict=True)
        return torch.stack([(here - there).square().sum() for here, there in pairs]).sum() / 2

    def _trained(self, weights: Weights, slots: Slots, examples: Batch) -> tuple[Weights, Slots]:
        loss = plainly(self.learner.objective)
        start = before = weights
        for step, batch in enumerate(self._batches(examples)):
            before = weights
            gradients = grad(loss)(weights, ({}, batch))
            weights, slots = self.learner.rule.update(gradients, weights, slots, self.learner.step_sizes(weights, step))
        if self.tail:
            weights = {name: start[name] + (end - before[name]) for name, end in weights.items()}
        return weights, slots

    def _carried(self, weights: Weights) -> Slots:
        return {kind: dict(zip(weights, self.carried[kind].parameters(), strict=True)) for kind in self.carried}

    def _batches(self, examples: Batch) -> Iterator[Batch]:
        """Yield a batch for each step, from one random order of the examples after another."""
        n = len(examples.y)
        if self.batch_size is None or self.batch_size >= n:
            yield from [examples] * self.steps
            return
        rounds = -(-self.steps * self.batch_size // n)
        order = torch.cat([torch.randperm(n, device=examples.y.device) for _ in range(rounds)])
        for rows in order[: self.steps * self.batch_size].view(self.steps, self.batch_size):
            yield map_leaves(itemgetter(rows), examples)
