"""The support vector machine against its duality gap, its solver and finite differences."""

import builtins
import logging
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kshot.core import Batch, Episode, one_hot
from kshot.learners.gradient import SVM
from kshot.learners.gradient.svm_dual import free_multipliers, multipliers
from kshot.losses import mean_squared_error

daqp = pytest.importorskip("daqp")

C = 0.1


def problem(n: int, ways: int, d: int, ridge: float) -> tuple[Tensor, Tensor]:
    """Rows, of which those of a class are alike, with a kernel that is positive definite."""
    y = one_hot(torch.arange(n) % ways, ways).double()
    z = torch.randn(n, d).double() + y @ torch.randn(ways, d).double()
    return z @ z.mT + ridge * torch.eye(n).double(), y


SIZES = [(5, 5, 64, 1.0), (25, 5, 64, 1.0), (15, 3, 4, 1.0), (15, 3, 4, 1e-3), (20, 20, 8, 1.0), (50, 5, 200, 1e-3)]


@pytest.mark.parametrize(("n", "ways", "d", "ridge"), SIZES)
def test_it_is_the_optimum_since_no_gap_of_duality_remains(n: int, ways: int, d: int, ridge: float) -> None:
    kernel, y = problem(n, ways, d, ridge)
    a = multipliers(kernel, y, C)
    assert (a <= C * y + 1e-12).all()
    assert a.sum(1).abs().max() < 1e-12
    margins = kernel @ a  # of every example with every class, by the weights that the multipliers stand for
    norm = (a * margins).sum() / 2
    slack = (1 - y + margins - (margins * y).sum(1, keepdim=True)).amax(1)
    primal, dual = norm + C * slack.sum(), (a * y).sum() - norm
    torch.testing.assert_close(primal, dual, rtol=1e-10, atol=1e-12)
    assert dual > 1e-3


def test_some_multipliers_are_free_and_some_are_not() -> None:
    """Else the tests of this page would say little."""
    free = free_multipliers(*problem(25, 5, 64, 1.0), C)
    assert 0.2 < free.mean() < 0.9


def test_the_linear_system_repeats_the_solution_of_the_solver() -> None:
    kernel, y = problem(25, 5, 16, 1.0)
    rows, columns = torch.eye(25).double(), torch.ones(1, 5).double()
    upper = torch.cat([C * y.flatten(), torch.zeros(25).double()])
    lower = torch.cat([torch.full((125,), -1e30).double(), torch.zeros(25).double()])
    kinds = torch.tensor([0] * 125 + [5] * 25, dtype=torch.int32)
    parts = torch.kron(kernel, torch.eye(5).double()), -y.flatten(), torch.kron(rows, columns), upper, lower, kinds
    solved = torch.from_numpy(daqp.solve(*(part.contiguous().numpy() for part in parts))[0])
    torch.testing.assert_close(multipliers(kernel, y, C), solved.reshape(25, 5), rtol=0, atol=1e-10)


def test_its_derivative_is_that_of_the_optimum() -> None:
    kernel, y = problem(12, 3, 6, 1.0)

    def solved(kernel: Tensor) -> Tensor:
        return multipliers((kernel + kernel.mT) / 2, y, C)

    assert torch.autograd.gradcheck(solved, (kernel.requires_grad_(),))


def tasks(t: int = 4, unlabelled: int = 0) -> Episode:
    y = one_hot((torch.arange(9) % 3).expand(t, -1), 3).double()
    x = torch.randn(t, 9, 6).double() + y @ torch.randn(t, 3, 6).double()
    y[:, 9 - unlabelled :] = 0
    return Episode(Batch(x, y), Batch(x.flip(1) + 0.1, y.flip(1)))


@pytest.mark.parametrize("unlabelled", [0, 2])
def test_it_runs_in_vmap_rather_than_one_task_at_a_time(unlabelled: int, caplog: pytest.LogCaptureFixture) -> None:
    learner = SVM(nn.Linear(6, 5)).double()
    with caplog.at_level(logging.WARNING, "kshot"):
        learner.meta_loss(tasks(unlabelled=unlabelled)).backward()
    assert not caplog.records
    assert learner.encoder.weight.grad.norm() > 0


def test_an_unlabelled_example_weighs_nothing() -> None:
    x, y = torch.randn(5, 3), one_hot([0, 1, 2, 0, 1], 3)
    more = Batch(torch.cat([torch.randn(1, 3), x]), torch.cat([torch.zeros(1, 3), y]))
    torch.testing.assert_close(SVM(nn.Identity()).adapt(more), SVM(nn.Identity()).adapt(Batch(x, y)))
    none = SVM(nn.Identity()).adapt(Batch(x, torch.zeros(5, 3)))
    assert torch.equal(none, torch.zeros(3, 3))


def test_it_takes_any_number_of_classes_and_one_without_examples() -> None:
    learner = SVM(nn.Identity())
    for ways in (2, 5, 20):
        x = torch.eye(ways, 24)
        assert learner.predict(learner.adapt(Batch(x, torch.eye(ways))), x).argmax(1).tolist() == list(range(ways))
    weights = learner.adapt(Batch(torch.eye(2), torch.eye(2, 3)))
    assert weights.isfinite().all()
    assert weights.argmax(1).tolist() == [0, 1]


def test_what_is_not_finite_shows_in_the_loss() -> None:
    learner, batch = SVM(nn.Identity()), tasks(2)
    batch.support.x[0, 0, 0] = torch.nan
    assert not learner.meta_loss(batch).isfinite()


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"above zero; found 0\.1, 0"):
        SVM(nn.Identity(), ridge=0.0)
    with pytest.raises(ValueError, match="above zero; found -1"):
        SVM(nn.Identity(), c=-1.0)
    with pytest.raises(ValueError, match="use Ridge"):
        SVM(nn.Identity(), mean_squared_error)


def test_without_its_solver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "daqp":
            raise ImportError(name)
        return whole(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'kshot\[svm\]'"):
        SVM(nn.Identity())
