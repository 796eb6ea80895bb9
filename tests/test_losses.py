"""The Gaussian log-likelihood against torch's own density, and everywhere that a loss is looked at."""

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch.distributions import Normal

from kshot.core import Batch, Episode, one_hot
from kshot.evaluation import evaluate
from kshot.learners.gradient import MAML
from kshot.learners.memory import NeuralProcess
from kshot.losses import Loss, bit_errors, bits, cross_entropy, gaussian_log_likelihood, mean_squared_error, strings
from kshot.nets.mlp import MLP
from kshot.progress import show_progress
from kshot.report.figures import learning_curve
from kshot.report.page import results_table
from kshot.run_folder import read_lines
from kshot.tasks.functions import GaussianProcesses
from kshot.tasks.sinusoid import Sinusoids
from kshot.training import train


def test_it_is_the_mean_log_density_of_a_point_and_target() -> None:
    mean, log_deviation, y = torch.randn(3, 7, 2).double()
    expected = Normal(mean, log_deviation.exp()).log_prob(y).mean()
    prediction = torch.cat([mean, log_deviation], -1)
    torch.testing.assert_close(gaussian_log_likelihood.metric(prediction, y), expected)
    torch.testing.assert_close(gaussian_log_likelihood(prediction, y), -expected)


def test_a_prediction_without_deviations_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expects predictions of 4 columns.*found 2"):
        gaussian_log_likelihood(torch.zeros(3, 2), torch.zeros(3, 2))


@pytest.mark.parametrize("loss", [mean_squared_error, bits, bit_errors], ids=lambda loss: loss.metric_name)
def test_predictions_that_would_broadcast_against_targets_are_refused(loss: Loss) -> None:
    for one in (loss, loss.metric):
        with pytest.raises(ValueError, match=r"shape of the targets, \(5, 8\); found \(5, 1\)"):
            one(torch.zeros(5, 1), torch.zeros(5, 8))


@pytest.mark.parametrize(("loss", "column"), [(cross_entropy, "class"), (strings, "letter")])
def test_one_output_for_many_classes_is_refused(loss: Loss, column: str) -> None:
    for one in (loss, loss.metric):
        with pytest.raises(
            ValueError, match=rf"targets, \(5, 10\); found \(5, 1\)\. Give the net one output a {column}"
        ):
            one(torch.zeros(5, 1), torch.zeros(5, 10))


def test_a_likelihood_of_one_point_for_many_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape of the targets, \(5, 2\); found \(1, 2\)"):
        gaussian_log_likelihood(torch.zeros(1, 4), torch.zeros(5, 2))


@pytest.mark.parametrize(("loss", "width"), [(cross_entropy, 3), (strings, 5)])
def test_logits_that_are_not_finite_are_wrong(loss: Loss, width: int) -> None:
    y = one_hot([0, 0, 0, 0], width)
    logits = 3 * y
    logits[1], logits[2, 0], logits[3, 1] = torch.nan, torch.inf, -torch.inf
    assert loss.metric(logits, y).item() == 0.5  # a class that is ruled out by minus infinity may be another


def test_any_net_with_two_outputs_a_target_may_be_trained_on_it() -> None:
    learner = MAML(MLP(1, 8, 2), 0.1, 2, loss=gaussian_log_likelihood)
    tasks = GaussianProcesses(shots=5, queries=4, length=100)
    before = evaluate(learner, tasks).mean
    train(learner, tasks, steps=20)
    assert evaluate(learner, tasks).mean > before


def test_training_evaluation_progress_and_report_say_log_likelihood(tmp_path: Path) -> None:
    learner, tasks = NeuralProcess(1, width=8), GaussianProcesses(shots=3, queries=4, length=20)
    text = io.StringIO()
    with show_progress("GPs", Console(file=text)) as watch:
        trained = train(learner, tasks, steps=40, every=20, validation=tasks, out=tmp_path, watch=watch)
    result = evaluate(learner, tasks)
    assert result.mean == trained.best  # the most, not the least, was kept
    assert result.calibration_error is None
    assert str(result).startswith(f"log-likelihood {result.mean:.4g} ± ")
    assert "validation log-likelihood -" in text.getvalue()
    metrics = read_lines(tmp_path / "metrics.jsonl")
    assert max(line["val_log-likelihood"] for line in metrics) == trained.best
    assert "Validation log-likelihood" in learning_curve(metrics)
    assert "log-likelihood" in results_table({"NeuralProcess": result})


def test_regression_without_its_loss_is_refused() -> None:
    learner, tasks = MAML(MLP(1, 4, 1), 0.1), Sinusoids(5, 5, length=2)
    for drawn in (next(tasks.batches(2)), list(tasks)):
        with pytest.raises(ValueError, match=r"found targets of one column.*mean_squared_error"):
            learner.meta_loss(drawn)
    with pytest.raises(ValueError, match="found targets of one column"):
        evaluate(learner, tasks)
    one_class = Episode(*(Batch(torch.zeros(2, 3, 1), torch.ones(2, 3, 1)) for _ in range(2)))
    assert learner.meta_loss(one_class) == 0
