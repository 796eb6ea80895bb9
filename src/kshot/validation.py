"""What a task, or an argument, must look like: checked once, where it enters."""

from typing import Any, get_args

from torch import Tensor

from kshot.batching import leaves

__all__ = ["check_choice", "check_sizes", "check_task"]


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raise ValueError unless an argument is one of the strings of a Literal."""
    if value not in get_args(choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, get_args(choices)))}; found {value!r}.")


def check_sizes(**sizes: int) -> None:
    """Raise ValueError unless every one of these arguments is at least 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1; found {size}.")


def check_task(task: Any, axes: tuple[str, ...]) -> None:
    """Raise ValueError unless support and query are Batches whose shapes, labels and ways fit together.

    Args:
        task: an Episode, stacked or of one task.
        axes: names of the axes in front of the label axis: ``("tasks", "n")`` or ``("n",)``.
    """
    for name, batch in zip(("support", "query"), task, strict=True):
        _check_labels(f"{name}.y", batch.y, axes)
        _check_inputs(name, batch, axes)
    features = [[tuple(leaf.shape[len(axes) :]) for leaf in leaves(batch.x)] for batch in task]
    if features[0] != features[1]:
        raise ValueError(
            f"examples of support.x and query.x must have the same shape; found {_joined(features[0])} and "
            f"{_joined(features[1])}. Resize the pictures, or fill up the shorter sequences."
        )
    support, query = task.support.y.shape, task.query.y.shape
    if support[-1] not in (0, query[-1]):
        raise ValueError(
            f"support.y and query.y must have the same last axis (ways, or target size); found {support[-1]} and "
            f"{query[-1]}. Use one_hot(labels, ways) with the same ways for both, or no columns at all where what is shown "
            "has no targets."
        )
    if support[: len(axes) - 1] != query[: len(axes) - 1]:
        raise ValueError(f"support and query must hold the same number of tasks; found {support[0]} and {query[0]}.")
    if len(axes) == 2 and query[0] == 0:
        raise ValueError("expected at least one task; found stacked tasks of which there are none.")


def _joined(shapes: list[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes))


def _check_labels(name: str, y: Any, axes: tuple[str, ...]) -> None:
    if not isinstance(y, Tensor):
        raise ValueError(f"{name} must be a tensor; found a {type(y).__name__}. Use torch.as_tensor.")
    shape = tuple(y.shape)
    expected = f"({', '.join(axes)}, ways) one-hot or ({', '.join(axes)}, d) targets"
    if not y.is_floating_point():
        raise ValueError(f"{name} must be {expected} of floats; found {y.dtype} {shape}. Use one_hot(labels, ways).")
    if len(shape) != len(axes) + 1:
        hint = "Stack tasks along a leading axis, or pass a list of Episodes." if len(axes) == 2 else ""
        raise ValueError(f"{name} must be {expected}; found shape {shape}. {hint}".rstrip())


def _check_inputs(name: str, batch: Any, axes: tuple[str, ...]) -> None:
    expected = tuple(batch.y.shape[: len(axes)])
    for leaf in leaves(batch.x):
        if tuple(leaf.shape[: len(axes)]) != expected:
            raise ValueError(
                f"{name}.x and {name}.y must share their first axes ({', '.join(axes)}); found x {tuple(leaf.shape)} "
                f"and y {tuple(batch.y.shape)}. Each example needs one row of y."
            )
