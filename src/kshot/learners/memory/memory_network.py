"""End-to-end memory networks: a question is looked up in the sentences of a story, several times over."""

from typing import Literal, NamedTuple, TypeAlias, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from kshot.core import Batch, Learner
from kshot.losses import Loss, cross_entropy
from kshot.validation import check_choice, check_sizes

__all__ = ["MemoryNetwork", "Sentences"]

Tying: TypeAlias = Literal["adjacent", "layer_wise"]
_DEVIATION = 0.1  # of the weights at the start, as published


class Sentences(NamedTuple):
    """Sentences, each as the sum of its words' vectors by every table, and 1 where there is one, 0 where there is none."""

    sums: Float[Tensor, "n tables d"]
    present: Float[Tensor, " n"]


@final
class MemoryNetwork(Learner):
    r"""Answer a question by attention over the sentences of a story, with what was found deciding where to look next.

    A sentence of words :math:`w_1, \dots, w_J`, the ``age`` of which is how many newer ones there are, is a key and a value
    of each hop, by tables A and C of word vectors and T of ages. The question is the first u, by a table B:

    .. math::
        k_i = \sum_j l_j \odot A w_{ij} + T^A_{age}, \quad v_i = \sum_j l_j \odot C w_{ij} + T^C_{age}, \quad
        u' = u + \sum_i \mathrm{softmax}_i(u \cdot k_i)\, v_i

    with :math:`l_j = (1 - j/J) - (k/d)(1 - 2j/J)` for the k-th of d numbers. After the last hop the logits of the words are
    :math:`W u`. With ``tying="adjacent"`` the values of a hop are the keys of the next, B the first and W the last of these
    tables; with ``"layer_wise"`` all hops share A and C, B and W are apart, and :math:`u' = H u + \dots` with a matrix H.

    Words are integers. 0 is no word: it may stand behind a sentence, and a row of zeros is no sentence.

    Sainbayar Sukhbaatar, Arthur Szlam, Jason Weston, Rob Fergus 2015, "End-to-end memory networks".

    Args:
        vocabulary: how many words there are, 0 included; as many logits.
        features: d, the size of a vector.
        hops: how often the memory is read.
        memory: how many of the newest sentences are looked at.
        loss: what the answers are judged by.
        tying: which tables are shared.
        position_encoding: weigh words by l, which tells their order; otherwise a sentence is a bag of words.
        time_noise: in training, how likely an empty memory comes after a sentence, which makes it and all before it older.
        linear_start: for this share of training, at its beginning, attention is :math:`u \cdot k_i` without the softmax;
            ``Learner.at_progress`` tells how far training is. In eval mode there always is the softmax.

    Raises:
        ValueError: there is no hop, no memory or no word, no such ``tying``, or a share is not between 0 and 1.

    >>> learner = MemoryNetwork(vocabulary=9, features=5).eval()
    >>> story = torch.tensor([[1, 2, 3], [4, 2, 0]])
    >>> state = learner.adapt(Batch(learner.encode(story), torch.zeros(2, 0)))
    >>> question = learner.encode(torch.tensor([[5, 1, 0]]))
    >>> learner.predict(state, question).shape, learner.attention(state, question).shape
    (torch.Size([1, 9]), torch.Size([1, 3, 2]))
    """

    fixed_ways = True
    order_sensitive = True
    uses_unlabelled = True  # sentences have no labels
    progress: Tensor

    def __init__(
        self,
        vocabulary: int,
        features: int = 50,
        hops: int = 3,
        memory: int = 50,
        loss: Loss = cross_entropy,
        *,
        tying: Tying = "adjacent",
        position_encoding: bool = True,
        time_noise: float = 0.1,
        linear_start: float = 0.0,
    ) -> None:
        super().__init__(loss)
        check_sizes(vocabulary=vocabulary, features=features, hops=hops, memory=memory)
        check_choice("tying", tying, Tying)
        if not (0 <= time_noise <= 1 and 0 <= linear_start <= 1):
            raise ValueError(f"time_noise and linear_start are shares, 0 to 1; found {time_noise} and {linear_start}.")
        adjacent = tying == "adjacent"
        self.tables = tuple(
            (hop, hop + 1) if adjacent else (0, 1) for hop in range(hops)
        )  # of each hop's keys and values
        self.asks = 0 if adjacent else 2  # the table of questions
        self.words = _drawn(vocabulary, hops + 1 if adjacent else 3, features)
        self.ages = _drawn(hops + 1 if adjacent else 2, memory, features)
        self.answers = None if adjacent else _drawn(vocabulary, features)
        self.carry = None if adjacent else _drawn(features, features)
        self.memory, self.position_encoding = memory, position_encoding
        self.time_noise, self.linear_start = time_noise, linear_start
        # Where nobody tells, training is taken to be at its end.
        self.register_buffer("progress", torch.ones(()), persistent=bool(linear_start))
        self.register_load_state_dict_post_hook(_as_loaded)  # type: ignore[no-untyped-call]
        self.at_progress(1.0)

    def at_progress(self, share: float) -> None:
        """Attend as at this share of training, 0 to 1."""
        self.progress.fill_(share)
        self.leaves_softmax_out = share < self.linear_start

    def encode(self, x: Int[Tensor, "m words"]) -> Sentences:
        """Sum the vectors of each sentence's words, by every table.

        Raises:
            ValueError: a word has a number that is not of the vocabulary.
        """
        word = (x > 0).to(self.words.dtype)
        weight = word[:, :, None]
        if self.position_encoding:
            weight = weight * _positions(word, self.words.shape[-1])
        try:
            vectors = F.embedding(x, self.words.flatten(1)).view(*x.shape, *self.words.shape[1:])
        except IndexError as cause:
            raise ValueError(
                f"words must be numbers from 0, which is no word, to {len(self.words) - 1}; found {x.min()} to {x.max()}."
            ) from cause
        return Sentences((vectors * weight[:, :, None]).sum(1), word.amax(1))

    def init(self) -> Sentences:
        """Return a story without a sentence."""
        return Sentences(self.words.new_zeros(0, *self.words.shape[1:]), self.words.new_zeros(0))

    def update(self, state: Sentences, support: Batch) -> Sentences:
        """Return a story with more sentences at its end.

        Raises:
            ValueError: sentences have labels, which would be read by nobody.
        """
        if support.y.shape[1]:
            raise ValueError(
                f"MemoryNetwork reads no labels and expects a support.y without columns; found {support.y.shape[1]}. Say "
                "in sentences what they say."
            )
        return Sentences(*(torch.cat(parts) for parts in zip(state, support.x, strict=True)))

    def adapt(self, support: Batch) -> Sentences:
        """Return what every hop may read: the sentences, each by every table."""
        return self.update(self.init(), support)

    def predict(self, state: Sentences, x: Sentences) -> Float[Tensor, "q vocabulary"]:
        """Return the logits of the words as answers to questions."""
        answers = self.words[:, -1] if self.answers is None else self.answers
        return self._read(state, x)[0] @ answers.mT

    def attention(self, state: Sentences, x: Sentences) -> Float[Tensor, "q hops n"]:
        """Return how much each hop looks at each sentence."""
        return self._read(state, x)[1]

    def _read(self, state: Sentences, x: Sentences) -> tuple[Float[Tensor, "q d"], Float[Tensor, "q hops n"]]:
        """Return u after the last hop, and the attention of each."""
        age, visible = self._ages(state.present)
        u, looks = x.sums[:, self.asks], []
        for keys, values in self.tables:
            looks.append(self._look(u @ (state.sums[:, keys] + self.ages[keys, age]).mT, visible))
            found = looks[-1] @ (state.sums[:, values] + self.ages[values, age])
            u = (u if self.carry is None else u @ self.carry.mT) + found
        return u, torch.stack(looks, 1)

    def _look(self, scores: Float[Tensor, "q n"], visible: Float[Tensor, " n"]) -> Float[Tensor, "q n"]:
        if not (self.training and self.leaves_softmax_out):
            # Finite, since minus infinity would make a softmax over nothing NaN; and added, since torch 2.13 compiles two
            # hops of masked_fill by this mask, which comes from a cumsum, into wrong gradients.
            scores = (scores + (1 - visible) * (torch.finfo(scores.dtype).min / 2)).softmax(-1)
        return scores * visible

    def _ages(self, present: Float[Tensor, " n"]) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
        """Return how many sentences are newer than each, and 1 where one is there and not too old to be looked at."""
        steps = (present > 0).long()
        if self.training and self.time_noise:
            # Of a size alone: what is drawn like a tensor cannot be compiled.
            drawn = torch.rand(present.shape, device=present.device)
            steps = steps * (1 + (drawn < self.time_noise))
        age = steps.flip(0).cumsum(0).flip(0) - 1
        visible = (present > 0) & (age < self.memory)
        return age.clamp(0, self.memory - 1), visible.to(present.dtype)


def _drawn(*shape: int) -> nn.Parameter:
    return nn.Parameter(_DEVIATION * torch.randn(shape))


def _positions(word: Float[Tensor, "m words"], features: int) -> Float[Tensor, "m words d"]:
    """Return the weight of each number of each word of a sentence, by its place among them."""
    j = (word.cumsum(1) / word.sum(1, keepdim=True).clamp_min(1))[:, :, None]
    k = torch.arange(1, features + 1, device=word.device, dtype=word.dtype) / features
    return (1 - j) - k * (1 - 2 * j)


def _as_loaded(learner: MemoryNetwork, _: object) -> None:
    learner.at_progress(learner.progress.item())
