from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kshot.batching import unstack
from kshot.core import Batch, Episode
from kshot.evaluation import evaluate
from kshot.finite_differences import finite_difference_error
from kshot.learners.memory import MemoryNetwork
from kshot.learners.memory.memory_network import Sentences
from kshot.meta_gradient import MetaGradient
from kshot.tasks.stories import VOCABULARY, Stories
from kshot.training import train

V, D, HOPS, MEMORY = 11, 6, 3, 5
STORY = torch.tensor([[1, 2, 3, 4], [5, 2, 0, 0], [1, 6, 7, 0]])
ASKED = torch.tensor([[8, 9, 0, 0], [8, 10, 1, 0]])
TYINGS = ("adjacent", "layer_wise")


def network(**more: Any) -> MemoryNetwork:
    return MemoryNetwork(V, D, HOPS, MEMORY, **more).double().eval()


def adapted(learner: MemoryNetwork, story: Tensor) -> Sentences:
    return learner.adapt(Batch(learner.encode(story), torch.zeros(len(story), 0)))


def answers(learner: MemoryNetwork, story: Tensor = STORY, asked: Tensor = ASKED) -> Tensor:
    return learner.predict(adapted(learner, story), learner.encode(asked))


def attention(learner: MemoryNetwork, story: Tensor = STORY, asked: Tensor = ASKED) -> Tensor:
    return learner.attention(adapted(learner, story), learner.encode(asked))


def vector(sentence: Tensor, table: Tensor) -> Tensor:
    """Sum a sentence's word vectors, each number of each word weighed as in section 4.1 of the paper."""
    numbers, features = [w for w in sentence.tolist() if w], table.shape[1]
    total = torch.zeros(features, dtype=table.dtype)
    for j, w in enumerate(numbers, 1):
        for k in range(1, features + 1):
            total[k - 1] += ((1 - j / len(numbers)) - (k / features) * (1 - 2 * j / len(numbers))) * table[w, k - 1]
    return total


def by_hand(learner: MemoryNetwork, story: Tensor, question: Tensor) -> Tensor:
    """The equations of the paper, one sentence at a time."""
    tables, ages, adjacent = learner.words.detach(), learner.ages.detach(), learner.answers is None
    u = vector(question, tables[:, 0 if adjacent else 2])
    for hop in range(HOPS):
        a, c = (hop, hop + 1) if adjacent else (0, 1)
        newest_first = list(enumerate(reversed(story.unbind())))
        keys = torch.stack([vector(sentence, tables[:, a]) + ages[a, age] for age, sentence in newest_first])
        values = torch.stack([vector(sentence, tables[:, c]) + ages[c, age] for age, sentence in newest_first])
        u = (u if adjacent else learner.carry.detach() @ u) + (keys @ u).softmax(0) @ values
    return (tables[:, -1] if adjacent else learner.answers.detach()) @ u


@pytest.mark.parametrize("tying", TYINGS)
def test_it_computes_the_equations_of_the_paper(tying: Any) -> None:
    learner = network(tying=tying)
    for answer, question in zip(answers(learner), ASKED, strict=True):
        torch.testing.assert_close(answer, by_hand(learner, STORY, question), rtol=1e-10, atol=1e-12)


def test_tying_decides_how_many_weights_there_are() -> None:
    shapes = [{name: tuple(p.shape) for name, p in network(tying=tying).named_parameters()} for tying in TYINGS]
    assert shapes[0] == {"words": (V, HOPS + 1, D), "ages": (HOPS + 1, MEMORY, D)}
    assert shapes[1] == {"words": (V, 3, D), "ages": (2, MEMORY, D), "answers": (V, D), "carry": (D, D)}


@pytest.mark.parametrize("tying", TYINGS)
@pytest.mark.parametrize("where", [0, 1, 3])
def test_rows_and_columns_of_padding_change_nothing(tying: Any, where: int) -> None:
    learner, nothing = network(tying=tying), torch.zeros(2, 4, dtype=torch.long)
    padded = torch.cat([STORY[:where], nothing, STORY[where:]])
    wider = torch.nn.functional.pad(padded, (0, 3))
    for story in (padded, wider):
        torch.testing.assert_close(answers(learner, story), answers(learner), rtol=1e-13, atol=1e-15)
    looks = attention(learner, padded)
    assert (looks[:, :, where : where + 2] == 0).all()
    torch.testing.assert_close(looks.sum(-1), torch.ones(2, HOPS).double())


def test_a_story_without_a_sentence_is_answered_from_the_question_alone() -> None:
    learner = network()
    expected = learner.encode(ASKED).sums[:, 0] @ learner.words[:, -1].mT
    for story in (STORY[:0], torch.zeros_like(STORY)):
        torch.testing.assert_close(answers(learner, story), expected)
        assert attention(learner, story).shape == (2, HOPS, len(story))


def test_updating_sentence_by_sentence_equals_reading_the_whole_story() -> None:
    learner, state = network(), network().init()
    for i in range(len(STORY)):
        state = learner.update(state, Batch(learner.encode(STORY[i : i + 1]), torch.zeros(1, 0)))
        torch.testing.assert_close(learner.predict(state, learner.encode(ASKED)), answers(learner, STORY[: i + 1]))


def test_a_sentence_told_again_is_a_newer_sentence() -> None:
    learner = network()
    again = torch.cat([STORY, STORY[:1]])
    assert (answers(learner, again) - answers(learner)).norm() > 1e-3
    looks = attention(learner, again)
    assert (looks[:, :, 0] != looks[:, :, 3]).all(), "time tells the two apart"
    with torch.no_grad():
        learner.ages.zero_()
    looks = attention(learner, again)
    torch.testing.assert_close(looks[:, :, 0], looks[:, :, 3])


def test_of_a_long_story_the_newest_sentences_are_looked_at() -> None:
    learner = network()
    long = torch.randint(1, V, (3 * MEMORY, 4))
    assert (attention(learner, long)[:, :, :-MEMORY] == 0).all()
    torch.testing.assert_close(answers(learner, long), answers(learner, long[-MEMORY:]))


def test_word_order_matters_with_position_encoding_alone() -> None:
    swapped = STORY[:, [1, 0, 2, 3]]
    learner, bag = network(), network(position_encoding=False)
    assert (answers(learner, swapped) - answers(learner)).norm() > 1e-3
    torch.testing.assert_close(answers(bag, swapped), answers(bag))


@pytest.mark.parametrize("tying", TYINGS)
def test_at_the_linear_start_attention_has_no_softmax_in_training_and_in_training_alone(tying: Any) -> None:
    learner = network(tying=tying, linear_start=0.5, time_noise=0.0)
    softmax = answers(learner)
    learner.at_progress(0.49)
    torch.testing.assert_close(answers(learner), softmax)
    learner.train()
    state, x = adapted(learner, STORY), learner.encode(ASKED)
    keys = state.sums[:, 0] + learner.ages[0, [2, 1, 0]]
    torch.testing.assert_close(attention(learner)[:, 0], x.sums[:, learner.asks] @ keys.mT)
    padded = torch.cat([STORY, torch.zeros_like(STORY)])
    torch.testing.assert_close(answers(learner, padded), answers(learner))
    learner.at_progress(0.5)
    torch.testing.assert_close(answers(learner), softmax)


@pytest.mark.parametrize("tying", TYINGS)
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_gradient_in_training_is_exact(tying: Any, share: float) -> None:
    learner = network(tying=tying, linear_start=0.5, time_noise=0.0).train()
    learner.at_progress(share)
    tasks = Episode(
        *(Batch(x.remainder(V), y.double()) for x, y in Stories("one_fact", questions=2).sample(np.arange(3)))
    )
    tasks = Episode(tasks.support, Batch(tasks.query.x, tasks.query.y[..., :V]))
    learner.meta_loss(tasks).backward()
    gradients = {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}
    assert len(gradients) == len(list(learner.parameters()))
    parameters = dict(learner.named_parameters())
    error, worst = finite_difference_error(lambda: learner.meta_loss(tasks), parameters, gradients)
    assert error < 1e-5, worst
    listed = torch.stack([learner.task_loss(learner._encode_listed([task])[0]) for task in unstack(tasks)]).mean()
    torch.testing.assert_close(learner.meta_loss(tasks), listed)


def test_time_noise_makes_sentences_older_in_training_alone() -> None:
    learner = network(time_noise=0.5)
    plain, present = answers(learner), torch.ones(3).double()
    torch.testing.assert_close(answers(learner), plain)
    assert learner._ages(present)[0].tolist() == [2, 1, 0]
    learner.train()
    drawn = {tuple(learner._ages(present)[0].tolist()) for _ in range(200)}
    assert {ages for ages in drawn if ages[0] < 4} >= {(2, 1, 0), (3, 1, 0), (3, 2, 0), (3, 2, 1)}
    assert all(first > second > third for first, second, third in drawn if first < MEMORY - 1)
    assert any(not torch.allclose(answers(learner), plain) for _ in range(20))


def test_time_noise_is_as_frequent_as_it_says() -> None:
    learner = MemoryNetwork(V, D, HOPS, memory=1000, time_noise=0.1).train()
    oldest = [learner._ages(torch.ones(100))[0][0].item() - 99 for _ in range(100)]
    assert abs(float(np.mean(oldest)) - 10) < 5 * 3 / 10  # a binomial of 100 and 0.1 has a deviation of 3


def test_the_share_of_training_is_saved_with_the_weights() -> None:
    saved, other = (network(linear_start=0.5) for _ in range(2))
    saved.at_progress(0.25)
    other.load_state_dict(saved.state_dict())
    assert other.leaves_softmax_out
    assert "progress" not in network().state_dict()


def test_a_compiled_step_has_the_gradient_of_an_eager_one() -> None:
    learner = MemoryNetwork(len(VOCABULARY), D, HOPS, time_noise=0.3).train()
    tasks, gradients = Stories("one_fact").sample(np.arange(4)), []
    for compiled in (False, True):
        learner.zero_grad()
        gradient = MetaGradient(learner, compiled=compiled)
        torch.manual_seed(0)
        gradient(tasks)
        assert None not in gradient._programs.values(), "it ran uncompiled"
        gradients.append([p.grad for p in learner.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_it_learns_to_find_people(tmp_path: Path) -> None:
    learner = MemoryNetwork(len(VOCABULARY), 20)
    optimizer = torch.optim.Adam(learner.parameters(), 0.01)
    train(learner, Stories("one_fact", sentences=4), steps=300, tasks_per_step=32, optimizer=optimizer)
    assert evaluate(learner, Stories("one_fact", sentences=4, seed=1, length=300), 100).mean > 0.9


def test_shares_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shares, 0 to 1; found 5\.0 and 0\.0"):
        MemoryNetwork(5, time_noise=5.0)


@pytest.mark.parametrize("name", ["vocabulary", "features", "hops", "memory"])
def test_sizes_below_one_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        MemoryNetwork(**{"vocabulary": 5, name: 0})


@pytest.mark.parametrize("word", [-1, 5])
def test_a_word_that_is_not_of_the_vocabulary_is_refused(word: int) -> None:
    with pytest.raises(ValueError, match=r"words must be numbers from 0, which is no word, to 4; found"):
        MemoryNetwork(5).encode(torch.tensor([[1, word]]))


def test_labels_that_it_would_not_read_are_refused() -> None:
    learner = MemoryNetwork(5)
    with pytest.raises(ValueError, match=r"support\.y without columns; found 2"):
        learner.adapt(Batch(learner.encode(torch.ones(4, 3, dtype=torch.long)), torch.zeros(4, 2)))
