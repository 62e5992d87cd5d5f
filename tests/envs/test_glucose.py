"""Glucose-v0: its equations, its patients, and that one patient is as many."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy.integrate import solve_ivp

import sb3_genoffline
from sb3_genoffline.envs import GLUCOSE
from sb3_genoffline.envs.glucose import INTENSIVE_CARE, STEP, TOO_LOW, Ward, play, reward
from sb3_genoffline.envs.physiology import SENSITIVITIES, T_INSULIN, T_MEAL, Bodies
from sb3_genoffline.errors import UserError

assert sb3_genoffline  # registers the environment


class Always:
    """The same dose at all times."""

    def __init__(self, dose):
        self.dose = dose

    def predict(self, observation, deterministic=True):
        return np.full((len(observation), 1), self.dose), None


def mean_body():
    return Bodies(np.array([75.0]), SENSITIVITIES, np.array([T_INSULIN]), np.array([T_MEAL]))


def test_a_fasting_body_stays_as_it_is():
    bodies = Bodies.draw(5, np.random.default_rng(0))
    states, insulin = bodies.fasting(6.0)
    np.testing.assert_allclose(bodies.rates(states, insulin), 0.0, atol=1e-9)
    np.testing.assert_allclose(bodies.glucose(states), 6.0)


def test_what_goes_in_and_out_balances():
    body = mean_body()
    states, insulin = body.fasting(6.0)
    plasma = insulin / (0.138 * 0.12 * 75)
    # at 6 mmol/L nothing is excreted: the liver makes what is consumed and what leaves Q2 by disposal
    disposed = 8.2e-4 * plasma * states[1]
    np.testing.assert_allclose(75 * 0.0161 * (1 - 520e-4 * plasma), 75 * 0.0097 + disposed)


@pytest.mark.parametrize(("carbs", "units"), [(60.0, 0.0), (60.0, 3.0)])
def test_steps_of_a_minute_are_as_good_as_an_exact_integration(carbs, units):
    body = mean_body()
    states, basal = body.fasting(8.0)
    states = body.eat(states, np.array([carbs]))
    insulin = basal + 1000 * units / STEP
    exact = solve_ivp(lambda _, flat: body.rates(flat[:, None], insulin)[:, 0], (0, STEP), states[:, 0], rtol=1e-8, atol=1e-8)
    ours = body.glucose(body.advance(states, insulin, STEP))
    np.testing.assert_allclose(ours, body.glucose(exact.y[:, -1:]), atol=0.1)


def test_the_risk_is_kovatchevs_in_either_unit():
    glucose = np.array([2.5, 4.0, 6.2, 10.0, 14.4, 20.0])
    of_milligrams = 10 * (1.509 * (np.log(glucose * 18.016) ** 1.084 - 5.381)) ** 2
    np.testing.assert_allclose(reward(glucose), 1 - of_milligrams / 25, atol=0.05)
    assert reward(np.array(6.2)) > 0.999


def test_gymnasium_finds_no_fault():
    check_env(gym.make(GLUCOSE).unwrapped, skip_render_check=True)


def test_one_patient_of_the_environment_is_one_of_the_ward():
    env = gym.make(GLUCOSE)
    seen, _ = env.reset(seed=3)
    stays = play(Always(0.1), n_patients=1, n_steps=4, seed=3)
    for step in range(4):
        np.testing.assert_array_equal(seen, stays.observations[step, 0])
        seen, gained, ended, cut, info = env.step(np.array([0.1]))
        assert (gained, ended, cut, info["glucose"]) == (stays.rewards[step, 0], False, False, stays.glucose[step, 0])


def test_two_days_are_the_limit():
    assert gym.spec(GLUCOSE).max_episode_steps == 96


def test_insulin_lowers_glucose_and_too_much_ends_in_intensive_care():
    none, some, much = (play(Always(dose), 8, 30, seed=1) for dose in (0.0, 0.2, 2.0))
    together = none.present & some.present & much.present
    means = [np.where(together, stays.glucose, np.nan) for stays in (none, some, much)]
    assert np.nanmean(means[0]) > np.nanmean(means[1]) > np.nanmean(means[2])
    assert much.ended.any(0).all()
    np.testing.assert_array_equal(much.rewards[much.ended], INTENSIVE_CARE)
    assert (much.glucose[much.ended] < TOO_LOW).all() and (much.glucose[much.present & ~much.ended] >= TOO_LOW).all()


def test_a_value_counts_rewards_up_to_the_end_alone():
    stays = play(Always(2.0), 3, 30, seed=1)
    wanted = np.mean(
        [sum(0.9**t * stays.rewards[t, k] for t in range(stays.present[:, k].sum())) for k in range(3)],
    )
    assert stays.value(0.9) == pytest.approx(wanted)
    assert stays.summary(0.9)["intensive_care"] == 1.0


def test_a_dose_that_is_no_number_is_refused():
    with pytest.raises(UserError, match=r"doses\[1\] is nan"):
        Ward(2, np.random.default_rng(0)).step(np.array([0.1, np.nan]))


def test_a_ward_without_patients_or_meals_is_refused():
    with pytest.raises(UserError, match="n_patients=0 must be at least 1"):
        play(Always(0.1), 0)
    with pytest.raises(UserError, match="n_steps=241 between 1 and 240"):
        play(Always(0.1), 1, 241)
