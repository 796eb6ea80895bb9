"""Where pretrained models lie: a folder, or the Hugging Face Hub and its cache; and how their weights are read."""

import json
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from types import ModuleType
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from kshot.batching import first_line

__all__ = ["TOKENIZERS", "ModelUnavailable", "load_model", "load_transformers", "model_folder"]

_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
_SMALL = ["*.json", "*.txt", "*.model"]  # configurations and vocabularies
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")
_WEIGHTS = ["model*.safetensors"]
_SECONDS = 5.0  # how long a machine without a network waits; the Hub's own client retries for 23 s


class ModelUnavailable(OSError):  # noqa: N818, a state of the machine that callers plan for
    """A pretrained model is not on this machine and cannot be fetched; the message says what to place where."""


def load_transformers() -> ModuleType:
    """Return the package that knows the architectures.

    Raises:
        ImportError: it is not installed, or cannot be imported.
    """
    try:
        import transformers
    except (ImportError, RuntimeError) as error:  # a torchvision that does not fit raises the latter
        raise ImportError(f"pretrained models need transformers: pip install 'kshot[text]' ({error})") from error
    return transformers


def model_folder(name_or_folder: str | Path, local_only: bool = False) -> Path:
    """Return the folder of a pretrained model: the one named, or that of the Hub's cache, where it is fetched if need be.

    What the cache holds is used without asking the Hub for a newer one; files beside the weights that say how to embed,
    which other programs may not have fetched, are fetched where they lack.

    Args:
        name_or_folder: a folder with ``config.json`` and ``model.safetensors``, or ``owner/name`` on the Hub.
        local_only: fetch nothing; ``HF_HUB_OFFLINE=1`` and ``KSHOT_OFFLINE=1`` in the environment say the same.

    Raises:
        ValueError: there is no such folder, or it holds no model.
        ModelUnavailable: the model is neither in the cache nor to be had from the Hub.
    """
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return _whole(folder)
    name = str(name_or_folder)
    if isinstance(name_or_folder, Path) or not _NAME.fullmatch(name):
        raise ValueError(
            f"expected a folder with config.json and model.safetensors, or owner/name on the Hub; {name} is neither."
        )
    cached = _cached(name)
    if cached is None:
        return _fetched(name, local_only)
    return cached if _says_how(cached) or _forbidden(local_only) else _completed(name, cached)


def _whole(folder: Path) -> Path:
    """Return a folder that holds a model, or say what is missing."""
    if missing := [wanted for wanted in ("config.json", "*.safetensors") if not any(folder.glob(wanted))]:
        found = sorted(file.name for file in folder.iterdir())
        pickled = (
            " Pickled weights are not read: convert them by save_pretrained." if "pytorch_model.bin" in found else ""
        )
        raise ValueError(
            f"{folder} is not the folder of a model: expected config.json and model.safetensors, as save_pretrained "
            f"writes them; {' and '.join(missing)} missing, found {', '.join(found[:8]) or 'nothing'}.{pickled}"
        )
    return folder


def _cached(name: str) -> Path | None:
    import huggingface_hub

    try:
        folder = Path(huggingface_hub.snapshot_download(name, local_files_only=True))
    except (OSError, ValueError):
        return None
    return folder if (folder / "config.json").exists() and _has_weights(folder) else None


def _has_weights(folder: Path) -> bool:
    """Return whether the weights are there, all files of them where there are several."""
    index = folder / "model.safetensors.index.json"
    try:
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (OSError, ValueError, KeyError):  # of one file, or damaged
        return not index.exists() and any(folder.glob("*.safetensors"))
    return all((folder / file).exists() for file in named)


def _says_how(folder: Path) -> bool:
    """Return whether a folder has the files beside the weights that say how pictures or texts become embeddings."""
    texts = (folder / "modules.json").exists() and (folder / "1_Pooling" / "config.json").exists()
    tokenizer = any((folder / name).exists() for name in TOKENIZERS)
    return (folder / "preprocessor_config.json").exists() or (texts and tokenizer)


def _completed(name: str, folder: Path) -> Path:
    """Return the folder of a cached model with its small files: transformers caches those alone that it reads itself.

    Without a network it stays as it is.
    """
    import huggingface_hub

    with suppress(Exception):  # whatever the client of this version raises where there is no network
        _within(_SECONDS, lambda: huggingface_hub.model_info(name, revision=folder.name, timeout=_SECONDS))
        huggingface_hub.snapshot_download(name, revision=folder.name, allow_patterns=_SMALL)
    return folder


def _fetched(name: str, local_only: bool) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    by_hand = (
        f"Fetch it on a machine with a network (hf download {name} --local-dir FOLDER), bring the folder here and "
        "give its path instead of the name."
    )
    missing = f"{name} is no folder here, and not in the cache of the Hub ({huggingface_hub.constants.HF_HUB_CACHE})"
    if forbidden := _forbidden(local_only):
        raise ModelUnavailable(f"{missing}; {forbidden} forbids a download. {by_hand}")
    try:
        revision = _within(_SECONDS, lambda: huggingface_hub.model_info(name, timeout=_SECONDS).sha)
        for patterns in (_SMALL, _WEIGHTS):
            folder = Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=patterns))
    except RepositoryNotFoundError as error:
        raise ModelUnavailable(
            f"{missing}; the Hub has no model of that name, or it is private. Check its spelling, or log in (hf auth login)."
        ) from error
    except HfHubHTTPError as error:
        raise ModelUnavailable(f"{missing}; the Hub refused it ({error}). {by_hand}") from error
    except Exception as error:  # whatever the client of this version raises where there is no network
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelUnavailable(f"{missing}; the Hub cannot be reached ({cause}). {by_hand}") from error
    return _whole(folder)


def _forbidden(local_only: bool) -> str:
    """Return what forbids a download, or nothing."""
    import huggingface_hub

    if local_only:
        return "local_only"
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE"
    return "KSHOT_OFFLINE" if os.environ.get("KSHOT_OFFLINE", "0") not in ("", "0") else ""


def _within(seconds: float, ask: Callable[[], Any]) -> Any:
    """Return an answer within ``seconds``, in a thread because a hanging name server minds no timeout."""
    answer: Future[Any] = Future()

    def run() -> None:
        try:
            answer.set_result(ask())
        except Exception as error:
            answer.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return answer.result(seconds)
    except FutureTimeoutError as error:
        raise TimeoutError(f"no answer within {seconds:g} s") from error


def load_model(folder: Path, kind: Any) -> nn.Module:
    """Read a model as one of transformers' classes, with every weight from the folder; without a pooler that it lacks.

    Raises:
        ValueError: the architecture is unknown, or weights are damaged or missing, which is never made up by random ones.
    """
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, "pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{file} is damaged ({error}). Delete it and fetch the model again.") from error
    try:
        with _quiet():
            model, report = kind.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{folder} holds no model that transformers can read ({first_line(error)}).") from error
    if missing := sorted(key for key in report["missing_keys"] if not key.startswith("pooler.")):
        raise ValueError(
            f"the weights in {folder} do not fit its config.json: {len(missing)} are missing, first {missing[0]}. "
            "Fetch the model again, or put the right config.json there."
        )
    if report["missing_keys"]:
        model.register_module("pooler", None)  # a head for pretraining, often left out: here it would be a random one
    loaded: nn.Module = model
    return loaded


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from printing bars and reports while it loads; what matters of them is raised."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
