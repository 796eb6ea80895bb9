"""``kshot rl --env``: runners by their names."""

import pytest

from kshot.cli.rl import _environment
from kshot.cli.rl_options import EnvironmentName, MAMLPolicyOptions


@pytest.mark.parametrize("env", ["half-cheetah-dir", "half-cheetah-vel", "half-cheetah-slope", "ant-dir", "ant-vel"])
def test_a_runner_goes_by_the_name_that_its_results_have(env: EnvironmentName) -> None:
    stamp = _environment(MAMLPolicyOptions(env=env, preset="finn2017")).stamp
    assert (stamp["data"], stamp["preset"]) == (env, "finn2017")
