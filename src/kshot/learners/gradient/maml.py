"""MAML: weights from which a few gradient steps solve a new task."""

from collections.abc import Callable
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor, nn

from kshot.core import Batch, Inputs, Learner
from kshot.learners.gradient.implicit import proximal_minimum
from kshot.learners.gradient.inner_loop import InnerLoop, Mode
from kshot.learners.gradient.layers import check_layers, keeps_statistics, normalises_by_queries, support_statistics
from kshot.learners.gradient.update_rules import Sizes, UpdateRule, sgd
from kshot.losses import Loss, cross_entropy
from kshot.plain_operations import PlainOperations
from kshot.weights import Weights, call

__all__ = ["MAML", "Differentiate", "LearnedSizes"]

Differentiate: TypeAlias = Literal[Mode, "implicit"]
LearnedSizes: TypeAlias = Literal["per_layer_per_step", "per_parameter"]


@final
class MAML(Learner):
    r"""Adapt a network by gradient steps on the support set, from a meta-learned start.

    .. math:: w_{s+1} = w_s - \alpha \nabla L(w_s; \text{support}), \qquad \min_{w_0} L(w_S; \text{query})

    Chelsea Finn, Pieter Abbeel, Sergey Levine 2017, "Model-agnostic meta-learning for fast adaptation of deep networks".
    First-order MAML is ``differentiate="first_order"``, implicit MAML (Aravind Rajeswaran et al. 2019, "Meta-learning
    with implicit gradients") ``"implicit"``. ANIL (Aniruddh Raghu et al. 2020, "Rapid learning or feature reuse?") is
    ``MAML(head, lr, encoder=body)``.

    Args:
        model: any module; its output is what the loss takes.
        lr: the inner step size for the mean loss over the support set. The original code sums over examples and divides
            by the shots, so its step sizes are to be multiplied by the number of ways.
        steps: inner gradient steps.
        differentiate: how the meta-gradient passes through the steps; see ``kshot.learners.gradient.inner_loop``.
        encoder: embeds examples once, before and outside the inner loop.
        adapts: tells by its name whether a parameter of ``model`` takes part in the inner loop; by default all do.
        loss: what support and query predictions are judged by.
        rule: how a gradient becomes new weights; see ``kshot.learners.gradient.update_rules``.
        learn_lr: meta-learn the step sizes, starting from ``lr``: one for each element of the weights (Zhenguo Li et al.
            2017, "Meta-SGD"), or one for each tensor of them and each step (Antreas Antoniou et al. 2019, "How to train
            your MAML"), the last of which also serves further steps.
        truncate: differentiate only the last so many steps in full.
        checkpoint_every: keep the weights of every so many steps alone, for long unrolls.
        proximity: for ``implicit``, how strongly adapted weights are drawn to the start.
        cg_steps: for ``implicit``, conjugate gradient iterations.

    Raises:
        ValueError: no parameter is adapted, or a layer of ``model`` cannot stand inside an inner loop.

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
        *,
        rule: UpdateRule | None = None,
        learn_lr: LearnedSizes | None = None,
        truncate: int | None = None,
        checkpoint_every: int | None = None,
        proximity: float = 2.0,
        cg_steps: int = 5,
    ) -> None:
        super().__init__(loss)
        check_layers(model)
        self.model, self.encoder = model, nn.Identity() if encoder is None else encoder
        self.lr, self.steps, self.differentiate = lr, steps, differentiate
        self.rule = sgd() if rule is None else rule
        self.truncate, self.checkpoint_every = truncate, checkpoint_every
        self.proximity, self.cg_steps = proximity, cg_steps
        self.settings = {"inner steps": str(steps)}
        self.adapted = tuple(name for name, _ in model.named_parameters() if adapts is None or adapts(name))
        if not self.adapted:
            names = ", ".join(name for name, _ in model.named_parameters())
            raise ValueError(f"adapts must accept at least one parameter of the model; it has {names or 'none'}.")
        self.sizes = None if learn_lr is None else self._learned_sizes(learn_lr)
        self.exact_gradient = differentiate in ("mixed", "reverse") and truncate is None
        self.transductive = normalises_by_queries(model)
        self.uses_unlabelled = self.transductive or keeps_statistics(model)

    def encode(self, x: Inputs) -> Inputs:
        """Embed examples by the encoder, where there is one."""
        return self.encoder(x)

    def adapt(self, support: Batch) -> Weights:
        """Return the adapted weights, by name, and the support statistics where the model normalises by them."""
        start, frozen = self.split_weights()
        sizes = [self.step_sizes(start, step) for step in range(self.steps)]
        given = frozen, support
        if self.differentiate == "implicit":
            weights = proximal_minimum(self.objective, start, given, sizes, self.rule, self.proximity, self.cg_steps)
        else:
            loop = InnerLoop(self.rule, self.differentiate, self.truncate, self.checkpoint_every)
            weights = loop(self.objective, start, given, sizes)
        return {**weights, **support_statistics(self.model, lambda: self.predict(weights, support.x))}

    def predict(self, state: Weights, x: Inputs) -> Tensor:
        """Return the outputs of the model with the adapted weights."""
        with PlainOperations():  # so that layers without a rule for vmap have one here too
            output: Tensor = call(self.model, state, x)
        return output

    def objective(self, weights: Weights, given: tuple[Weights, Batch]) -> Tensor:
        """Return what the inner loop descends: the loss of examples, with adapted weights and given frozen ones."""
        frozen, (x, y) = given
        return self.loss(call(self.model, {**weights, **frozen}, x), y)

    def split_weights(self) -> tuple[Weights, Weights]:
        """Return the parameters of the model that the inner loop adapts, and those that it does not."""
        frozen: Weights = dict(self.model.named_parameters())
        weights = {name: frozen.pop(name) for name in self.adapted}
        return weights, frozen

    def _learned_sizes(self, kind: LearnedSizes) -> nn.ParameterList:
        weights, _ = self.split_weights()
        if kind == "per_parameter":
            return nn.ParameterList([torch.full_like(weight, self.lr)[None] for weight in weights.values()])
        return nn.ParameterList([weight.new_full((self.steps,), self.lr) for weight in weights.values()])

    def step_sizes(self, weights: Weights, step: int) -> Sizes:
        """Return the step size of each of the weights at one step."""
        if self.sizes is None:
            return {name: weight.new_tensor(self.lr) for name, weight in weights.items()}
        # Learned sizes have a leading axis of steps.
        return {name: sizes[min(step, len(sizes) - 1)] for name, sizes in zip(weights, self.sizes, strict=True)}
