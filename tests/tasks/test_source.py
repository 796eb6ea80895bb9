"""What every source of tasks offers."""

from typing import Any

import pytest
from torch import nn
from torch.utils.data import DataLoader

from kshot.learners.metric import Prototypical
from kshot.tasks.sinusoid import Sinusoids
from kshot.tasks.source import check_source

WAVES = Sinusoids(3, 3, length=4)


@pytest.mark.parametrize(
    ("tasks", "found"), [(DataLoader(WAVES), "DataLoader"), (list(WAVES), "list"), (iter([]), "list_iterator")]
)
def test_what_draws_no_tasks_by_number_is_refused(tasks: Any, found: str) -> None:
    learner = Prototypical(nn.Identity())
    check_source(WAVES, learner)
    with pytest.raises(ValueError, match=f"expected a TaskSource, .* found a {found}. Give the source itself"):
        check_source(tasks, learner)
