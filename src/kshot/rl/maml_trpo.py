"""MAML for reinforcement learning: policy gradients inside, a trust-region step outside."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, jvp, vjp, vmap

from kshot.batching import stack, unstack
from kshot.rl.adaptation import Adapted, PolicyGradientSteps
from kshot.rl.gradient_learner import GradientPolicyLearner
from kshot.rl.policies import Parameters, Policy
from kshot.rl.products import Kept, Products
from kshot.rl.trajectories import Samples
from kshot.rl.trpo import Judged, Step, natural_step, search
from kshot.weights import Weights, call

__all__ = ["MAMLTRPO", "Slope", "Update"]


class Update(NamedTuple):
    """What an outer step did; its ``scale`` is zero where no step of the line search was good enough.

    ``predicted`` is the divergence that the quadratic model has for the step that was taken.
    """

    step: Step
    predicted: float
    gradient_norm: float

    def metrics(self) -> dict[str, float]:
        """Return its numbers by name."""
        moved = self.step.judged.divergence
        return {"divergence": moved, "predicted_divergence": self.predicted, "tried": self.step.tried}


@final
class MAMLTRPO(GradientPolicyLearner):
    r"""Meta-learn weights of a policy from which a policy-gradient step leads to a good one, in trust regions.

    .. math::
        \min_w \frac{1}{T} \sum_i L_i(w_i), \qquad \frac{1}{T} \sum_i \mathrm{KL}_i(w_i^\mathrm{old} \| w_i) \le \delta,
        \qquad w_i = w - \alpha \nabla L_i(w)

    Gradient and Fisher information are those of w: with the Jacobian :math:`J_i = I - \alpha H_i` of the adapted weights
    they are the means of :math:`J_i^\top g_i` and :math:`J_i^\top F_i J_i`. Products are exact, over all samples of both
    batches: fewer of them for H would bias the step, since both factors hold their noise.

    Chelsea Finn, Pieter Abbeel, Sergey Levine 2017, "Model-agnostic meta-learning for fast adaptation of deep networks"; the
    outer step is of John Schulman et al. 2015, "Trust region policy optimization".

    Args:
        policy: whose weights are meta-learned, in place.
        lr: alpha, the inner step size.
        first_order: leave H out, as first-order MAML does.
        radius: delta.
        cg_steps: products of conjugate gradients.
        damping: times the identity that is added to the Fisher information.
        fisher_tasks: the Fisher information is the mean over the first so many tasks, which are as random as all; over
            all of them by default. The line search judges all tasks in any case, and shortens a step that the others
            feel more than these: with too few it is short.
        threads: that work on tasks side by side in products; their number changes nothing else.

    Raises:
        ValueError: one of them is out of its range.

    >>> from kshot.rl.policies import GaussianPolicy
    >>> learner = MAMLTRPO(GaussianPolicy(2, 2, hidden=(8,)))
    >>> before, after = (
    ...     Samples(torch.randn(3, 9, 2), torch.randn(3, 9, 2), torch.randn(3, 9), torch.full((3, 9), 1 / 9)) for _ in "12"
    ... )
    >>> learner.update([before], after).step.judged.divergence <= 0.01
    True
    """

    def __init__(
        self,
        policy: Policy,
        lr: float = 0.1,
        *,
        first_order: bool = False,
        radius: float = 0.01,
        cg_steps: int = 10,
        damping: float = 1e-5,
        fisher_tasks: int | None = None,
        threads: int = 1,
    ) -> None:
        if lr < 0 or radius <= 0 or cg_steps < 1 or damping < 0:
            found = f"{lr}, {radius}, {cg_steps} and {damping}"
            raise ValueError(f"expected lr >= 0, radius > 0, cg_steps >= 1 and damping >= 0; found {found}.")
        if threads < 1 or (fisher_tasks is not None and fisher_tasks < 1):
            raise ValueError(f"expected fisher_tasks >= 1 and threads >= 1; found {fisher_tasks} and {threads}.")
        self.policy, self.first_order = policy, first_order
        self.radius, self.cg_steps, self.damping = radius, cg_steps, damping
        self.fisher_tasks = fisher_tasks
        self._map: Callable[..., Iterable[Any]] = map if threads == 1 else ThreadPoolExecutor(threads).map
        self.inner = PolicyGradientSteps(policy, lr)
        self._fisher = Products(self._gradient_and_fisher)

    def update(self, path: Sequence[Samples], after: Samples) -> Update:
        """Take one outer step.

        Args:
            path: for each inner step the samples of all tasks, which the weights before it collected; without any this is
                TRPO on all tasks together. Tensors have a leading task axis.
            after: the samples of all tasks, which the adapted weights collected.

        Raises:
            FloatingPointError: the gradient or the curvature is not finite; the policy is left as it was.
        """
        slope = self.slope(path, after)
        step = natural_step(slope.gradient, slope.fisher, self.radius, self.cg_steps)
        with torch.no_grad():
            start = _flat(dict(self.policy.named_parameters()))
            before: Parameters = vmap(self._acted)(slope.adapted, after)

            def judge(scale: float) -> Judged:
                now = vmap(self._acted)(self._adapted(start + scale * step, path, after), after)
                losses, moved = vmap(self._judged)(before, now, after)
                return Judged(losses.mean().item(), moved.mean().item())

            unmoved = Judged(-(after.weights * after.advantages).sum(-1).mean().item(), 0.0)  # all ratios are one
            found = search(judge, unmoved, self.radius)
            for name, weight in self._unflat(start + found.scale * step).items():
                self.policy.get_parameter(name).copy_(weight)
        return Update(found, found.scale**2 * self.radius, slope.gradient.norm().item())

    def slope(self, path: Sequence[Samples], after: Samples) -> "Slope":
        """Return the meta-gradient and the Fisher information at the present weights; arguments as in ``update``."""
        start: Weights = {name: weight.detach() for name, weight in self.policy.named_parameters()}
        tasks = [
            (samples, [Samples(*(leaf[i] for leaf in one)) for one in path]) for i, samples in enumerate(unstack(after))
        ]

        def differentiate(task: tuple[Samples, list[Samples]]) -> tuple[Tensor, Adapted, Kept]:
            adapted = self.inner.differentiated(start, task[1])
            gradient, fisher = self._fisher.at((adapted.weights, task[0]), adapted.weights)
            adapted = adapted._replace(curvatures=[]) if self.first_order else adapted
            return _flat(adapted.pull(gradient)), adapted, fisher

        first = differentiate(tasks[0])  # traces the products, which the threads then share
        gradients, adapted, fishers = zip(first, *self._map(differentiate, tasks[1:]), strict=True)
        kept = list(zip(adapted, fishers, strict=True))[: self.fisher_tasks]
        weights = stack([one.weights for one in adapted])
        return Slope(torch.stack(gradients).mean(0), weights, kept, self.damping, self._unflat, self._map)

    def _gradient_and_fisher(self, given: tuple[Weights, Samples], v: Weights) -> Any:
        """Return the gradient of one task's loss in its adapted weights, and their Fisher information times v."""
        weights, samples = given

        def outputs(weights: Weights) -> Parameters:
            return call(self.policy, weights, samples.observations)  # type: ignore[no-any-return]

        def loss(parameters: Parameters) -> Tensor:
            likely = self.policy.log_prob(parameters, samples.actions)
            return -(samples.weights * samples.advantages * likely).sum()

        parameters, pull = vjp(outputs, weights)[:2]
        tangent: Parameters = jvp(outputs, (weights,), (v,))[1]
        weighed = tuple(samples.weights[:, None] * part for part in self.policy.metric(parameters, tangent))
        return pull(grad(loss)(parameters))[0], pull(weighed)[0]

    def _adapted(self, start: Tensor, path: Sequence[Samples], after: Samples) -> Weights:
        tasks = len(after.weights)
        weights = {name: one.expand(tasks, *one.shape) for name, one in self._unflat(start).items()}
        for samples in path:
            weights = self.inner(weights, samples)
        return weights

    def _acted(self, weights: Weights, samples: Samples) -> Parameters:
        return call(self.policy, weights, samples.observations)  # type: ignore[no-any-return]

    def _judged(self, before: Parameters, now: Parameters, samples: Samples) -> tuple[Tensor, Tensor]:
        """Return the loss of the policy that acts as now, and its divergence from the one that collected."""
        ratio = (self.policy.log_prob(now, samples.actions) - self.policy.log_prob(before, samples.actions)).exp()
        loss = -(samples.weights * samples.advantages * ratio).sum()
        return loss, (samples.weights * self.policy.divergence(before, now)).sum()

    def _unflat(self, vector: Tensor) -> Weights:
        named = dict(self.policy.named_parameters())
        parts = torch.split(vector, [one.numel() for one in named.values()])
        return {name: part.view(one.shape) for (name, one), part in zip(named.items(), parts, strict=True)}


class Slope(NamedTuple):
    """The meta-gradient, flat in the order of ``policy.parameters()``, and the Fisher information as a product."""

    gradient: Float[Tensor, " d"]
    adapted: Weights  # of all tasks, stacked
    tasks: list[tuple[Adapted, Kept]]
    damping: float
    unflat: Any  # a flat vector as weights by name
    map: Callable[..., Iterable[Any]]  # over tasks, in order

    def fisher(self, v: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        r"""Return :math:`(\frac{1}{T} \sum_i J_i^\top F_i J_i + \text{damping}) v`."""
        direction = self.unflat(v)

        def product(task: tuple[Adapted, Kept]) -> Tensor:
            adapted, fisher = task
            return _flat(adapted.pull(Products.along(fisher, adapted.push(direction))))

        total = torch.zeros_like(v)
        for one in self.map(product, self.tasks):
            total += one
        return total / len(self.tasks) + self.damping * v


def _flat(weights: Weights) -> Float[Tensor, " d"]:
    return torch.cat([weight.reshape(-1) for weight in weights.values()]).detach()
