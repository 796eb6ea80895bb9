"""The multilayer perceptron."""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["MLP"]


class MLP(nn.Module):
    """Fully connected layers with ReLU between them.

    Args:
        sizes: width of the input, of each hidden layer, and of the output.

    >>> import torch
    >>> MLP(1, 40, 40, 1)(torch.zeros(7, 1)).shape
    torch.Size([7, 1])
    """

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        if len(sizes) < 2:
            raise ValueError(f"an MLP needs the sizes of its input and output; found {sizes}.")
        layers: list[nn.Module] = []
        for width, following in pairwise(sizes):
            layers += [nn.Linear(width, following), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Float[Tensor, "n inputs"]) -> Float[Tensor, "n outputs"]:
        """Map ``(n, inputs)`` to ``(n, outputs)``."""
        return self.layers(x)  # type: ignore[no-any-return]
