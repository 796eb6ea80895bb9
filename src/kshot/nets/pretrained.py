"""What encoders that were pretrained elsewhere have in common."""

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from torch import nn

__all__ = ["PretrainedEncoder", "read_json"]


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


def read_json(path: Path) -> Any:
    """Return what a file of a model says.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Fetch the model again.") from error
