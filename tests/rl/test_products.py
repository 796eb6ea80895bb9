"""Traced products are the products, for other data than they were traced with too."""

import torch
from torch import Tensor
from torch.func import grad, jvp

from kshot.rl.products import Products


def loss(w: dict[str, Tensor], x: Tensor) -> Tensor:
    return ((x @ w["a"]).tanh() @ w["b"]).square().mean()


def product(given: tuple[dict[str, Tensor], Tensor], v: dict[str, Tensor]) -> tuple[object, object]:
    return jvp(lambda w: grad(loss)(w, given[1]), (given[0],), (v,))  # type: ignore[no-any-return]


def drawn(rows: int) -> tuple[dict[str, Tensor], Tensor]:
    return {"a": torch.randn(3, 4), "b": torch.randn(4, 2)}, torch.randn(rows, 3)


def test_products_are_exact_for_all_data_and_vectors() -> None:
    products, calls = Products(counted := Counted()), counted
    for rows in (5, 5, 7):
        given = drawn(rows)
        value, kept = products.at(given, given[0])  # the very tensors of what is given, as a user would
        for _ in range(2):
            v = drawn(rows)[0]
            expected_value, expected = product(given, v)
            found = products.along(kept, v)
            for name in ("a", "b"):
                assert torch.equal(value[name], expected_value[name])  # type: ignore[index]
                assert torch.allclose(found[name], expected[name], atol=1e-7)  # type: ignore[index]
    assert calls.number == 2  # traced once for each shape


class Counted:
    number = 0

    def __call__(self, given: tuple[dict[str, Tensor], Tensor], v: dict[str, Tensor]) -> tuple[object, object]:
        self.number += 1
        return product(given, v)


def test_what_the_vector_does_not_reach_runs_once() -> None:
    given = drawn(6)
    kept = Products(product).at(given, given[0])[1]
    operations = [str(node.target) for node in kept.traced.second.graph.nodes]  # type: ignore[attr-defined]
    assert not [name for name in operations if name == "aten.tanh.default"]
    assert [name for name in operations if name == "aten.mm.default"]


def test_products_add_in_place_unless_something_else_reads_what_they_add_to() -> None:
    def summed(given: tuple[Tensor, Tensor], v: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        a, b = given
        once, twice = a @ v, b @ v
        zeros = torch.zeros_like(v)
        return a, (
            once + b @ v.exp(),
            twice + a @ v.exp(),
            twice.expand(3, 3),
            zeros + v,
            a + a @ v,
            v.sum(0) + b @ v,
            v.t() @ a[:, :1],
        )

    given = torch.randn(3, 3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64)
    kept = Products(summed).at(given, given[0])[1]
    for _ in range(2):
        v = torch.randn(3, 3, dtype=torch.float64)
        for found, expected in zip(Products.along(kept, v), summed(given, v)[1], strict=True):
            assert torch.allclose(found, expected, atol=1e-12)
    operations = [str(node.target) for node in kept.traced.second.graph.nodes]  # type: ignore[attr-defined]
    count = {name: operations.count(f"aten.{name}") for name in ("addmm_.default", "addmm.default", "add.Tensor")}
    assert count == {"addmm_.default": 1, "addmm.default": 3, "add.Tensor": 0}
    assert not {"aten.zeros_like.default", "aten.expand.default"} & set(operations)
