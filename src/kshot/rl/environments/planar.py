"""The centre of mass of a body whose parts turn in a plane, for many states at once."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["CentreOfMass"]


class CentreOfMass:
    r"""Where the centre of mass is, and how fast it moves forward, in closed form.

    .. math::
        c = p + \sum_b R(\theta_b) k_b, \qquad
        k_b = \frac{1}{M} \Big(m_b c_b + \sum_{\text{children}} M_\text{child} r_\text{child}\Big)

    p is the place of the root, the angle of part b the sum of the joints above it, c_b its own centre, r_child where a
    child is attached, M_child the mass of all that hangs there. MuJoCo tells the same only of the state before its last
    step, or for another evaluation of all forces.

    Args:
        model: of MuJoCo: joints along x and along z, then one around y for each part, the root's first.
    """

    def __init__(self, model: Any) -> None:
        parts, parents = range(1, model.nbody), model.body_parentid
        lever = model.body_mass[:, None] * model.body_ipos
        above = np.eye(model.nbody)
        for part in parts:
            if parents[part]:  # the root hangs on the world, which does not turn
                lever[parents[part]] += model.body_subtreemass[part] * model.body_pos[part]
                above[part] += above[parents[part]]
        mass = float(model.body_subtreemass[1])
        self._lever = torch.from_numpy(lever[1:][:, [0, 2]] / mass)
        self._above = torch.from_numpy(above[1:, 1:].T.copy())
        self._start = torch.from_numpy(model.body_pos[1][[0, 2]].copy())

    def __call__(
        self, positions: Float[Tensor, "*m joints"], velocities: Float[Tensor, "*m joints"]
    ) -> tuple[Float[Tensor, "*m 3"], Float[Tensor, "*m"]]:
        """Return the centre in metres, and its velocity along x in metres a second.

        Args:
            positions: two in metres, then angles.
            velocities: of them.
        """
        angle, turning = positions[..., 2:] @ self._above, velocities[..., 2:] @ self._above
        x, z = self._lever.unbind(-1)
        along = x * angle.cos() + z * angle.sin()
        up = z * angle.cos() - x * angle.sin()
        root = positions[..., :2] + self._start
        centre = [root[..., 0] + along.sum(-1), torch.zeros_like(root[..., 0]), root[..., 1] + up.sum(-1)]
        return torch.stack(centre, -1), velocities[..., 0] + (turning * up).sum(-1)
