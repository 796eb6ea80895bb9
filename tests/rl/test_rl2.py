"""Recurrent policies: what they see, how they are trained, and that they learn within a trial."""

from pathlib import Path

import numpy as np
import pytest
import torch

from kshot.rl.advantages import advantage_estimates, trial_advantages
from kshot.rl.environments.bandit import Bandit
from kshot.rl.environments.navigation import Navigation2D
from kshot.rl.environments.tabular_mdp import TabularMDP
from kshot.rl.ppo import PPO, clipped_surrogate
from kshot.rl.recurrent_policy import RecurrentPolicy
from kshot.rl.rl2 import RL2, TrialSetting
from kshot.rl.seeds import generator_of
from kshot.rl.training import train_policy
from kshot.rl.trials import collect_trials
from kshot.training import Report


def test_steps_of_a_trial_are_those_of_the_whole_sequence() -> None:
    env = TabularMDP(states=4, choices=3, horizon=5)
    torch.manual_seed(0)
    policy = RecurrentPolicy(env.features, env.actions, hidden=8).double()
    torch.nn.init.normal_(policy.logits.weight)
    tasks = {name: leaf.double() for name, leaf in env.draw_tasks(0, np.arange(6)).items()}
    trials = collect_trials(env, policy, tasks, 2, torch.Generator().manual_seed(0))
    assert trials.rewards.shape == (10, 6)
    acted = policy(trials.inputs, policy.start(6))
    torch.testing.assert_close(acted.values, trials.values)
    torch.testing.assert_close((acted.logits.log_softmax(-1) * trials.actions).sum(-1), trials.log_probs)
    seen, before, reward, ended = trials.inputs.split([4, 3, 1, 1], -1)
    assert (before[0] == 0).all()
    torch.testing.assert_close(before[1:], trials.actions[:-1])
    torch.testing.assert_close(reward[1:, :, 0], trials.rewards[:-1])
    assert ended[:, 0, 0].tolist() == [0.0] * 5 + [1.0] + [0.0] * 4  # told with what comes first of the second episode
    assert (seen.sum(-1) == 1).all()


def test_the_same_generator_gives_the_same_trials() -> None:
    env, policy = Bandit(3, 4), RecurrentPolicy(1, 3, 8)
    tasks = env.draw_tasks(0, np.arange(5))
    one, other = (collect_trials(env, policy, tasks, 1, torch.Generator().manual_seed(3)) for _ in "12")
    torch.testing.assert_close(one.actions, other.actions, rtol=0, atol=0)


def test_the_first_step_of_ppo_follows_the_policy_gradient() -> None:
    env, policy = Bandit(3, 4), RecurrentPolicy(1, 3, 8).double()
    tasks = {"chances": env.draw_tasks(0, np.arange(50))["chances"].double()}
    trials = collect_trials(env, policy, tasks, 1, torch.Generator().manual_seed(3))
    optimizer = torch.optim.SGD(policy.parameters(), 1e-3)
    start = {name: one.detach().clone() for name, one in policy.named_parameters()}
    PPO(policy, optimizer, epochs=1, batches=1, value=0.0, decay=1.0, discount=1.0, norm=1e9).update(
        trials, torch.Generator()
    )
    rest = trials.rewards.flip(0).cumsum(0).flip(0) - trials.values
    advantages = (rest - rest.mean()) / (rest.std(correction=0) + 1e-8)
    expected = torch.autograd.grad(
        -(_log_probs(start, policy, trials) * advantages).mean(), list(start.values()), allow_unused=True
    )
    for (name, before), slope in zip(start.items(), expected, strict=True):
        moved = (before - policy.get_parameter(name)) / 1e-3
        torch.testing.assert_close(moved, torch.zeros_like(moved) if slope is None else slope, rtol=1e-6, atol=1e-9)


def _log_probs(start: dict[str, torch.Tensor], policy: RecurrentPolicy, trials: object) -> torch.Tensor:
    for leaf in start.values():
        leaf.requires_grad_(True)
    state = policy.start(trials.mask.shape[1])
    acted = torch.func.functional_call(policy, start, (trials.inputs, state))
    return (acted.logits.log_softmax(-1) * trials.actions).sum(-1)


def test_the_unit_of_rewards_does_not_matter() -> None:
    # or values of long trials drown the gradient of the policy, whose norm is clipped together with theirs
    losses = []
    for unit in (1.0, 100.0):
        torch.manual_seed(0)
        env, policy = Bandit(3, 4), RecurrentPolicy(1, 3, 8).double()
        tasks = {"chances": env.draw_tasks(0, np.arange(50))["chances"].double()}
        trials = collect_trials(env, policy, tasks, 1, torch.Generator().manual_seed(3))
        trials = trials._replace(rewards=unit * trials.rewards, values=unit * trials.values)
        with torch.no_grad():
            policy.value.weight *= unit
            policy.value.bias *= unit
        losses.append(PPO(policy, torch.optim.SGD(policy.parameters(), 0.0)).update(trials, torch.Generator()))
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert losses[0] > 0.1  # of the values, since the gain is zero before the first step


def test_steps_behind_the_end_of_an_episode_are_as_if_not_there() -> None:
    torch.manual_seed(0)
    rewards, values = torch.randn(10, 1), torch.randn(10, 1)
    mask = torch.tensor([1.0, 1, 0, 0, 0, 1, 1, 1, 1, 0])[:, None]
    found = trial_advantages(rewards, values, mask, 0.9, 0.3)
    on = mask[:, 0] > 0
    torch.testing.assert_close(found[on], advantage_estimates(rewards[on], values[on], 0.9, 0.3))
    assert (found[~on] == 0).all()
    whole = trial_advantages(rewards, values, torch.ones_like(mask), 0.9, 0.3)
    torch.testing.assert_close(whole, advantage_estimates(rewards, values, 0.9, 0.3))


@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_few_trials_are_enough_for_a_step(tasks: int) -> None:
    torch.manual_seed(0)
    policy = RecurrentPolicy(1, 2, 8)
    before = policy.gru.weight_hh_l0.detach().clone()
    learner = RL2(PPO(policy, torch.optim.Adam(policy.parameters(), 1e-2)))
    train_policy(learner, Bandit(2, 4), TrialSetting(tasks), steps=1, validation_tasks=2)
    assert policy.gru.weight_hh_l0.isfinite().all()
    assert not torch.equal(before, policy.gru.weight_hh_l0)


class Broken(Bandit):
    """Pays NaN in its third step, or fails there."""

    failing = False

    def step(self, tasks, state, actions, generator):  # type: ignore[no-untyped-def]
        self.calls = getattr(self, "calls", 0) + 1
        moved = super().step(tasks, state, actions, generator)
        if self.calls < 3:
            return moved
        if self.failing:
            raise KeyError("no arm")
        return moved._replace(rewards=moved.rewards * torch.nan)


def test_what_fails_in_a_trial_is_named() -> None:
    policy, broken = RecurrentPolicy(1, 2, 8), Broken(2, 5)
    learner = RL2(PPO(policy, torch.optim.Adam(policy.parameters())))
    with pytest.raises(FloatingPointError, match=r"outer step 1: Broken: the reward is not finite at step 2 .* task 0"):
        train_policy(learner, broken, TrialSetting(4), steps=1)
    broken = Broken(2, 5)
    broken.failing = True
    with pytest.raises(RuntimeError, match="outer step 1: Broken failed at step 2: 'no arm'"):
        train_policy(learner, broken, TrialSetting(4), steps=1)


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    policy, env = RecurrentPolicy(1, 2, 8), Bandit(2, 4)
    trials = collect_trials(env, policy, env.draw_tasks(0, np.arange(4)), 1, torch.Generator())
    policy.gru.weight_hh_l0.register_hook(lambda gradient: gradient * torch.nan)
    before = policy.logits.bias.detach().clone()
    with pytest.raises(FloatingPointError, match="loss or its gradient"):
        PPO(policy, torch.optim.Adam(policy.parameters())).update(trials, torch.Generator())
    assert torch.equal(before, policy.logits.bias)


def test_what_is_clipped_gains_no_more() -> None:
    ratio = torch.linspace(0.1, 3, 30, requires_grad=True)
    clipped_surrogate(ratio, torch.ones(30), 0.2).sum().backward()
    assert ((ratio.grad == 0) == (ratio > 1.2)).all()


def test_learns_to_look_for_the_better_arm() -> None:
    env = Bandit(arms=2, pulls=6)
    torch.manual_seed(0)
    policy, generator = RecurrentPolicy(1, 2, 16), torch.Generator().manual_seed(0)
    ppo = PPO(policy, torch.optim.Adam(policy.parameters(), 1e-2))

    def tasks(first: int, n: int) -> dict[str, torch.Tensor]:
        arm = env.draw_tasks(0, np.arange(first, first + n))["chances"][:, :1].round()
        return {"chances": torch.cat([arm, 1 - arm], 1)}  # one always pays, the other never

    for step in range(40):
        ppo.update(collect_trials(env, policy, tasks(200 * step, 200), 1, generator), generator)
    found = collect_trials(env, policy, tasks(100_000, 1000), 1, generator).returns().mean()
    assert found > 5.2  # by chance 3; the best there is 5.5, as the first pull cannot know


def test_a_resumed_run_is_the_run_without_a_break(tmp_path: Path) -> None:
    env, setting = TabularMDP(states=3, choices=2, horizon=3), TrialSetting(tasks=6, episodes=2)

    def learner() -> RL2:
        torch.manual_seed(0)
        policy = RecurrentPolicy(env.features, env.actions, 8)
        return RL2(PPO(policy, torch.optim.Adam(policy.parameters(), 1e-2)))

    whole, broken, again = learner(), learner(), learner()
    train_policy(whole, env, setting, steps=4, every=2)
    # Interrupted half-way through the same budget: the learning rate depends on it.
    with pytest.raises(KeyboardInterrupt):
        train_policy(broken, env, setting, steps=4, every=2, out=tmp_path, watch=_interrupt_at_2)
    train_policy(again, env, setting, steps=4, every=2, out=tmp_path, resume=True)
    for one, other in zip(whole.policy.parameters(), again.policy.parameters(), strict=True):
        assert torch.equal(one, other)
    assert whole.ppo.optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 / 4)  # in the last step


def _interrupt_at_2(report: Report) -> None:
    if report.step == 2:
        raise KeyboardInterrupt


def test_episodes_are_judged_one_by_one() -> None:
    env, policy = Bandit(arms=2, pulls=4), RecurrentPolicy(1, 2, 8)
    learner = RL2(PPO(policy, torch.optim.Adam(policy.parameters())))
    results = learner.judge(env, TrialSetting(episodes=3), tasks=50, seed=2)
    trials = collect_trials(env, policy, env.draw_tasks(2, np.arange(50)), 3, generator_of(2, 0))
    assert [result.stamp["episode"] for result in results] == ["1 of 3", "2 of 3", "3 of 3"]
    torch.testing.assert_close(sum(result.scores for result in results), trials.returns().double())
    assert learner.score(results) == pytest.approx(trials.returns().mean().item() / 3)
    with pytest.raises(ValueError, match="episodes >= 1"):
        TrialSetting(episodes=0)


def test_what_a_trial_needs() -> None:
    policy = RecurrentPolicy(2, 2, 8)
    env = Navigation2D()
    with pytest.raises(ValueError, match="actions that are choices"):
        collect_trials(env, policy, env.draw_tasks(0, np.arange(2)), 1, torch.Generator())
