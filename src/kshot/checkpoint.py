"""Saving and loading without pickle: tensors in safetensors, everything else as JSON in the header of the same file."""

import errno
import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor, nn

from kshot.atomic import atomic_file

__all__ = ["load_checkpoint", "load_learner", "save_checkpoint", "save_learner", "write_atomically"]

_HEADER = "kshot"


def save_checkpoint(path: str | Path, content: Any) -> None:
    """Save nested dicts, lists and tuples of tensors and plain values; the file appears whole or not at all.

    Raises:
        OSError: the disk is full or not writable; what stood at ``path`` before still stands.
        TypeError: a value is neither a tensor nor plain; its place is named.
        ValueError: two tensors have one place, since a key has a slash in it or reads as another one does.

    >>> import tempfile, torch
    >>> path = Path(tempfile.mkdtemp()) / "step.safetensors"
    >>> save_checkpoint(path, {"weights": {"w": torch.ones(2)}, "step": 3})
    >>> load_checkpoint(path)
    {'weights': {'w': tensor([1., 1.])}, 'step': 3}
    """
    tensors: dict[str, Tensor] = {}
    header = json.dumps(_pack(content, "", tensors))
    write_atomically(Path(path), safetensors.torch.save(tensors, {_HEADER: header}))


def load_checkpoint(path: str | Path) -> Any:
    """Load what ``save_checkpoint`` saved, onto the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut short, damaged, or not a checkpoint of kshot.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no checkpoint at {path}.")
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            return _unpack(header, {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118, not a dict
    except (safetensors.SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is not a whole checkpoint of kshot ({type(error).__name__}: {error}). "
            "Delete it and use another one: a run folder keeps last.safetensors and best.safetensors."
        ) from error


def save_learner(path: str | Path, learner: nn.Module) -> None:
    """Save the parameters and buffers of a learner."""
    save_checkpoint(path, {"learner": learner.state_dict()})


def load_learner(path: str | Path, learner: nn.Module) -> None:
    """Load the parameters and buffers of a learner from any checkpoint that holds one.

    Raises:
        ValueError: the file is damaged, or was saved from a learner of another build; the differences are named.
    """
    content = load_checkpoint(path)
    try:
        learner.load_state_dict(content["learner"])
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"{path} does not fit this {type(learner).__name__}: {error}") from error


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all.

    Raises:
        OSError: the disk is full or not writable; what stood at ``path`` before still stands.
    """
    try:
        with atomic_file(path) as file:
            file.write(data)
    except OSError as error:
        kept = "The file saved before it is untouched." if path.exists() else "Nothing was saved."
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        what = "Free some space" if full else f"Check that {path.parent} is a folder that you may write to"
        told = f"could not save {path} ({error.strerror}). {kept} {what}, then go on."
        raise OSError(told) from error


def _pack(tree: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    match tree:
        case Tensor():
            # Cloned, since safetensors refuses tensors that share memory.
            if place in tensors:
                raise ValueError(
                    f"two tensors of a checkpoint would stand at {place}. Leave slashes out of keys, and give keys of one "
                    "dict that read alike, such as 1 and '1', other names."
                )
            tensors[place] = tree.detach().cpu().clone().contiguous()
            return {"tensor": place}
        case dict():
            return {"dict": [[key, _pack(value, f"{place}/{key}", tensors)] for key, value in tree.items()]}
        case list() | tuple():
            kind = "list" if isinstance(tree, list) else "tuple"
            return {kind: [_pack(value, f"{place}/{i}", tensors) for i, value in enumerate(tree)]}
        case None | bool() | int() | float() | str():
            return tree
    raise TypeError(
        f"a checkpoint holds tensors and plain values; found {type(tree).__name__} at {place or 'the top'}."
    )


def _unpack(tree: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "dict":
        return {key: _unpack(item, tensors) for key, item in value}
    items = [_unpack(item, tensors) for item in value]
    return items if kind == "list" else tuple(items)
