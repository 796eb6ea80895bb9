"""Embeddings of a frozen encoder, computed once for each content and kept on disk."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.utils._pytree import keystr, tree_flatten_with_path

from kshot.atomic import atomic_file
from kshot.batching import map_leaves
from kshot.core import Inputs
from kshot.modes import in_eval_mode
from kshot.nets.features import unit_scaled
from kshot.nets.pretrained import PretrainedEncoder
from kshot.nets.sentence_encoder import SentenceEncoder
from kshot.tasks.cache import data_folder

__all__ = ["embed", "weights_digest"]

logger = logging.getLogger("kshot")
_LONG = 4  # batches from which on a terminal shows a bar


def embed(
    encoder: nn.Module,
    x: Inputs | Sequence[str],
    batch_size: int = 256,
    cache: Path | Literal[False] | None = None,
    label: str = "embedding",
) -> Float[Tensor, "n d"]:
    """Embed many examples in eval mode and without gradients; the next time they are read from disk.

    A file of the cache is named by the sha256 of the encoder's structure, weights, buffers and plain attributes and of the
    examples, so that it does not serve for others; a change in the code of ``forward`` goes unnoticed, and one in an
    attribute that is no number, word, or list or mapping of those. A damaged file is made again, and where none
    can be written the log says so. Embeddings are returned on the CPU.

    Args:
        encoder: maps ``(m, *features)`` to ``(m, d)``; it is left as it was found.
        x: examples ``(n, *features)``, where uint8 becomes 0..1; tokens; or texts, for a ``SentenceEncoder``.
        batch_size: examples at a time. It changes speed and memory, and the last digits of embeddings.
        cache: the folder of the cache, by default ``embeddings`` in ``kshot.tasks.cache.data_folder()``; ``False`` for none.
        label: of the bar that is shown on a terminal while many examples are embedded.

    Raises:
        ValueError: there is no example, tensors hold different numbers of them, or the encoder does not return one row for
            each.
        TypeError: texts are given to an encoder that takes none, or are no texts; or a mapping holds something else than
            tensors.

    >>> embed(nn.Linear(3, 2), torch.zeros(5, 3), cache=False).shape
    torch.Size([5, 2])
    """
    n = _count(encoder, x)
    if cache is False:
        return _computed(encoder, x, n, batch_size, label)
    folder = data_folder() / "embeddings" if cache is None else Path(cache)
    path = folder / f"{_digest(encoder, x)}.safetensors"
    stored = _read(path, n)
    if stored is not None:
        return stored
    z = _computed(encoder, x, n, batch_size, label)
    try:
        with atomic_file(path) as file:
            file.write(safetensors.torch.save({"z": z}))
    except OSError as error:
        logger.warning("embeddings of %d examples are not kept: cannot write %s (%s)", n, path, error)
    return z


def _count(encoder: nn.Module, x: Any) -> int:
    """Return how many examples there are, which the encoder can take."""
    if not isinstance(x, Tensor | Mapping):
        if not isinstance(encoder, SentenceEncoder):
            raise TypeError(
                f"expected tensors for a {type(encoder).__name__}; found {type(x).__name__}. "
                "Texts need a SentenceEncoder: SentenceEncoder.minilm(), say."
            )
        if isinstance(x, str) or (wrong := [text for text in x if not isinstance(text, str)]):
            found = "a single text" if isinstance(x, str) else f"{wrong[0]!r} among them"
            raise TypeError(f"embed expects a list of texts; found {found}. Make a str of each example, in a list.")
    lengths = {name: len(content) for name, content in _by_path(x).items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"embed expects as many examples in each tensor; found {lengths}.")
    if not (n := next(iter(lengths.values()), 0)):
        raise ValueError("embed expects at least one example; found none.")
    return n


def _by_path(x: Any) -> dict[str, Any]:
    """Return the tensors of examples by their places in a tree, or what else the examples are."""
    if not isinstance(x, Mapping):
        return {"x": x}
    found = {keystr(path): leaf for path, leaf in tree_flatten_with_path(dict(x))[0]}
    if wrong := [path for path, leaf in found.items() if not (isinstance(leaf, Tensor) and leaf.dim())]:
        raise TypeError(
            f"expected tensors (n, ...) in a tree of mappings; found {type(found[wrong[0]]).__name__} at {wrong[0]}. "
            "Give each example a row of a tensor."
        )
    return found


def _read(path: Path, n: int) -> Tensor | None:
    """Return what the cache holds, or nothing where that is no whole file of n rows."""
    try:
        z = safetensors.torch.load(path.read_bytes())["z"]
    except (OSError, safetensors.SafetensorError, KeyError):
        return None
    return z if len(z) == n else None


@torch.no_grad()
def _computed(encoder: nn.Module, x: Any, n: int, batch_size: int, label: str) -> Tensor:
    device = next((tensor.device for tensor in chain(encoder.parameters(), encoder.buffers())), torch.device("cpu"))
    take, order = _reader(encoder, x, n)
    starts = range(0, n, batch_size)
    console = Console(stderr=True)
    shown = console.is_terminal and len(starts) >= _LONG  # even a bar that is not has a thread to start
    parts = []
    # Under autocast embeddings would be of few digits, and be kept for those who have it off.
    with in_eval_mode(encoder), torch.autocast(device.type, enabled=False):
        for start in track(starts, label, console=console, transient=True) if shown else starts:
            examples = map_leaves(lambda leaf: leaf.to(device), take(order[start : start + batch_size]))
            parts.append(encoder(examples).cpu())
    found = torch.cat(parts)
    if found.dim() != 2 or len(found) != n:
        raise ValueError(f"the encoder must return one row for each of {n} examples; found {tuple(found.shape)}.")
    z = torch.empty_like(found)
    z[order] = found
    return z


def _reader(encoder: nn.Module, x: Any, n: int) -> tuple[Callable[[Tensor], Any], Tensor]:
    """Return what gives the examples at some positions, and the order in which to ask for them."""
    if isinstance(encoder, SentenceEncoder) and not isinstance(x, Tensor | Mapping):
        # Texts of like length stand together: that is far less padding.
        order = torch.tensor([len(text) for text in x]).argsort(stable=True)
        return lambda rows: encoder.tokenize([x[row] for row in rows.tolist()]), order
    leaves = dict(x) if isinstance(x, Mapping) else x
    return lambda rows: map_leaves(lambda leaf: unit_scaled(leaf[rows.to(leaf.device)]), leaves), torch.arange(n)


def weights_digest(encoder: nn.Module) -> str:
    """Return the sha256 of an encoder's weights and buffers, their names, types and shapes included.

    >>> layer = nn.Linear(3, 2)
    >>> before = weights_digest(layer)
    >>> _ = nn.init.ones_(layer.bias)
    >>> weights_digest(layer) == before
    False
    """
    digest = hashlib.sha256()
    for name, tensor in encoder.state_dict().items():
        _add(digest, name, tensor)
    return digest.hexdigest()


def _digest(encoder: nn.Module, x: Any) -> str:
    """Return the sha256 of an encoder and of examples."""
    digest = hashlib.sha256(repr([repr(encoder), _settings(encoder)]).encode())
    if isinstance(encoder, PretrainedEncoder):
        digest.update(encoder.description.encode())
    # Buffers by themselves: a state_dict leaves out those that are not persistent.
    for name, content in [*encoder.named_parameters(), *encoder.named_buffers(), *_by_path(x).items()]:
        if isinstance(content, Tensor):
            _add(digest, name, content)
        else:
            digest.update(json.dumps(list(content)).encode())
    return digest.hexdigest()


def _settings(encoder: nn.Module) -> list[tuple[str, str, object]]:
    """Return the plain attributes of every part of an encoder, by which ``forward`` may go."""
    told = [(part, name, value) for part, module in encoder.named_modules() for name, value in vars(module).items()]
    every_module = vars(nn.Module())  # hooks, the mode and so on
    return [one for one in told if one[1] not in every_module and _is_plain(one[2])]


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    if isinstance(value, Mapping):
        return all(map(_is_plain, chain(value.keys(), value.values())))
    return value is None or isinstance(value, str | int | float)


def _add(digest: "hashlib._Hash", name: str, tensor: Tensor) -> None:
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
