"""What tests share: one thread, a seed, and the command line called in this process."""

import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch

from kshot import batching, meta_gradient
from kshot.allocator import keep_freed_memory
from kshot.cli import main


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest goes first, or one worker would end with it alone.
    items.sort(key=lambda item: "the_code_of_the_readme" not in item.nodeid)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    # Tests are many and small: more threads would only wait for each other.
    torch.set_num_threads(1)


@pytest.fixture
def two_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def memory_kept() -> None:
    # As the command line does: fresh pages would cost a third of the time.
    keep_freed_memory()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_fallback_logged_yet() -> None:
    # The log names a fallback once in a process: a test that finds none must not owe it to another test.
    batching._log_fallback.cache_clear()
    meta_gradient._log_fallback.cache_clear()


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def kshot(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    monkeypatch.setenv("COLUMNS", "100")

    def call(*args: Any) -> Ran:
        monkeypatch.setattr(sys, "argv", ["kshot", *map(str, args)])
        capsys.readouterr()
        code, message = 0, ""
        try:
            main()
        except SystemExit as left:
            # As the interpreter does: a text is printed, and the exit code is 1.
            code, message = (1, f"{left.code}\n") if isinstance(left.code, str) else (int(left.code or 0), "")
        out, err = capsys.readouterr()
        return Ran(code, out, err + message)

    return call
