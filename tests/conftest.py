import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    # Tests are many and small: more threads would only wait for each other.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)
