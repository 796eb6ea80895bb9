import torch

from kshot.tasks.augment import Distortions


def dot(column: int, row: int) -> torch.Tensor:
    x = torch.zeros(1, 1, 1, 28, 28)
    x[..., row, column] = 1
    return x


def centre(x: torch.Tensor) -> tuple[float, float]:
    weights = x[0, 0, 0] / x.sum()
    places = torch.arange(28.0)
    return (weights.sum(0) @ places).item(), (weights.sum(1) @ places).item()


def only(component: int, amount: float) -> torch.Tensor:
    """Uniform numbers by which one component takes part, by ``amount`` in -1..1 of its largest change."""
    u = torch.full((1, 1, 14), 0.999)
    u[..., component] = 0.0
    u[..., 7 + component] = (amount + 1) / 2
    return u


def test_each_component_does_what_its_name_says() -> None:
    distort = Distortions()
    x, y = centre(distort(dot(20, 14), only(5, 1.0)))
    assert abs((20 - x) - 0.07 * 28) < 0.1  # a shift moves by a share of the side
    assert abs(y - 14) < 0.1
    x, _ = centre(distort(dot(20, 14), only(3, 1.0)))
    assert abs((x - 13.5) - 6.5 / 1.2) < 0.2  # a larger scale of the grid draws everything closer to the centre
    before, after = centre(dot(14, 4)), centre(distort(dot(14, 4), only(0, 1.0)))
    assert abs(after[0] - before[0]) > 1  # a turn by 10 degrees moves a point 9.5 from the centre by 1.7
    assert abs(after[1] - before[1]) < 0.5


def test_nothing_happens_where_no_component_takes_part() -> None:
    x = torch.rand(2, 3, 1, 28, 28)
    torch.testing.assert_close(Distortions(probability=0.0)(x, torch.rand(2, 3, 14)), x, atol=1e-5, rtol=0)


def test_pictures_are_distorted_independently() -> None:
    x = torch.rand(1, 1, 1, 28, 28).expand(2, 3, 1, 28, 28)
    y = Distortions(probability=1.0)(x, torch.rand(2, 3, 14)).flatten(0, 1)
    distances = torch.cdist(y.flatten(1), y.flatten(1)) + 1e3 * torch.eye(6)
    assert distances.min() > 0.5
