"""Pretrained encoders of pictures, from a folder or the Hugging Face Hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from kshot.nets.hub import load_model, load_transformers, model_folder
from kshot.nets.pretrained import PretrainedEncoder, read_json

__all__ = ["PictureEncoder"]

_BICUBIC = 3  # Pillow's number


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
        try:
            return cls._of(read_json(path))
        except KeyError as error:
            raise ValueError(
                f"{path} lacks {error.args[0]}: expected a size of height and width or shortest_edge, image_mean and "
                "image_std. Add it as the model was trained, or take another model."
            ) from error

    @classmethod
    def _of(cls, config: dict[str, Any]) -> "_Preprocessing":
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
        kind = read_json(folder / "config.json").get("model_type")
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
