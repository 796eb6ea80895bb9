"""Low-rank adapters: a pretrained encoder learns through few new weights, its own stay as they are."""

from collections.abc import Sequence
from typing import Any, TypeVar

from torch import nn

from kshot.nets.picture_encoder import PictureEncoder
from kshot.nets.sentence_encoder import SentenceEncoder
from kshot.validation import check_sizes

__all__ = ["with_lora"]

Encoder = TypeVar("Encoder", SentenceEncoder, PictureEncoder)

_PROJECTIONS = ("query", "value", "q_proj", "v_proj", "q_lin", "v_lin")  # of attention, as models name them


def with_lora(
    encoder: Encoder,
    rank: int = 8,
    scale: float = 2.0,
    dropout: float = 0.0,
    targets: Sequence[str] | None = None,
) -> Encoder:
    r"""Put adapters into a pretrained encoder, which are all that is trained, and return it.

    .. math::
        h = W x + s\, B A x

    with A and B of ``rank`` rows and columns; B starts at zero, so that nothing changes at first. Edward Hu et al. 2022,
    "LoRA: low-rank adaptation of large language models". Needs ``pip install 'kshot[text]'``.

    Args:
        encoder: changed in place.
        rank: of the adapters.
        scale: s.
        dropout: of what goes into an adapter, in train mode.
        targets: last parts of the names of the layers that get adapters; those of attention's queries and values by default.

    Raises:
        ImportError: peft is not installed.
        ValueError: the rank is not positive, or no layer has such a name.

    >>> encoder = with_lora(SentenceEncoder.minilm(), rank=4)  # doctest: +SKIP
    """
    check_sizes(rank=rank)
    peft = _peft()
    layers = {name.rpartition(".")[2] for name, part in encoder.model.named_modules() if isinstance(part, nn.Linear)}
    layers |= {name.rpartition(".")[2] for name, part in encoder.model.named_modules() if isinstance(part, nn.Conv2d)}
    wanted = _PROJECTIONS if targets is None else targets
    if not (chosen := sorted(layers & set(wanted))):
        raise ValueError(
            f"no layer is called {', '.join(wanted)}; name some in targets=, of {', '.join(sorted(layers))}."
        )
    config = peft.LoraConfig(r=rank, lora_alpha=scale * rank, lora_dropout=dropout, target_modules=chosen)
    encoder.model = peft.get_peft_model(encoder.model, config)
    encoder.trainable = True
    encoder.train()
    return encoder


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError("adapters need peft: pip install 'kshot[text]'") from error
    return peft
