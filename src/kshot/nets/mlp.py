"""The multilayer perceptron."""

from collections.abc import Callable
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["MLP"]


class MLP(nn.Module):
    """Fully connected layers with ReLU, and normalisation where it is asked for, between them.

    Args:
        sizes: width of the input, of each hidden layer, and of the output.
        norm: makes the normalisation of a hidden layer from its width; see ``kshot.nets.norm``.

    >>> import torch
    >>> MLP(1, 40, 40, 1)(torch.zeros(7, 1)).shape
    torch.Size([7, 1])
    """

    def __init__(self, *sizes: int, norm: Callable[[int], nn.Module] | None = None) -> None:
        super().__init__()
        if len(sizes) < 2:
            raise ValueError(f"an MLP needs the sizes of its input and output; found {sizes}.")
        layers: list[nn.Module] = []
        for width, following in pairwise(sizes):
            between = [nn.ReLU()] if norm is None else [norm(following), nn.ReLU()]
            layers += [nn.Linear(width, following), *between]
        self.layers = nn.Sequential(*layers[: -len(between)])

    def forward(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        """Map ``(n, inputs)`` to ``(n, outputs)``."""
        return self.layers(x)  # type: ignore[no-any-return]
