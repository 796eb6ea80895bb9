"""The depth of a network: its parameters block by block, so that those near the input can be held or moved less."""

from torch import nn

__all__ = ["parameter_blocks"]


def parameter_blocks(body: nn.Module) -> list[list[str]]:
    """Return the names of the parameters of each block, from the input on.

    Blocks are what the body is made of in the order of its registration, containers of a single part looked into. One with
    parameters of its own beside its parts is one block.

    >>> from kshot.nets.mlp import MLP
    >>> parameter_blocks(MLP(1, 5, 2))
    [['layers.0.weight', 'layers.0.bias'], ['layers.2.weight', 'layers.2.bias']]
    """
    return _blocks(body, "")


def _blocks(part: nn.Module, prefix: str) -> list[list[str]]:
    parts = [(name, child) for name, child in part.named_children() if any(True for _ in child.parameters())]
    if next(part.parameters(recurse=False), None) is not None or not parts:
        names = [prefix + name for name, _ in part.named_parameters()]
        return [names] if names else []
    if len(parts) == 1:
        ((name, child),) = parts
        return _blocks(child, f"{prefix}{name}.")
    return [[f"{prefix}{name}.{inner}" for inner, _ in child.named_parameters()] for name, child in parts]
