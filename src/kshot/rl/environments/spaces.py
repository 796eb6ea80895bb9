"""Gymnasium's spaces as tensors: flat observations, actions in [-1, 1] or one-hot rows."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

try:
    from gymnasium.spaces import Box, Discrete, Space
except ImportError as error:
    raise ImportError("this needs gymnasium: pip install 'kshot[rl]'") from error

__all__ = ["FlatSpaces"]


class FlatSpaces:
    r"""How observations and actions of an environment look to a policy.

    An observation is flattened. A number of an action that is bounded on both sides comes in [-1, 1], beyond which it is
    clipped, and is scaled to its bounds; one that is not is clipped to the bound it has:

    .. math::
        a' = \tfrac12 (h + l) + \tfrac12 (h - l)\, \mathrm{clip}(a, -1, 1)

    Args:
        name: of the environment, for messages.
        observations: a ``Box``.
        actions: a ``Box``, or a ``Discrete`` whose choices come as one-hot rows.

    Raises:
        ValueError: there is another space.

    >>> box: Any = Box(np.array([-2.0, 0.0]), np.array([2.0, 1.0]), dtype=np.float64)
    >>> FlatSpaces("it", box, box).act(torch.tensor([[1.0, 0.0], [-3.0, 1.0]])).tolist()
    [[2.0, 0.5], [-2.0, 1.0]]
    """

    def __init__(self, name: str, observations: Space[Any], actions: Space[Any]) -> None:
        if not isinstance(observations, Box):
            raise ValueError(f"{name}: observations must be a Box; found {observations}.")
        if not isinstance(actions, (Box, Discrete)):
            raise ValueError(f"{name}: actions must be a Box or Discrete; found {actions}.")
        self.discrete = isinstance(actions, Discrete)
        self.features = int(np.prod(observations.shape))
        self.actions = int(actions.n) if isinstance(actions, Discrete) else int(np.prod(actions.shape))
        self._space = actions

    def observe(self, observations: NDArray[Any]) -> Float[Tensor, "rows features"]:
        """Return observations, a row each."""
        flat = torch.from_numpy(np.array(observations)).flatten(1)
        return flat.to(torch.get_default_dtype())

    def act(self, actions: Float[Tensor, "rows actions"]) -> NDArray[Any]:
        """Return actions as the environment takes them."""
        if isinstance(self._space, Discrete):
            choices: NDArray[Any] = actions.argmax(-1).numpy() + self._space.start
            return choices
        low, high = self._space.low.reshape(-1), self._space.high.reshape(-1)
        rows, bounded = actions.numpy(), np.isfinite(low) & np.isfinite(high)
        centre, half = np.where(bounded, (low + high) / 2, 0.0), np.where(bounded, (high - low) / 2, 1.0)
        least, most = np.where(bounded, -1.0, low), np.where(bounded, 1.0, high)
        scaled: NDArray[Any] = centre + half * np.clip(rows, least, most)
        return scaled.reshape(len(rows), *self._space.shape).astype(self._space.dtype)
