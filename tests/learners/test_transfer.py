"""Transfer baselines against scikit-learn, torch's own optimizers, plain autograd and closed forms."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge
from torch import Tensor, nn

from kshot.core import Batch, Episode, Learner, one_hot
from kshot.evaluation import evaluate
from kshot.learners.gradient.update_rules import adam, sgd
from kshot.learners.metric import Prototypical
from kshot.learners.transfer import Classifier, Contrastive, FineTune, LinearProbe
from kshot.learners.transfer.blocks import parameter_blocks
from kshot.losses import mean_squared_error
from kshot.nets.conv import Conv4
from kshot.nets.mlp import MLP
from kshot.nets.norm import PerStepNorm
from kshot.nets.resnet import ResNet12
from kshot.tasks.augment import Distortions
from kshot.tasks.episodes import Episodes
from kshot.tasks.labelled import LabelledData
from kshot.tasks.minibatches import Minibatches
from kshot.tasks.unsupervised import Instances
from kshot.training import train


def blobs(n: int, d: int, ways: int, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return clouds of points that overlap, all of them far from the origin, and their labels."""
    labels = torch.arange(n) % ways
    return torch.randn(ways, d, dtype=torch.float64)[labels] + spread * torch.randn(
        n, d, dtype=torch.float64
    ) + 3, labels


@pytest.mark.parametrize(
    ("n", "d", "ways", "penalty", "steps"),
    [(25, 64, 5, 1.0, 40), (300, 8, 3, 1.0, 40), (40, 10, 2, 30.0, 20), (60, 20, 4, 0.01, 150)],
)
def test_logistic_regression_is_that_of_scikit_learn(n: int, d: int, ways: int, penalty: float, steps: int) -> None:
    z, labels = blobs(n, d, ways)
    state = LinearProbe(nn.Identity(), penalty=penalty, steps=steps).adapt(Batch(z, one_hot(labels, ways).double()))
    # newton-cg stops when a whole step changes nothing; two classes need lbfgs for a softmax with two columns.
    known = LogisticRegression(C=1 / penalty, tol=1e-12, max_iter=10_000, solver="newton-cg").fit(z.numpy(), labels)
    if ways == 2:  # scikit-learn fits one column w, of which ours are -v and v with w = 2 v and half the penalty
        twice = LogisticRegression(C=2 / penalty, tol=1e-12, max_iter=10_000, solver="newton-cg").fit(z.numpy(), labels)
        ours = torch.cat([state[:-1, 1] - state[:-1, 0], (state[-1, 1] - state[-1, 0])[None]])
        expected = np.append(twice.coef_[0], twice.intercept_)
    else:
        ours = torch.cat([state[:-1].flatten(), state[-1] - state[-1].mean()])
        expected = np.append(known.coef_.T.reshape(-1), known.intercept_ - known.intercept_.mean())
    assert np.abs(ours.numpy() - expected).max() < 1e-4 * np.abs(expected).max()


def test_more_steps_after_convergence_change_nothing_and_stay_finite() -> None:
    z, labels = blobs(25, 64, 5)
    batch = Batch(z.float(), one_hot(labels, 5))
    some, many = (LinearProbe(nn.Identity(), steps=steps).adapt(batch) for steps in (40, 300))
    assert many.isfinite().all()
    assert (some - many).abs().max() < 1e-4
    alone = LinearProbe(nn.Identity()).adapt(Batch(torch.randn(3, 4), torch.ones(3, 1)))
    assert torch.equal(alone[:-1], torch.zeros(4, 1))


def test_logistic_regression_has_no_slope_at_its_end_by_plain_autograd() -> None:
    z, labels = blobs(30, 6, 3)
    y = one_hot(labels, 3).double()
    y[:5] = 0  # unlabelled
    state = LinearProbe(nn.Identity(), penalty=0.5).adapt(Batch(z, y)).requires_grad_()
    loss = -((z @ state[:-1] + state[-1]).log_softmax(1) * y).sum() + 0.25 * state[:-1].square().sum()
    assert torch.autograd.grad(loss, state)[0].abs().max() < 1e-6


def test_ridge_regression_is_that_of_scikit_learn() -> None:
    for n, d in ((8, 20), (30, 4)):
        z, y = torch.randn(n, d, dtype=torch.float64) + 2, torch.randn(n, 2, dtype=torch.float64)
        learner = LinearProbe(nn.Identity(), mean_squared_error, penalty=0.3)
        known = SklearnRidge(alpha=0.3).fit(z.numpy(), y.numpy())
        x = torch.randn(5, d, dtype=torch.float64)
        found = learner.predict(learner.adapt(Batch(z, y)), x)
        assert np.allclose(found.numpy(), known.predict(x.numpy()), atol=1e-9)


def test_a_penalty_is_needed() -> None:
    with pytest.raises(ValueError, match="penalty above zero"):
        LinearProbe(nn.Identity(), penalty=0.0)


def tuned_by_torch(
    body: nn.Module, batch: Batch, lrs: dict[str, float], steps: int, lr: float, **how: float
) -> nn.Module:
    """Fine-tune a copy by torch's own SGD, with a rate for each parameter of the body; others are frozen."""
    model = nn.Sequential(copy.deepcopy(body).eval(), nn.Linear(4, batch.y.shape[1])).to(batch.x.dtype)
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    groups = [{"params": [p], "lr": lrs[name]} for name, p in model[0].named_parameters() if name in lrs]
    optimizer = torch.optim.SGD([{"params": list(model[1].parameters()), "lr": lr}, *groups], lr=lr, **how)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch.x), batch.y.argmax(1)).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize(("adapts", "decay"), [("head", 1.0), (1, 0.5), (2, 0.5), ("all", 1.0)])
def test_fine_tuning_is_that_of_torch(adapts: str | int, decay: float) -> None:
    body = MLP(6, 5, 7, 4).double()
    blocks = parameter_blocks(body)
    count = {"head": 0, "all": 3}.get(str(adapts), adapts)
    lrs = {name: 0.1 * decay ** (3 - i) for i, names in enumerate(blocks) for name in names if i >= 3 - count}
    batch = Batch(torch.randn(12, 6, dtype=torch.float64), one_hot(torch.arange(12) % 3, 3).double())
    learner = FineTune(body, 0.1, 7, adapts, depth_decay=decay)
    task = Episode(batch, batch)
    model = tuned_by_torch(body, batch, lrs, 7, 0.1, momentum=0.9)
    assert torch.allclose(learner.predictions([task])[0], model(batch.x), atol=1e-10)


def test_batch_normalisation_keeps_the_statistics_of_pretraining_in_train_mode_too() -> None:
    body = Conv4(1, 4)
    body(torch.rand(32, 1, 16, 16))
    before = copy.deepcopy(body.state_dict())
    learner = FineTune(body, 0.1, 5).train()
    batch = Batch(torch.rand(6, 1, 16, 16), one_hot(torch.arange(6) % 2, 2))
    state = learner.adapt(batch)
    assert all(torch.equal(value, before[name]) for name, value in body.state_dict().items())
    model = tuned_by_torch(body, batch, {name: 0.1 for name, _ in body.named_parameters()}, 5, 0.1, momentum=0.9)
    assert torch.allclose(learner.predict(state, batch.x), model(batch.x), atol=1e-5)


def test_warm_up_trains_the_head_alone_first() -> None:
    body = MLP(6, 5, 4)
    batch = Batch(torch.randn(9, 6), one_hot(torch.arange(9) % 3, 3))
    warmed, head = FineTune(body, 0.1, 0, warm_up=8, rule=adam()), FineTune(body, 0.1, 8, "head", rule=adam())
    one, other = warmed.adapt(batch), head.adapt(Batch(body(batch.x), batch.y))
    assert torch.allclose(one["head weight"], other["head weight"], atol=1e-6)
    assert all(torch.equal(one[name], parameter) for name, parameter in body.named_parameters())
    assert set(other) == {"head weight", "head bias"}


def test_after_the_warm_up_all_is_trained_from_where_it_left_the_head() -> None:
    body = MLP(6, 5, 4).double()
    batch = Batch(torch.randn(9, 6, dtype=torch.float64), one_hot(torch.arange(9) % 3, 3).double())
    model = nn.Sequential(copy.deepcopy(body), nn.Linear(4, 3).double())
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    for trained, steps in ((model[1], 6), (model, 4)):
        optimizer = torch.optim.SGD(trained.parameters(), 0.1, momentum=0.9)
        for _ in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch.x), batch.y.argmax(1)).backward()
            optimizer.step()
    learner = FineTune(body, 0.1, 4, warm_up=6)
    assert torch.allclose(learner.predict(learner.adapt(batch), batch.x), model(batch.x), atol=1e-10)


def test_class_means_predict_as_prototypes_before_the_first_step() -> None:
    body = MLP(6, 5, 4)
    task = Episode(*(Batch(torch.randn(9, 6), one_hot(torch.arange(9) % 3, 3)) for _ in range(2)))
    ours = FineTune(body, 0.1, 0, head="mean").predictions([task])[0].softmax(1)
    assert torch.allclose(ours, Prototypical(body).predictions([task])[0].softmax(1), atol=1e-5)


def test_parameters_that_need_no_gradient_are_not_adapted() -> None:
    body = MLP(6, 5, 4)
    body.layers[2].bias.requires_grad_(False)
    state = FineTune(body, 0.1, 1, 1, rule=sgd()).adapt(Batch(torch.randn(4, 6), one_hot([0, 1, 0, 1], 2)))
    assert set(state) == {"head weight", "head bias", "layers.2.weight"}


def test_blocks_are_those_of_the_nets() -> None:
    assert [len(names) for names in parameter_blocks(Conv4(1, 4))] == [4, 4, 4, 4]
    assert len(parameter_blocks(ResNet12(1, (2, 3, 4, 5)))) == 4
    assert parameter_blocks(nn.Linear(2, 3)) == [["weight", "bias"]]
    assert parameter_blocks(nn.Identity()) == []
    named = [name for names in parameter_blocks(ResNet12(1, (2, 3, 4, 5))) for name in names]
    assert named == [name for name, _ in ResNet12(1, (2, 3, 4, 5)).named_parameters()]


def test_bad_fine_tuning_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0 \.\. 2 blocks of the body; found 3"):
        FineTune(MLP(6, 5, 4), 0.1, adapts=3)
    with pytest.raises(ValueError, match="needs labels"):
        FineTune(MLP(6, 5, 4), 0.1, head="mean", loss=mean_squared_error)
    with pytest.raises(ValueError, match="PerStepNorm"):
        FineTune(Conv4(1, 4, norm=lambda channels: PerStepNorm(channels, 2)), 0.1)


def clouds() -> LabelledData:
    """Return 40 classes that 4 of 20 numbers tell; the others are the same noise for all."""
    generator, labels = torch.Generator().manual_seed(0), torch.arange(400) % 40
    means = 3 * torch.randn(40, 4, generator=generator)
    told = means[labels] + torch.randn(400, 4, generator=generator)
    return LabelledData.from_arrays(torch.cat([told, 3 * torch.randn(400, 16, generator=generator)], 1), labels)


def pretrained(steps: int, out: Path | None = None, resume: bool = False) -> tuple[Learner, Episodes]:
    torch.manual_seed(0)
    data = clouds()
    training, unseen = data.subset(range(30)), data.subset(range(30, 40))
    minibatches = Minibatches(training, 20)
    classifier = Classifier(Prototypical(MLP(20, 16, 8)), nn.Linear(8, minibatches.ways))
    validation = Episodes(unseen, ways=5, shots=1, queries=5, length=100)
    optimizer = torch.optim.Adam(classifier.parameters(), 1e-2)
    train(
        classifier,
        minibatches,
        steps=steps,
        tasks_per_step=1,
        optimizer=optimizer,
        validation=validation,
        every=10,
        out=out,
        resume=resume,
    )
    return classifier, validation


def test_pretraining_is_ordinary_supervised_training() -> None:
    minibatches = Minibatches(clouds(), 20)
    torch.manual_seed(1)
    encoder, head = MLP(20, 16, 8), nn.Linear(8, 40)
    model = nn.Sequential(copy.deepcopy(encoder), copy.deepcopy(head))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    classifier = Classifier(Prototypical(encoder), head)
    train(
        classifier, minibatches, steps=15, tasks_per_step=1, optimizer=torch.optim.Adam(classifier.parameters(), 1e-2)
    )
    for step in range(15):
        x, y = minibatches[step].query
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y.argmax(1)).backward()
        optimizer.step()
    for name, weight in model[0].named_parameters():
        assert torch.allclose(dict(encoder.named_parameters())[name], weight, atol=1e-6)


def test_pretraining_resumes_bit_for_bit_and_helps_on_new_classes(tmp_path: Path) -> None:
    whole, validation = pretrained(100)
    pretrained(50, tmp_path)
    resumed, _ = pretrained(100, tmp_path, resume=True)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
    torch.manual_seed(0)
    random = Prototypical(MLP(20, 16, 8))
    before, after = evaluate(random, validation), evaluate(whole, validation)
    assert after.mean - after.ci95 > before.mean + before.ci95


def nt_xent(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """Return the loss of the SimCLR paper as it writes it down, pair by pair."""
    z = nn.functional.normalize(torch.cat([one, other]), dim=1)
    n, total = len(one), torch.zeros((), dtype=z.dtype)
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        others = [j for j in range(2 * n) if j != i]
        scores = torch.stack([z[i] @ z[j] / temperature for j in others])
        total = total + scores.exp().sum().log() - z[i] @ z[partner] / temperature
    return total / (2 * n)


def test_contrastive_loss_is_nt_xent_on_pairs() -> None:
    x, z = torch.randn(2, 6, 5, dtype=torch.float64), one_hot(torch.arange(6), 6).double()
    order = torch.randperm(6)
    task = Episode(Batch(x[0], z), Batch(x[1][order], z[order]))
    learner = Contrastive(Prototypical(nn.Identity()), nn.Identity(), temperature=0.3)
    assert torch.allclose(learner.task_losses([task])[0], nt_xent(x[0], x[1], 0.3))


def test_contrastive_loss_leaves_out_who_has_no_partner_or_no_label() -> None:
    x = torch.randn(5, 3, dtype=torch.float64)
    y = one_hot([0, 0, 1, 1, 1], 2).double()
    learner = Contrastive(Prototypical(nn.Identity()), nn.Identity(), temperature=1.0)
    lonely = Episode(Batch(x[:3], y[:3]), Batch(x[3:], torch.zeros(2, 2, dtype=torch.float64)))
    z = nn.functional.normalize(x, dim=1)
    scores = (z @ z.mT).fill_diagonal_(-torch.inf)
    expected = torch.stack([scores[0].logsumexp(0) - scores[0, 1], scores[1].logsumexp(0) - scores[1, 0]]).mean()
    assert torch.allclose(learner.task_losses([lonely])[0], expected)
    nobody = Episode(Batch(x[:1], y[:1]), Batch(x[2:3], y[2:3]))
    assert learner.task_losses([nobody])[0] == 0
    with pytest.raises(ValueError, match="temperature must be above zero"):
        Contrastive(Prototypical(nn.Identity()), nn.Identity(), temperature=0.0)


def test_contrastive_pretraining_without_labels_helps_on_new_classes() -> None:
    from kshot.tasks.glyphs import glyphs

    data = glyphs("val")
    half = LabelledData(data.x[..., ::2, ::2].contiguous(), data.labels, data.classes)
    training, unseen = half.subset(range(0, 60)), half.subset(range(60, len(half.classes)))
    encoder = nn.Sequential(nn.Flatten(), MLP(196, 64, 32))
    learner = Contrastive(Prototypical(encoder), MLP(32, 32, 16), temperature=0.2)
    validation = Episodes(unseen, ways=5, shots=1, length=100)
    before = evaluate(learner, validation)
    pairs = Instances(training.x, ways=64, augment=Distortions(), augment_support=True)
    optimizer = torch.optim.Adam(learner.parameters(), 3e-3)
    train(learner, pairs, steps=100, tasks_per_step=1, optimizer=optimizer)
    after = evaluate(learner, validation)
    assert after.mean - after.ci95 > before.mean + before.ci95
