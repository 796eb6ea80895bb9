"""MAML: weights from which a few gradient steps solve a new task."""

import logging
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor, nn

from kshot.core import Batch, Episode, Inputs, Learner
from kshot.learners.encoded import check_encoder
from kshot.learners.gradient.implicit import proximal_minimum
from kshot.learners.gradient.inner_loop import InnerLoop, Mode, last
from kshot.learners.gradient.layers import (
    check_layers,
    keeps_statistics,
    normalises_by_queries,
    step_told,
    support_statistics,
)
from kshot.learners.gradient.update_rules import Sizes, UpdateRule, check_step, sgd
from kshot.losses import Loss, cross_entropy
from kshot.plain_operations import PlainOperations
from kshot.validation import check_choice
from kshot.weights import Weights, call, own_weights

__all__ = ["MAML", "Differentiate", "LearnedSizes"]

logger = logging.getLogger("kshot")

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
        differentiate: how the meta-gradient passes through the steps; see ``kshot.learners.gradient.inner_loop``. With
            ``"implicit"`` the support loss must draw nothing at random.
        encoder: embeds examples once, before and outside the inner loop.
        adapts: tells by its name whether a parameter of ``model`` takes part in the inner loop; by default all do.
        loss: what support and query predictions are judged by.
        rule: how a gradient becomes new weights; see ``kshot.learners.gradient.update_rules``.
        test_steps: inner gradient steps in eval mode; as many as in training by default.
        learn_lr: meta-learn the step sizes, starting from ``lr``: one for each element of the weights (Zhenguo Li et al.
            2017, "Meta-SGD"), or one for each tensor of them and each step (Antreas Antoniou et al. 2019, "How to train
            your MAML"), the last of which also serves further steps.
        multi_step: for this share of training, at its beginning, the queries are judged after every step, the earlier ones
            ever less (the multi-step loss of the last of these papers); ``Learner.at_progress`` tells how far training is.
        first_order_until: for this share of training, at its beginning, leave the inner gradient out of the meta-gradient
            (derivative-order annealing, of the same paper).
        truncate: differentiate only the last so many steps in full.
        checkpoint_every: keep the weights of every so many steps alone, for long unrolls.
        proximity: for ``implicit``, how strongly adapted weights are drawn to the start.
        cg_steps: for ``implicit``, conjugate gradient iterations.
        damping: for ``implicit``, how many times the identity is added to the system that they solve.

    Raises:
        ValueError: no parameter is adapted, a layer of ``model`` cannot stand inside an inner
            loop or one of ``encoder`` outside of it, a name is unknown, a number is out of its range, or ``implicit`` or
            ``checkpoint_every``, which pass over single steps, meets what needs each of them.
        TypeError: ``rule`` is no UpdateRule.

    >>> from kshot.losses import mean_squared_error
    >>> learner = MAML(nn.Linear(1, 1), lr=0.1, loss=mean_squared_error)
    >>> weights = learner.adapt(Batch(torch.ones(4, 1), torch.ones(4, 1)))
    >>> weights["weight"].shape
    torch.Size([1, 1])
    """

    fixed_ways = True
    progress: Tensor

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
        test_steps: int | None = None,
        learn_lr: LearnedSizes | None = None,
        multi_step: float = 0.0,
        first_order_until: float = 0.0,
        truncate: int | None = None,
        checkpoint_every: int | None = None,
        proximity: float = 2.0,
        cg_steps: int = 5,
        damping: float = 0.0,
    ) -> None:
        super().__init__(loss)
        check_choice("differentiate", differentiate, Differentiate)
        check_step(lr)
        check_layers(model, tells_steps=True)
        self.model, self.encoder = model, nn.Identity() if encoder is None else encoder
        check_encoder(self.encoder)
        self.lr, self.steps, self.differentiate = lr, steps, differentiate
        self.test_steps = steps if test_steps is None else test_steps
        self.multi_step, self.first_order_until = multi_step, first_order_until
        self.rule = sgd() if rule is None else rule
        self.truncate, self.checkpoint_every = truncate, checkpoint_every
        self.proximity, self.cg_steps, self.damping = proximity, cg_steps, damping
        self.settings = {"inner steps": str(self.test_steps)}
        names = tuple(name for name, _ in model.named_parameters())
        self.adapted = names if adapts is None else tuple(filter(adapts, names))
        if not self.adapted:
            raise ValueError(
                f"adapts must accept at least one parameter of the model; it has {', '.join(names) or 'none'}."
            )
        if adapts is not None and self.adapted == names:  # perhaps meant, perhaps a name that the model does not have
            logger.warning("adapts leaves none of the model's parameters out, %s and so on: all adapt", names[0])
        self._check_numbers(learn_lr)
        self.sizes = None if learn_lr is None else self._learned_sizes(learn_lr)
        most = max(steps, self.test_steps)
        unrolled = differentiate in ("mixed", "reverse") and (truncate is None or truncate >= most)
        self._exact = unrolled or most == 0
        self._check_single_steps()
        # Where nobody tells, training is taken to be at its end: the loss after the last step, differentiated in full.
        self.register_buffer("progress", torch.ones(()), persistent=bool(multi_step or first_order_until))
        self.register_load_state_dict_post_hook(_as_loaded)  # type: ignore[no-untyped-call]
        self.at_progress(1.0)
        self.transductive = normalises_by_queries(model)
        self.uses_unlabelled = self.transductive or keeps_statistics(model)

    def encode(self, x: Inputs) -> Inputs:
        """Embed examples by the encoder, where there is one."""
        return self.encoder(x)

    def at_progress(self, share: float) -> None:
        """Judge and differentiate as at this share of training, 0 to 1."""
        self.progress.fill_(share)
        self.judges_every_step = share < self.multi_step
        self.leaves_order_out = share < self.first_order_until
        self.exact_gradient = self._exact and not self.leaves_order_out

    def adapt(self, support: Batch) -> Weights:
        """Return the adapted weights, by name, and what the layers of the model have to be told beside them."""
        return self._with_statistics(last(self._states(support)), support)

    def predict(self, state: Weights, x: Inputs) -> Tensor:
        """Return the outputs of the model with the adapted weights."""
        # So that layers without a rule for vmap have one here too, and the queries' way back the convolutions of the others.
        with PlainOperations(twice=self.training and self.differentiate == "reverse"):
            output: Tensor = call(self.model, state, x)
        return output

    def task_loss(self, task: Episode) -> Tensor:
        """Return the loss of the queries after the last step, or at the beginning of training after every step."""
        if not (self.training and self.judges_every_step):
            return super().task_loss(task)
        after_steps = islice(self._states(task.support), 1, None)
        states = (self._with_statistics(state, task.support) for state in after_steps)
        losses = torch.stack([self.loss(self.predict(state, task.query.x), task.query.y) for state in states])
        return losses @ self._shares(len(losses)).to(losses)

    def _shares(self, steps: int) -> Tensor:
        """Return how much the loss after each step counts: all alike at first, ever more the last; they sum to one."""
        # As in the paper's code, no step counts less than 3 % of its fair share until all but the last are dropped.
        earlier = (1 - self.progress / self.multi_step).clamp_min(0.03) / steps
        return torch.cat([earlier.expand(steps - 1), 1 - (steps - 1) * earlier.view(1)])

    def _states(self, support: Batch) -> Iterator[Weights]:
        """Yield what predicts after no step, and after each step or segment of steps."""
        start, frozen = self.split_weights()
        steps = self.steps if self.training else self.test_steps
        sizes = [self.step_sizes(start, step) for step in range(steps)]
        told = [step_told(self.model, step) for step in range(max(1, steps))]
        givens = [({**frozen, **one}, support) for one in told[:steps]]
        if self.differentiate == "implicit":
            problem = self.objective, start, (frozen, support), sizes
            path = iter([start, proximal_minimum(*problem, self.rule, self.proximity, self.cg_steps, self.damping)])
        else:
            mode: Mode = "first_order" if self.leaves_order_out else self.differentiate
            loop = InnerLoop(self.rule, mode, self.truncate, self.checkpoint_every)
            path = loop.path(self.objective, start, givens, sizes)
        for i, weights in enumerate(path):
            yield {**weights, **told[max(0, i - 1)]}  # what was told at a step also goes with the weights that it makes

    def _with_statistics(self, state: Weights, support: Batch) -> Weights:
        return {**state, **support_statistics(self.model, lambda: self.predict(state, support.x))}

    def objective(self, weights: Weights, given: tuple[Weights, Batch]) -> Tensor:
        """Return what the inner loop descends: the loss of examples, with adapted weights and given frozen ones."""
        frozen, (x, y) = given
        return self.loss(call(self.model, {**weights, **frozen}, x), y)

    def split_weights(self) -> tuple[Weights, Weights]:
        """Return the parameters of the model that the inner loop adapts, and those that it does not."""
        frozen: Weights = own_weights(self.model)
        weights = {name: frozen.pop(name) for name in self.adapted}
        return weights, frozen

    def _check_numbers(self, learn_lr: LearnedSizes | None) -> None:
        InnerLoop(self.rule, truncate=self.truncate, checkpoint_every=self.checkpoint_every)  # which checks them
        if min(self.steps, self.test_steps) < 0:
            raise ValueError(f"steps and test_steps must be at least 0; found {self.steps} and {self.test_steps}.")
        needs = {"multi_step": self.multi_step, "implicit": self.differentiate == "implicit", "learn_lr": learn_lr}
        if self.steps == 0 and (named := [name for name, used in needs.items() if used]):
            raise ValueError(f"steps must be at least 1 for {' and '.join(named)}; found 0.")
        if not (0 <= self.multi_step <= 1 and 0 <= self.first_order_until <= 1):
            raise ValueError(
                "multi_step and first_order_until are shares of training, 0 to 1; "
                f"found {self.multi_step} and {self.first_order_until}."
            )
        if self.proximity <= 0 or self.cg_steps < 1 or self.damping < 0:
            found = f"{self.proximity}, {self.cg_steps} and {self.damping}"
            raise ValueError(f"proximity must be above 0, cg_steps at least 1 and damping at least 0; found {found}.")

    def _check_single_steps(self) -> None:
        implicit = self.differentiate == "implicit"
        skips = implicit or self.checkpoint_every is not None
        needs = {
            "multi_step": self.multi_step,
            "first_order_until": implicit and self.first_order_until,
            "learn_lr": implicit and self.sizes is not None,
            "truncate": implicit and self.truncate is not None,
            "a PerStepNorm layer": step_told(self.model, 0),
        }
        if skips and (found := [name for name, told in needs.items() if told]):
            raise ValueError(
                f"implicit and checkpoint_every pass over single steps, which {' and '.join(found)} needs; leave one out."
            )

    def _learned_sizes(self, kind: LearnedSizes) -> nn.ParameterList:
        check_choice("learn_lr", kind, LearnedSizes)
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


def _as_loaded(learner: MAML, _: object) -> None:
    learner.at_progress(learner.progress.item())
