import pytest
import torch
from torch import Tensor, nn

from kshot.calibration import confidence_and_correctness, expected_calibration_error
from kshot.core import Batch, Learner
from kshot.evaluation import Evaluation, evaluate
from kshot.learners.gradient import Ridge
from kshot.learners.metric import OpenSet, Prototypical, Relation
from kshot.losses import mean_squared_error
from kshot.tasks.episodes import Episodes
from kshot.tasks.labelled import LabelledData
from kshot.tasks.sinusoid import Sinusoids
from kshot.tasks.source import TaskSource


def test_a_hand_made_example() -> None:
    """Bins of a fifth: (0.2, 0.4] is right 1 of 2 times at 0.3, (0.8, 1] is right 2 of 3 times at 0.9 on average."""
    confidence = torch.tensor([0.25, 0.35, 0.85, 0.9, 0.95])
    correctness = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0])
    by_hand = 2 / 5 * abs(1 / 2 - 0.3) + 3 / 5 * abs(2 / 3 - 0.9)
    assert expected_calibration_error(confidence, correctness, bins=5) == pytest.approx(by_hand)


def test_a_confidence_between_two_bins_belongs_to_the_lower() -> None:
    """Were 0.5 in the upper bin, its error would cancel that of 0.75."""
    confidence, correctness = torch.tensor([0.5, 0.75]), torch.tensor([0.75, 0.5])
    assert expected_calibration_error(confidence, correctness, bins=2) == pytest.approx(0.25)


def test_errors_within_a_bin_cancel_and_between_bins_add() -> None:
    confidence, correctness = torch.tensor([0.6, 0.6, 0.9, 0.9]), torch.tensor([1.0, 0.2, 1.0, 0.8])
    assert expected_calibration_error(confidence, correctness) == pytest.approx(0, abs=1e-7)
    assert expected_calibration_error(confidence, correctness.flip(0)) == pytest.approx(0.3)


def test_calibrated_predictions_have_none() -> None:
    generator = torch.Generator().manual_seed(0)
    confidence = torch.rand(200_000, generator=generator)
    right = (torch.rand(200_000, generator=generator) < confidence).float()
    assert expected_calibration_error(confidence, right) < 0.005
    assert expected_calibration_error(confidence, 1 - right) > 0.4


def test_unlabelled_examples_are_no_predictions() -> None:
    logits = torch.tensor([[0.0, 0.0], [0.0, 1.0], [3.0, 0.0]])
    y = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    confidence, correctness = confidence_and_correctness(logits, y)
    torch.testing.assert_close(confidence, torch.tensor([0.5, 1 / (1 + torch.tensor(-3.0).exp())]))
    assert correctness.tolist() == [1, 0]


class AlwaysTheFirst(Learner):
    """Says the first class, whatever it sees, as surely as it is told: right once in as many times as there are ways."""

    def __init__(self, confidence: float) -> None:
        super().__init__()
        self.confidence = confidence

    def adapt(self, support: Batch) -> Tensor:
        ways = support.y.shape[1]
        rest = (1 - self.confidence) / (ways - 1)
        return torch.cat([support.y.new_tensor([self.confidence]), support.y.new_full((ways - 1,), rest)]).log()

    def predict(self, state: Tensor, x: Tensor) -> Tensor:
        return state.expand(len(x), -1)


def rows(ways: int = 4, unlabelled: int = 0) -> Episodes:
    x = torch.randn(90, 6, generator=torch.Generator().manual_seed(0))
    data = LabelledData.from_arrays(x, torch.arange(90) % 5)
    return Episodes(data, ways, shots=2, queries=3, unlabelled=unlabelled, length=30)


class AsAList(TaskSource):
    """The same tasks one by one, as tasks of different sizes come."""

    def __init__(self, source: TaskSource) -> None:
        super().__init__(source.seed, source.length)
        self.source, self.stamp_of_source = source, source.stamp

    stamp = property(lambda self: self.stamp_of_source)

    def sample(self, items):  # type: ignore[no-untyped-def]
        return [self.source[int(item)] for item in items]


@pytest.mark.parametrize("confidence", [0.26, 0.9, 0.9999])
def test_an_overconfident_learner_errs_by_its_confidence_less_its_accuracy(confidence: float) -> None:
    result = evaluate(AlwaysTheFirst(confidence), rows(ways=4), tasks_per_batch=7)
    assert result.mean == pytest.approx(1 / 4)
    assert result.calibration_error == pytest.approx(confidence - 1 / 4, abs=1e-5)


def test_batches_and_lists_of_tasks_change_nothing() -> None:
    learner = Prototypical(nn.Identity())
    errors = [
        evaluate(learner, source, size).calibration_error for source in (rows(), AsAList(rows())) for size in (7, 30)
    ]
    assert errors[0] is not None
    assert errors[0] > 0.1
    assert errors == pytest.approx([errors[0]] * 4)


def test_what_predicts_no_probabilities_has_no_calibration_error() -> None:
    assert evaluate(Ridge(nn.Identity(), mean_squared_error), Sinusoids(5, length=3)).calibration_error is None
    relation = Relation(nn.Unflatten(1, (6, 1)), nn.Sequential(nn.Flatten(), nn.Linear(12, 1)))
    assert evaluate(relation, rows()).calibration_error is None
    assert evaluate(OpenSet(Prototypical(nn.Identity())), rows()).calibration_error is None


def test_records_keep_it_and_older_records_lack_it() -> None:
    result = evaluate(AlwaysTheFirst(0.9), rows(ways=4))
    record = result.to_record()
    assert Evaluation.from_record(record).calibration_error == result.calibration_error
    assert "expected calibration error: 65.0 %" in str(result)
    del record["calibration_error"]
    older = Evaluation.from_record(record)
    assert older.calibration_error is None
    assert "calibration" not in str(older)
