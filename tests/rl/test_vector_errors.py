"""What goes wrong in other people's environments is said with the task and the step."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from kshot.rl.collect import collect
from kshot.rl.environments.simulators import Copies
from kshot.rl.environments.vector import VectorEnvironment
from kshot.rl.environments.vectorized import Vectorized
from kshot.rl.policies import policy_for


class Broken(gymnasium.Env[Any, Any]):
    """Fails as its task says, from its third step on."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2, 3))
    action_space = gymnasium.spaces.Box(-1, 1, (1,))

    def set_task(self, task: dict[str, Any]) -> None:
        self.how, self.steps = int(task["how"]), 0
        assert self.how != 9

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros((2, 3), np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        wrong = float("nan") if self.steps == 3 else 0.0
        if self.steps == 3 and self.how == 1:
            raise MemoryError("lost the arm")
        seen = np.full((2, 3), wrong if self.how == 3 else 0.0, np.float32)
        return seen, wrong if self.how == 2 else 1.0, False, False, {"success": self.steps == 2}


def earth(seed: int, items: Any) -> dict[str, Any]:
    return {"gravity": np.full(len(items), 9.8)}


def draw_second(how: int) -> Any:
    def draw(seed: int, items: Any) -> dict[str, Any]:
        return {"how": np.where(items == 1, how, 0)}

    return draw


def broken(how: int, success: str | None = None) -> VectorEnvironment:
    return VectorEnvironment(Copies(Broken, success=success), draw_second(how), 6)


def run(environment: VectorEnvironment, fill: float = 0.0) -> Any:
    policy = policy_for(environment, (8,))
    weights = {name: one.detach().expand(2, *one.shape) + fill for name, one in policy.named_parameters()}
    return collect(environment, policy, weights, environment.draw_tasks(0, np.arange(2)), 3, torch.Generator())


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        (1, RuntimeError, r"step 2 of task 1 \{'how': 1\}, trajectory 0: the simulator failed: MemoryError: lost the"),
        (2, FloatingPointError, r"Broken: the reward is not finite at step 2 of task 1 \{'how': 2\}, trajectory 0\.$"),
        (3, FloatingPointError, r"Broken: the observation is not finite at step 2 of task 1 \{'how': 3\}, traj"),
        (9, RuntimeError, r"Broken, reset of task 1 \{'how': 9\}, trajectory 0: this task cannot be set: AssertionErr"),
    ],
)
def test_a_failure_names_task_and_step(how: int, kind: type[Exception], message: str) -> None:
    environment = broken(how)
    with pytest.raises(kind, match=message):
        run(environment)
    tasks = {"how": torch.zeros(2, dtype=torch.int64)}
    environment.reset(tasks, 3, torch.Generator())  # simulators are made anew


def test_a_vector_environment_names_the_step_and_is_made_anew() -> None:
    def set_tasks(env: Any, tasks: dict[str, Any]) -> None:
        for row, one in enumerate(env.envs):
            one.set_task({"how": tasks["how"][row]})

    def make(n: int) -> Any:
        return SyncVectorEnv([Broken] * n, autoreset_mode=AutoresetMode.DISABLED)

    environment = VectorEnvironment(Vectorized(make, set_tasks, "success"), draw_second(1), 6)
    with pytest.raises(RuntimeError, match=r"SyncVectorEnv, step 2: the simulators failed: MemoryError: lost the arm"):
        run(environment)
    assert environment.successes[0].all()
    environment.reset({"how": torch.zeros(2, dtype=torch.int64)}, 3, torch.Generator())


def test_a_task_that_depends_on_the_others_is_refused() -> None:
    with pytest.raises(ValueError, match=r"draw must return 'g' as a row for each item, by \(seed, item\) alone"):
        VectorEnvironment(Copies(Broken), lambda seed, items: {"g": np.linspace(seed, 1, len(items))}, 5)


def test_a_policy_that_diverged_is_named_before_the_simulator_meets_it() -> None:
    with pytest.raises(FloatingPointError, match=r"the action is not finite at step 0 of task 0 .* smaller inner step"):
        run(broken(0), fill=float("nan"))


def test_an_environment_without_tasks_says_what_to_pass() -> None:
    environment = VectorEnvironment(Copies(lambda: gymnasium.make("Pendulum-v1")), earth, 5)
    with pytest.raises(RuntimeError, match=r"Pendulum-v1, reset of task 0 .*has no method set_task: pass set_task="):
        environment.reset(environment.draw_tasks(0, np.arange(1)), 1, torch.Generator())


def test_success_is_counted_where_it_is_told() -> None:
    environment = broken(0, success="success")
    run(environment)
    run(environment)
    assert [one.tolist() for one in environment.successes] == [[[True] * 3] * 2] * 2
    with pytest.raises(RuntimeError, match=r"step 0 of task 0 .* info tells no success: KeyError: 'is_success'"):
        run(broken(0, success="is_success"))
    run(plain := broken(0))
    assert plain.successes == []


def test_other_spaces_and_modes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"FrozenLake-v1: observations must be a Box; found Discrete"):
        VectorEnvironment(Copies(lambda: gymnasium.make("FrozenLake-v1")), earth, 5)

    class Several(Broken):
        action_space = gymnasium.spaces.MultiDiscrete([2, 2])

    with pytest.raises(ValueError, match=r"Several: actions must be a Box or Discrete; found MultiDiscrete"):
        VectorEnvironment(Copies(Several), earth, 5)
    with pytest.raises(ValueError, match=r"must be DISABLED or NEXT_STEP; found AutoresetMode.SAME_STEP"):
        Vectorized(lambda n: SyncVectorEnv([Broken] * n, autoreset_mode=AutoresetMode.SAME_STEP), lambda *_: None)
    copies = Copies([Broken, Several])
    with pytest.raises(ValueError, match=r"there are 2 families: draw must return 'family'"):
        VectorEnvironment(copies, earth, 5)
    with pytest.raises(ValueError, match=r"Several observes .* one policy cannot act in both"):
        copies.reset({"family": np.arange(2), "how": np.zeros(2)}, [0, 0])
