"""A user's pictures, from files, from Pillow or in arrays, as an encoder wants them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kshot.tasks.files import centre_square, read_picture

__all__ = ["PictureFormat"]


@dataclass(frozen=True)
class PictureFormat:
    """What an encoder expects of pictures.

    Args:
        size: of the square that is cut from the centre and made so many pixels wide.
        mode: colours or grey.
        drawing: paper becomes 0 and ink positive, dark ink on light paper as well as chalk on a blackboard, as in Omniglot.

    >>> dark = Image.new("L", (8, 8), 255)
    >>> dark.putpixel((0, 0), 0)
    >>> PictureFormat(8, "L", drawing=True).read([dark])[0, 0, :2, :2]
    tensor([[1., 0.],
            [0., 0.]])
    """

    size: int = 84
    mode: Literal["RGB", "L"] = "RGB"
    drawing: bool = False

    def read(self, x: Any) -> Float[Tensor, "n channels size size"]:
        """Return pictures as floats from 0 to 1.

        Args:
            x: paths, Pillow's pictures and arrays of one picture each in a list, or an array of all: ``(n, height, width)``,
                ``(n, height, width, channels)`` or ``(n, channels, height, width)``, uint8, or floats from 0 to 1.

        Raises:
            ValueError: a file is no whole picture, or an array has another shape or other values.
        """
        pictures = self._from_items(x) if isinstance(x, list) else self._from_array(x)
        if not self.drawing:
            return pictures
        ink = (pictures - pictures.flatten(1).median(1).values[:, None, None, None]).abs()
        return ink / ink.amax((1, 2, 3), keepdim=True).clamp_min(1e-6)

    def _from_items(self, items: Sequence[Any]) -> Tensor:
        return torch.cat([self._from_item(item) for item in items])

    def _from_item(self, item: Any) -> Tensor:
        if hasattr(item, "ndim"):
            return self._from_array(item[None])
        if isinstance(item, Image.Image):
            picture = centre_square(item, self.size, self.mode)
        else:
            picture = read_picture(Path(item), self.size, self.mode)
        return torch.from_numpy(np.array(picture))[None] / 255  # of its own, which torch may write to

    def _from_array(self, x: Any) -> Tensor:
        pictures = channels_first(torch.as_tensor(x))
        if self.mode == "L" and pictures.shape[1] == 3:
            pictures = (pictures * pictures.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
        if self.mode == "RGB" and pictures.shape[1] == 1:
            pictures = pictures.expand(-1, 3, -1, -1)
        side = min(pictures.shape[2:])
        top, left = (pictures.shape[2] - side) // 2, (pictures.shape[3] - side) // 2
        square = pictures[:, :, top : top + side, left : left + side]
        if side == self.size:
            return square
        resized = F.interpolate(square, (self.size, self.size), mode="bicubic", antialias=True, align_corners=False)
        return resized.clamp(0, 1)


def channels_first(x: Tensor) -> Float[Tensor, "n channels height width"]:
    """Return an array of pictures in torch's order, as floats from 0 to 1.

    Raises:
        ValueError: it has no shape of pictures, or values that are not finite or lie outside 0 to 1.
    """
    if x.dim() == 3:
        x = x[:, None]
    elif x.dim() == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3):
        x = x.permute(0, 3, 1, 2)
    if x.dim() != 4 or x.shape[1] not in (1, 3):
        raise ValueError(
            "pictures in an array are expected as (n, height, width), (n, height, width, channels) or "
            f"(n, channels, height, width) with one or three channels; found {tuple(x.shape)}."
        )
    x = x / 255 if x.dtype == torch.uint8 else x.float()
    if not bool(x.isfinite().all()) or x.min() < 0 or x.max() > 1:
        bad = [i for i, one in enumerate(x) if not (one.isfinite().all() and one.min() >= 0 and one.max() <= 1)]
        raise ValueError(
            f"pictures are expected as uint8, or as floats from 0 to 1; {len(bad)} of {len(x)} hold NaN or other values, "
            f"first {bad[:5]}. Divide 0 to 255 by 255, or convert with .astype('uint8')."
        )
    return x
