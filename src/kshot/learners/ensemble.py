"""Deep ensembles: what several learners say together, each learned from a start of its own."""

import math
from collections.abc import Sequence
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from kshot.core import Batch, Episode, Inputs, Learner

__all__ = ["Ensemble"]

_ANY = ("transductive", "order_sensitive", "fixed_ways", "uses_unlabelled")


@final
class Ensemble(Learner):
    r"""Average the predictions of learners of one kind that were initialised apart.

    .. math::
        p(y \mid x) = \frac{1}{M} \sum_{m=1}^{M} p_m(y \mid x), \qquad
        \mathcal{L} = \sum_{m=1}^{M} \mathcal{L}_m

    Logits give the logarithm of the mean of probabilities; means and deviations give those of the mixture,
    :math:`s^2 = \overline{s_m^2} + \overline{(\mu_m - \mu)^2}`; anything else is averaged as it is. The meta-loss is the
    sum of the members' own: each gets the gradient that it would get alone, so that one run trains all of them.

    Balaji Lakshminarayanan, Alexander Pritzel, Charles Blundell 2017, "Simple and scalable predictive uncertainty
    estimation using deep ensembles".

    Args:
        members: two or more learners, of one class and with one loss.

    Raises:
        ValueError: there are fewer than two, or they differ in class or loss.

    >>> from kshot.core import one_hot
    >>> from kshot.learners import metric
    >>> learner = Ensemble([metric.Prototypical(nn.Linear(2, 3)) for _ in range(5)])
    >>> state = learner.adapt(Batch(learner.encode(torch.randn(4, 2)), one_hot([0, 0, 1, 1], 2)))
    >>> learner.predict(state, learner.encode(torch.randn(7, 2))).exp().sum(1).allclose(torch.ones(7))
    True
    """

    def __init__(self, members: Sequence[Learner]) -> None:
        kinds = {type(member).__name__ for member in members}
        losses = {member.loss for member in members}
        if len(members) < 2 or len(kinds) > 1 or len(losses) > 1:
            raise ValueError(
                "Ensemble expects two or more learners of one class with one loss; found "
                f"{len(members)} of {sorted(kinds)} with {len(losses)} losses."
            )
        super().__init__(members[0].loss)
        self.members = nn.ModuleList(members)
        self.settings = {**members[0].settings, "members": f"{len(members)} {kinds.pop()}"}
        for flag in _ANY:
            setattr(self, flag, any(getattr(member, flag) for member in members))
        self.meta_trained = all(member.meta_trained for member in members)

    @property
    def exact_gradient(self) -> bool:  # type: ignore[override]
        """Whether every member's is, which may depend on how far training is."""
        return all(member.exact_gradient for member in self._learners())

    def default_optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer of a member, for all members."""
        first, *others = self._learners()
        optimizer = first.default_optimizer()
        optimizer.add_param_group({"params": [parameter for other in others for parameter in other.parameters()]})
        return optimizer

    def encode(self, x: Inputs) -> tuple[Inputs, ...]:
        """Return what each member's encoder makes of the examples."""
        return tuple(member.encode(x) for member in self._learners())

    def adapt(self, support: Batch) -> tuple[Any, ...]:
        """Return the members' states."""
        return tuple(member.adapt(Batch(x, support.y)) for member, x in zip(self._learners(), support.x, strict=True))

    def predict(self, state: tuple[Any, ...], x: tuple[Inputs, ...]) -> Tensor:
        """Return the logarithm of the mean probabilities ``(q, ways)``, or the mean prediction."""
        own = [member.predict(*pair) for member, *pair in zip(self._learners(), state, x, strict=True)]
        predictions = torch.stack(own)
        if self.loss.softmax:
            return predictions.log_softmax(-1).logsumexp(0) - math.log(len(own))
        return _mixture(predictions) if self.loss.gaussian else predictions.mean(0)

    def task_loss(self, task: Episode) -> Tensor:
        """Return the sum of the members' losses."""
        (sx, sy), (qx, qy) = task
        tasks = (Episode(Batch(s, sy), Batch(q, qy)) for s, q in zip(sx, qx, strict=True))
        return torch.stack([m.task_loss(own) for m, own in zip(self._learners(), tasks, strict=True)]).sum()

    def _learners(self) -> list[Learner]:
        return cast(list[Learner], list(self.members))


def _mixture(predictions: Tensor) -> Tensor:
    means, log_deviations = predictions.chunk(2, -1)
    variance = (2 * log_deviations).exp().mean(0) + means.var(0, correction=0)
    return torch.cat([means.mean(0), variance.log() / 2], -1)
