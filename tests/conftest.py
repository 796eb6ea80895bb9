import pytest
import torch

from kshot.allocator import keep_freed_memory


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    # Tests are many and small: more threads would only wait for each other.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def memory_kept() -> None:
    # As the command line does: fresh pages would cost a third of the time.
    keep_freed_memory()


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
