"""What a policy met in a task: it stands where ``Batch`` stands in supervised learning."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

__all__ = ["Samples", "Trajectories"]


class Trajectories(NamedTuple):
    """Trajectories of one task, or with a leading task axis on every tensor those of many.

    ``observations`` is ``(time, n, features)``: what was seen before each action. ``actions`` is ``(time, n, actions)``,
    one-hot for a discrete choice. ``rewards`` and ``mask`` are ``(time, n)``: the mask is one up to the step that ended a
    trajectory, that step included, and zero behind it, where rewards are zero too.
    """

    observations: Float[Tensor, "*tasks time n features"]
    actions: Float[Tensor, "*tasks time n actions"]
    rewards: Float[Tensor, "*tasks time n"]
    mask: Float[Tensor, "*tasks time n"]

    def returns(self) -> Float[Tensor, "*tasks n"]:
        """Return the sum of the rewards of each trajectory, undiscounted.

        >>> import torch
        >>> zeros = torch.zeros(5, 2, 1)
        >>> Trajectories(zeros, zeros, torch.ones(5, 2), torch.ones(5, 2)).returns()
        tensor([5., 5.])
        """
        return self.rewards.sum(-2)


class Samples(NamedTuple):
    """Steps of a task's trajectories as a policy-gradient loss takes them, ``m = time * n`` of them.

    ``weights`` says how much each step counts in a mean: they sum to one, and are zero behind the end of a trajectory.
    """

    observations: Float[Tensor, "*tasks m features"]
    actions: Float[Tensor, "*tasks m actions"]
    advantages: Float[Tensor, "*tasks m"]
    weights: Float[Tensor, "*tasks m"]
