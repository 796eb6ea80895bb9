"""A policy with a memory: it sees what it did and what that paid, and so can learn within a trial."""

from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Acted", "RecurrentPolicy"]


class Acted(NamedTuple):
    """What a recurrent policy makes of a step, or of all steps of a trial."""

    logits: Float[Tensor, "*m actions"]
    values: Float[Tensor, "*m"]
    state: Float[Tensor, "1 n hidden"]


@final
class RecurrentPolicy(nn.Module):
    r"""A GRU over :math:`[o_t, a_{t-1}, r_{t-1}, d_{t-1}]`, with the logits of choices and the value of what follows.

    d tells that an episode ended; the state goes on, since the task is the same. Nothing else adapts.

    Yan Duan et al. 2016, "RL²: Fast reinforcement learning via slow reinforcement learning"; Jane Wang et al. 2016,
    "Learning to reinforcement learn".

    Args:
        features: numbers in an observation.
        actions: choices.
        hidden: size of the state.

    >>> policy = RecurrentPolicy(features=1, actions=5, hidden=8)
    >>> seen = policy.inputs(torch.ones(2, 1), torch.zeros(2, 5), torch.zeros(2), torch.zeros(2))
    >>> policy(seen[None], policy.start(2)).logits.shape
    torch.Size([1, 2, 5])
    """

    def __init__(self, features: int, actions: int, hidden: int = 128) -> None:
        super().__init__()
        self.actions, self.hidden = actions, hidden
        self.gru = nn.GRU(features + actions + 2, hidden)
        self.logits, self.value = nn.Linear(hidden, actions), nn.Linear(hidden, 1)
        nn.init.zeros_(self.logits.weight)  # it begins by trying all choices alike
        nn.init.zeros_(self.logits.bias)

    def start(self, n: int) -> Float[Tensor, "1 n hidden"]:
        """Return the state at the beginning of n trials."""
        return self.value.weight.new_zeros(1, n, self.hidden)

    @staticmethod
    def inputs(
        observations: Float[Tensor, "*m features"],
        actions: Float[Tensor, "*m actions"],
        rewards: Float[Tensor, "*m"],
        ended: Float[Tensor, "*m"],
    ) -> Float[Tensor, "*m inputs"]:
        """Join an observation with the action before it, one-hot, its reward, and whether it ended an episode."""
        return torch.cat([observations, actions, rewards[..., None], ended[..., None]], -1)

    def forward(self, inputs: Float[Tensor, "time n inputs"], state: Float[Tensor, "1 n hidden"]) -> Acted:
        """Return logits, values and the last state of steps in a row."""
        outputs, state = self.gru(inputs, state)
        return Acted(self.logits(outputs), self.value(outputs)[..., 0], state)
