import copy
import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import kshot
from kshot.audit import Audit, Finding, PathError, check_meta_gradient
from kshot.core import Batch, Episode, one_hot
from kshot.losses import cross_entropy, mean_squared_error
from kshot.nets.norm import SupportStatisticsNorm

PATHS = ["mixed, vmap", "mixed, loop", "reverse, vmap", "reverse, loop"]
ROWS, PICTURES = (6,), (2, 6, 6)


def tasks(shape: tuple[int, ...] = ROWS, ways: int = 3, t: int = 2) -> Episode:
    def batch(count: int) -> Batch:
        y = one_hot(torch.arange(ways * count) % ways, ways)
        return Batch(torch.randn(t, ways * count, *shape), y.expand(t, -1, -1))

    return Episode(batch(2), batch(3))


def audit(model: nn.Module, shape: tuple[int, ...] = ROWS, steps: tuple[int, ...] = (1, 2)) -> Audit:
    before = copy.deepcopy(model.state_dict())
    found = check_meta_gradient(model, cross_entropy, tasks(shape), steps=steps)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()), "the model is copied"
    assert all(parameter.grad is None for parameter in model.parameters())
    return found


def only(audit: Audit, *severities: str) -> Finding:
    (finding,) = (one for one in audit.findings if one.severity in severities)
    return finding


class Through(nn.Module):
    """Two layers, and a function of the hidden units between them."""

    def __init__(self, function: Callable[[Tensor], Tensor] = torch.tanh) -> None:
        super().__init__()
        self.function = function
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.first(x)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(1, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x[..., None])[0][:, -1])


class Transformer(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(1, 8), nn.Linear(8, 3)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.embed(x[..., None])).mean(1))


def conv(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


SOUND: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "LayerNorm": (lambda: Through(nn.LayerNorm(8)), ROWS),
    "weight normalisation": (lambda: Through(nn.Sequential(weight_norm(nn.Linear(8, 8)), nn.Tanh())), ROWS),
    "LSTM": (Recurrent, ROWS),
    "BatchNorm": (lambda: conv(nn.BatchNorm2d(4, track_running_stats=False)), PICTURES),
    "SupportStatisticsNorm": (lambda: conv(SupportStatisticsNorm(4)), PICTURES),
    "transformer": (Transformer, ROWS),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_model_is_exact_on_every_path(name: str) -> None:
    make, shape = SOUND[name]
    found = audit(make(), shape)
    assert found.exact, str(found)
    assert [(one.path, one.steps) for one in found.errors] == [
        (path, steps) for steps in (1, 2) for path in (*PATHS, "finite differences")
    ]
    assert not [finding for finding in found.findings if finding.severity != "note"]
    assert "The meta-gradient of this model is exact." in str(found)


def test_a_plain_model_has_no_findings() -> None:
    assert not audit(Through()).findings


def test_what_torch_func_alone_gets_wrong_is_told() -> None:
    finding = only(audit(Through(nn.LayerNorm(8)), steps=(1, 5)), "note")
    assert finding.where == "torch.func"
    assert "is off by" in finding.what
    assert finding.what.endswith("% on this model at 5 steps; kshot is not.")


def test_a_detached_layer_is_named() -> None:
    found = audit(Through(lambda x: x.detach().tanh()))
    finding = only(found, "wrong")
    assert finding.where == "first.weight, first.bias"
    assert "detached" in finding.what
    assert not found.exact, "finite differences see it"


def no_grad_scale(x: Tensor) -> Tensor:
    with torch.no_grad():
        scale = x.norm()
    return x / scale


@pytest.mark.parametrize("function", [lambda x: x * x.detach(), no_grad_scale])
def test_a_path_that_is_detached_in_part_is_named(function: Callable[[Tensor], Tensor]) -> None:
    found = audit(Through(function))
    finding = only(found, "wrong")
    assert finding.where == "first.weight, first.bias"
    assert "finite differences" in finding.what
    assert "torch.no_grad()" in finding.remedy
    assert all(one.exact for one in found.errors if one.path in PATHS), "plain autograd is wrong in the same way"
    assert not found.exact


def test_a_backward_pass_that_is_off_is_found() -> None:
    class Off(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def setup_context(ctx: object, inputs: object, output: object) -> None:
            pass

        @staticmethod
        def backward(_: object, gradient: Tensor) -> Tensor:
            return 1.9 * gradient

    finding = next(one for one in audit(Through(Off.apply)).findings if one.severity == "wrong")
    assert "a function of yours" in finding.remedy


def test_an_unused_parameter_is_noted() -> None:
    model = Through()
    model.spare = nn.Linear(2, 2)
    found = audit(model)
    assert only(found, "note").where == "spare.weight, spare.bias"
    assert "does not use" in only(found, "note").what
    assert found.exact


def test_a_kernel_without_double_backward_that_kshot_replaces_is_a_note() -> None:
    found = audit(Transformer())
    finding = next(one for one in found.findings if "derivative" in one.what)
    assert finding.severity == "note"
    assert finding.where == "layer.self_attn"
    assert "_scaled_dot_product_flash_attention" in finding.what
    assert "plain operations stand in" in finding.what


class Distances(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        return -torch.cdist(x, self.centres)


def test_a_kernel_without_double_backward_is_named_with_its_remedy() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), Distances())
    found = audit(model)
    finding = only(found, "wrong")
    assert finding.where == "2"
    assert "_cdist_backward has no derivative" in finding.what
    assert 'differentiate="first_order"' in finding.remedy
    assert not found.exact
    assert {one.path for one in found.errors} == set(PATHS), "the textbook loop cannot be the judge"


class Counting(nn.Module):
    """Keeps a running mean that its output does, or does not, depend on."""

    def __init__(self, used: bool) -> None:
        super().__init__()
        self.net, self.used = Through(), used
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return self.net(x - self.mean if self.used else x)


@pytest.mark.parametrize("used", [True, False])
def test_a_buffer_that_a_call_changes_is_named(used: bool) -> None:
    found = audit(Counting(used))
    finding = next(one for one in found.findings if one.where == "mean")
    assert finding.severity == ("wrong" if used else "note")
    assert "in train mode changes these buffers" in finding.what


def test_state_that_is_no_buffer_is_found() -> None:
    class Drifting(Through):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x) / self.calls

    finding = next(one for one in audit(Drifting()).findings if one.severity == "wrong")
    assert "two calls on the same inputs give different outputs" in finding.what


def test_running_averages_are_refused_with_the_fix() -> None:
    found = audit(conv(nn.BatchNorm2d(4)), PICTURES)
    finding = only(found, "wrong")
    assert "layer '1' (BatchNorm2d)" in finding.what
    assert "track_running_stats=False" in finding.what
    assert not found.exact
    assert "1.running_mean, 1.running_var" in next(one.where for one in found.findings if "buffers" in one.what)


def test_shared_submodules_and_tied_parameters_are_noted() -> None:
    twice, tied = Through(), nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 3))
    twice.again = twice.first
    tied[2].weight = tied[0].weight
    for model, where in ((twice, "first, again"), (tied, "0.weight, 2.weight")):
        found = audit(model)
        assert only(found, "note").where == where
        assert found.exact


def test_a_shared_block_is_named_once() -> None:
    block = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
    assert only(audit(nn.Sequential(block, block, nn.Linear(6, 3))), "note").where == "0, 1"


def test_dropout_is_noted_and_silenced() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    found = audit(model)
    assert only(found, "note").where == "1"
    assert "draws the same masks again" in only(found, "note").remedy
    assert found.exact
    assert not audit(model.eval()).findings
    assert model[1].p == 0.5
    assert audit(Transformer(dropout=0.1)).exact


def test_random_numbers_outside_dropout_layers_cannot_be_compared_between_paths() -> None:
    found = audit(Through(lambda x: F.dropout(x, 0.3)))
    finding = next(one for one in found.findings if one.severity == "wrong")
    assert "random numbers outside nn.Dropout" in finding.what
    assert "Use nn.Dropout" in finding.remedy
    errors = {one.path: one.exact for one in found.errors if one.steps == 2}
    assert errors["reverse, loop"]
    assert errors["mixed, loop"]
    assert not errors["mixed, vmap"]


def test_where_vmap_gives_way_to_a_loop_is_slow() -> None:
    found = audit(Through(lambda x: x * x.detach().sign().abs().max().item()))
    finding = only(found, "slow")
    assert finding.where == "vmap"
    assert ".item()" in finding.what + finding.remedy
    assert found.exact


def test_an_operation_that_vmap_loops_over_is_slow() -> None:
    pool = nn.Unflatten(1, (8, 1, 1)), nn.FractionalMaxPool2d(1, 1), nn.Flatten()
    found = audit(nn.Sequential(nn.Linear(6, 8), *pool, nn.Linear(8, 3)))
    slow = [one.where for one in found.findings if one.severity == "slow"]
    assert slow == ["aten::fractional_max_pool2d", "aten::fractional_max_pool2d_backward"]
    assert found.exact


def test_a_model_that_does_not_run_is_a_finding() -> None:
    found = audit(nn.Linear(5, 3))
    assert not found.exact
    assert not found.errors
    assert only(found, "wrong").where == "forward"
    assert "mat1 and mat2" in only(found, "wrong").what


def test_a_model_that_does_not_run_in_float64_is_told_how() -> None:
    found = audit(Through(lambda x: x.float()))
    assert not found.exact
    assert "float64" in only(found, "wrong").what
    assert ".float()" in only(found, "wrong").remedy


def test_a_model_that_makes_float32_tensors_by_default_is_audited() -> None:
    before = torch.get_default_dtype()
    assert audit(Through(lambda x: x @ torch.eye(8))).exact
    assert torch.get_default_dtype() is before


def test_a_loss_that_is_not_finite_is_a_finding() -> None:
    assert "The loss is nan" in only(audit(Through(lambda x: x / 0 * 0)), "wrong").what


@pytest.mark.parametrize(
    ("function", "inner"),
    [(lambda x: x.relu().sqrt(), set()), (lambda x: (x * (x > 0)).sqrt(), {"first.weight, first.bias"})],
    ids=["second order", "first order"],
)
def test_a_gradient_that_is_not_finite_is_a_finding(function: Callable[[Tensor], Tensor], inner: set[str]) -> None:
    found = audit(Through(function))
    wrong = [one for one in found.findings if one.severity == "wrong"]
    assert {one.where for one in wrong} == {"meta-gradient, 1 step", "meta-gradient, 2 steps"} | inner
    assert all("is not finite" in one.what and "root" in one.remedy for one in wrong)
    assert not found.exact


def test_a_gradient_of_zero_proves_nothing() -> None:
    found = check_meta_gradient(nn.Linear(6, 1), cross_entropy, tasks(ways=1), steps=(1,))
    assert "the gradient is zero, so nothing is checked" in only(found, "wrong").what
    assert not found.exact


def test_lazy_layers_and_kept_tensors_are_audited() -> None:
    class Keeping(Through):
        def forward(self, x: Tensor) -> Tensor:
            self.hidden = self.first(x)  # a tensor that deepcopy refuses
            return self.last(self.hidden.tanh())

    assert audit(Keeping()).exact
    found = check_meta_gradient(nn.Sequential(nn.LazyLinear(8), nn.Tanh(), nn.Linear(8, 3)), cross_entropy, tasks())
    assert found.exact


def test_tokens_stay_integers() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(24, 3))
    episode = Episode(*(Batch(torch.randint(7, batch.x.shape), batch.y) for batch in tasks()))
    assert check_meta_gradient(model, cross_entropy, episode).exact


def test_regression_is_audited() -> None:
    rows = Batch(torch.randn(2, 5, 6), torch.randn(2, 5, 3))
    assert check_meta_gradient(Through(), mean_squared_error, Episode(rows, rows)).exact


def test_a_batch_that_is_not_stacked_is_refused() -> None:
    one = Batch(torch.randn(5, 6), torch.randn(5, 3))
    with pytest.raises(ValueError, match="Stack tasks along a leading axis"):
        check_meta_gradient(Through(), mean_squared_error, Episode(one, one))


@pytest.mark.parametrize("steps", [(), (0, 1)])
def test_numbers_of_steps_are_positive(steps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="steps must be one or more numbers of at least 1"):
        audit(Through(), steps=steps)


def test_a_model_without_parameters_is_a_finding() -> None:
    found = audit(nn.Sequential(nn.Unflatten(1, (3, 2)), nn.AvgPool1d(2), nn.Flatten()))
    assert not found.exact
    assert "adapts must accept at least one parameter" in only(found, "wrong").what


def test_the_audit_is_silent_and_leaves_the_random_state() -> None:
    model, episode = Through(), tasks()
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_meta_gradient(model, cross_entropy, episode)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_audit_without_errors_or_with_nan_is_not_exact() -> None:
    assert not Audit((), ()).exact
    assert not Audit((PathError("mixed, vmap", 1, float("nan"), 1e-10),), ()).exact
    assert "nan  more than 1e-10" in str(Audit((PathError("mixed, vmap", 1, float("nan"), 1e-10),), ()))


def test_it_is_public() -> None:
    assert kshot.check_meta_gradient is check_meta_gradient
