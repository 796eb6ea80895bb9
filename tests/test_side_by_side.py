import threading

import pytest
import torch

from kshot.side_by_side import shared_out, side_by_side


def test_results_come_in_order_from_threads_that_run_together(two_threads: None) -> None:
    both_are_here = threading.Barrier(2, timeout=60)

    def call(number: int) -> tuple[int, int, str]:
        both_are_here.wait()
        return number, torch.get_num_threads(), threading.current_thread().name

    with shared_out(4) as at_a_time:
        found = list(side_by_side([lambda i=i: call(i) for i in range(4)], at_a_time))
    assert torch.get_num_threads() == 2
    assert [(number, each) for number, each, _ in found] == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert threading.current_thread().name not in {name for *_, name in found}


@pytest.mark.parametrize("at_a_time", [1, 2])
def test_a_call_that_fails_raises(at_a_time: int) -> None:
    def fail() -> int:
        raise RuntimeError("no room")

    with pytest.raises(RuntimeError, match="no room"):
        list(side_by_side([fail, fail], at_a_time))


@pytest.mark.parametrize("at_a_time", [1, 2])
def test_calls_run_under_the_autocast_of_their_caller(at_a_time: int) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        inside = list(side_by_side([lambda: torch.is_autocast_enabled("cpu")] * 2, at_a_time))
    assert inside == [True, True]
    assert list(side_by_side([lambda: torch.is_autocast_enabled("cpu")] * 2, at_a_time)) == [False, False]
