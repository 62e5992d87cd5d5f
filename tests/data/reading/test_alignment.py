"""Row t is one step of one episode, from every source, across every episode border."""

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled_episodes import (
    ACTION_SPACE,
    GOAL_SPACE,
    OBSERVATION_SPACE,
    Episode,
    action,
    arrays,
    as_goal,
    assert_aligned,
    observation,
    random_episodes,
    reward,
    write_minari,
)
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from sb3_genoffline.data import load_dataset

SEEDS = st.integers(0, 10**6)
SPACES = {"observation_space": OBSERVATION_SPACE, "action_space": ACTION_SPACE}


@given(SEEDS)
@settings(max_examples=25, deadline=None)
def test_a_dict_with_next_observations_keeps_every_row(seed):
    episodes = random_episodes(seed, ("terminated", "truncated", "both", "cut"))
    last = episodes[-1]
    assert_aligned(load_dataset(arrays(episodes) | SPACES), episodes, unfinished=[last.number] if last.end == "cut" else ())


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_goal_observations_in_a_dict_are_flattened_in_alphabetical_order(seed):
    episodes = random_episodes(seed)
    data = arrays(episodes)
    for key in ("observations", "next_observations"):
        data[key] = as_goal(data[key])
    assert_aligned(load_dataset(data | SPACES | {"observation_space": GOAL_SPACE}), episodes)


def d4rl_view(data):
    """
    D4RL's q-learning view, row by row as D4RL does it, but for terminal rows: they have their own observation as the next
    one, and the log's last row stays if it is one.
    """
    rows = []
    for i in range(len(data["rewards"])):
        if data["truncations"][i] or (i == len(data["rewards"]) - 1 and not data["terminations"][i]):
            continue
        following = data["observations"][i if data["terminations"][i] else i + 1]
        rows.append((data["observations"][i], following, data["actions"][i], data["rewards"][i], data["terminations"][i]))
    return [np.asarray(column) for column in zip(*rows, strict=True)]


@given(SEEDS, st.sampled_from(["cut", "terminated"]))
@settings(max_examples=25, deadline=None)
def test_without_next_observations_the_rows_are_those_of_d4rls_q_learning_view(seed, end):
    episodes = [*random_episodes(seed), Episode(8, 3, end)]
    data = arrays(episodes, next_observations=False)
    dataset = load_dataset(data | SPACES)
    for name, expected in zip(
        ("observations", "next_observations", "actions", "rewards", "terminations"), d4rl_view(data), strict=True
    ):
        np.testing.assert_array_equal(getattr(dataset, name), expected.astype(getattr(dataset, name).dtype))
    shortened = [
        Episode(e.number, e.length - (e.end != "terminated"), "cut" if e.end != "terminated" else e.end) for e in episodes
    ]
    kept = [e for e in shortened if e.length > 0]
    unfinished = [8] if end == "cut" else ()
    assert_aligned(dataset, kept, own_observation_at_terminal=True, unfinished=unfinished)


@pytest.mark.parametrize("timed_out", [False, True])
def test_a_log_that_ends_at_the_goal_keeps_the_goal_unless_it_is_a_time_out(timed_out):
    goal = np.arange(10) == 9
    data = {"observations": np.arange(10.0), "actions": np.zeros((10, 1)), "rewards": goal, "terminals": goal}
    dataset = load_dataset(data | {"timeouts": goal & timed_out})
    assert (len(dataset), dataset.n_episodes, dataset.rewards.sum()) == (10 - timed_out, 1, 1 - timed_out)
    assert dataset.terminations[-1] != dataset.truncations[-1] == timed_out
    assert not dataset.truncations[:-1].any() and dataset.next_observations[-1] == 9


def test_the_row_after_a_dropped_time_out_starts_an_episode_even_if_the_observations_are_equal():
    data = {name: np.zeros((6, 2)) for name in ("observations", "actions")} | {"rewards": np.ones(6), "terminals": np.zeros(6)}
    dataset = load_dataset(data | {"timeouts": [0, 0, 1, 0, 0, 0]})
    np.testing.assert_array_equal(dataset.episode_ends, [2, 4])
    np.testing.assert_array_equal(dataset.truncations, [False, True, False, False])
    np.testing.assert_array_equal(dataset.episode_returns(), [2, 2])


def test_without_time_out_flags_rows_that_reach_the_step_limit_are_dropped():
    # Limit 3, counted from the last termination: rows 2, 5 (terminal as well, still dropped) and 9 are time-outs.
    data = {
        "observations": np.arange(11.0),
        "actions": np.zeros((11, 1)),
        "rewards": np.zeros(11),
        "terminals": np.isin(np.arange(11), [5, 6]),
    }

    class Limited:
        observation_space, action_space = spaces.Box(-np.inf, np.inf, (1,)), spaces.Box(-1, 1, (1,))
        spec = None

    from gymnasium.envs.registration import EnvSpec

    Limited.spec = EnvSpec("Limited-v0", max_episode_steps=3)
    dataset = load_dataset(data, env=Limited())
    np.testing.assert_array_equal(dataset.observations[:, 0], [0, 1, 3, 4, 6, 7, 8])
    np.testing.assert_array_equal(dataset.next_observations[:, 0], [1, 2, 4, 5, 6, 8, 9])
    np.testing.assert_array_equal(dataset.terminations, [0, 0, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(dataset.episode_ends, [2, 4, 5, 7])


def test_a_jump_of_the_observation_ends_an_episode_without_any_flag():
    dataset = load_dataset(
        {
            "observations": [[0.0], [1.0], [5.0], [6.0]],
            "next_observations": [[1.0], [2.0], [6.0], [7.0]],
            "actions": np.zeros((4, 1)),
            "rewards": np.ones(4),
            "terminals": np.zeros(4),
        }
    )
    np.testing.assert_array_equal(dataset.episode_ends, [2, 4])
    np.testing.assert_array_equal(dataset.truncations, [False, True, False, False])  # nobody knows whether the last one ended


def test_given_episode_ends_count_and_flags_inside_an_episode_stay():
    data = arrays([Episode(0, 6, "cut")]) | SPACES
    data["terminations"] = np.arange(6) == 1
    dataset = load_dataset(data | {"episode_ends": [4, 6]})
    np.testing.assert_array_equal(dataset.episode_ends, [4, 6])
    np.testing.assert_array_equal(dataset.terminations, np.arange(6) == 1)
    np.testing.assert_array_equal(dataset.truncations, np.isin(np.arange(6), [3, 5]))


def test_dones_that_include_time_outs_do_not_cut_the_bootstrap():
    data = arrays([Episode(0, 3, "truncated"), Episode(1, 2, "terminated")]) | SPACES
    data["dones"] = data.pop("terminations") | data["truncations"]
    np.testing.assert_array_equal(load_dataset(data).terminations, [0, 0, 0, 0, 1])


@pytest.mark.parametrize("suffix", [".hdf5", ".h5", ".npz"])
@pytest.mark.parametrize("next_observations", [True, False])
def test_a_file_gives_what_its_arrays_give(tmp_path, suffix, next_observations):
    episodes = [*random_episodes(3), Episode(8, 3, "terminated"), Episode(9, 4, "truncated"), Episode(10, 5, "cut")]
    data = arrays(episodes, next_observations)
    data["actions"] = data["actions"] / 6  # files carry no spaces: [-1, 1]
    data["terminals"], data["timeouts"] = data.pop("terminations"), data.pop("truncations")
    path = tmp_path / f"mine{suffix}"
    if suffix == ".npz":
        np.savez(path, **data)
    else:
        with h5py.File(path, "w") as file:
            for name, array in data.items():
                file[name] = array
            file["infos/qpos"] = np.zeros(3)
            file["metadata/algorithm"] = "SAC"
    from_file, from_dict = load_dataset(path), load_dataset(data)
    assert from_file.fingerprint == from_dict.fingerprint
    assert load_dataset(str(path)).id == "mine"


def test_masks_are_one_at_time_outs_and_zero_at_terminals(tmp_path):
    """Only a true end stops the bootstrap."""
    episodes = [
        Episode(0, 3, "truncated"),
        Episode(1, 2, "terminated"),
        Episode(2, 4, "truncated"),
        Episode(3, 1, "terminated"),
    ]
    for dataset in (load_dataset(arrays(episodes) | SPACES), load_dataset(write_minari("align/masks-v0", episodes))):
        mask = 1 - dataset.terminations
        np.testing.assert_array_equal(mask[dataset.truncations], 1)
        np.testing.assert_array_equal(mask[dataset.episode_ends - 1], [1, 0, 1, 0])
        assert mask.sum() == len(dataset) - 2


@pytest.mark.parametrize(("seed", "goal"), [(3, False), (5, True)], ids=["box", "goal"])
def test_minari_episodes_are_aligned_read_anew_and_from_the_cache(seed, goal):
    """Seeds with episodes of one step and of every end."""
    episodes = [*random_episodes(seed, ("terminated", "truncated", "both", "cut")), Episode(8, 4, "cut")]
    write_minari("align/mixed-v0", episodes, goal)
    datasets = [load_dataset("align/mixed-v0", cache=False), load_dataset("align/mixed-v0"), load_dataset("align/mixed-v0")]
    for dataset in datasets:
        assert_aligned(dataset, episodes)
        assert dataset.fingerprint == datasets[0].fingerprint
        assert not dataset.observations.flags.writeable


@pytest.mark.parametrize("storage", ["arrow", "parquet"])
def test_minari_episodes_are_aligned_in_the_arrow_storages(storage):
    pytest.importorskip("pyarrow")
    episodes = [*random_episodes(1), Episode(8, 4, "truncated")]
    for goal in (False, True):
        write_minari(f"align/{storage}{goal}-v0", episodes, goal, data_format=storage)
        assert_aligned(load_dataset(f"align/{storage}{goal}-v0"), episodes)


def test_a_filtered_minari_dataset_gives_its_episodes_only_and_does_not_spoil_the_cache():
    episodes = [Episode(i, 3 + i, "terminated" if i % 2 else "truncated") for i in range(5)]
    whole = write_minari("align/filtered-v0", episodes)
    for _ in range(2):
        assert_aligned(load_dataset(whole), episodes)
        part = minari.load_dataset("align/filtered-v0").filter_episodes(lambda e: bool(e.terminations[-1]))
        assert_aligned(load_dataset(part), [e for e in episodes if e.end == "terminated"])


def fill(buffer, plan, n_envs, n_steps, goal=False, scale=True):
    """Step `n_envs` environments through their episodes; returns the (env, episode, step) of each time."""
    position = [[0, 0] for _ in range(n_envs)]
    log = []
    for _ in range(n_steps):
        now, rows = [], []
        for i in range(n_envs):
            k, t = position[i]
            episode = plan[i][k]
            now.append((episode, t))
            end = t == episode.length - 1
            done = end and episode.end != "cut"
            rows.append(
                (
                    observation(episode.number, np.float64(t)),
                    observation(episode.number, np.float64(t + 1)),
                    action(episode.number, np.float64(t)),
                    reward(episode.number, t),
                    done,
                    {"TimeLimit.truncated": end and episode.end == "truncated"},
                )
            )
            position[i] = [k + 1, 0] if end else [k, t + 1]
        obs, following, actions, rewards, dones, infos = (list(column) for column in zip(*rows, strict=True))
        actions = np.array(actions)
        low, high = ACTION_SPACE.low, ACTION_SPACE.high
        pack = as_goal if goal else (lambda x: x)
        buffer.add(
            pack(np.array(obs)),
            pack(np.array(following)),
            2 * (actions - low) / (high - low) - 1 if scale else actions,
            np.array(rewards),
            np.array(dones),
            infos,
        )
        log.append(now)
    return log


def expected_episodes(log, n_envs, keep):
    """What should be left: per environment the last `keep` times, cut at both ends."""
    parts = []
    for i in range(n_envs):
        for episode, t in [times[i] for times in log[-keep:]]:
            if parts and parts[-1][0] is episode and parts[-1][3] == i:
                parts[-1][2] = t + 1
            else:
                parts.append([episode, t, t + 1, i])
    return parts


def replay_plan(seed, n_envs):
    rng = np.random.default_rng(seed)
    plan, number = [], 0
    for _ in range(n_envs):
        row = []
        for _ in range(40):
            row.append(Episode(number, int(rng.integers(1, 6)), str(rng.choice(["terminated", "truncated"]))))
            number += 1
        plan.append(row)
    return plan


@given(SEEDS, st.integers(1, 3), st.integers(1, 30), st.integers(2, 12), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_replay_buffer_gives_each_environment_in_time_order_also_around_the_ring(seed, n_envs, n_steps, size, goal, shared):
    shared = shared and not goal
    kwargs = {"optimize_memory_usage": True, "handle_timeout_termination": False} if shared else {}
    cls, space = (DictReplayBuffer, GOAL_SPACE) if goal else (ReplayBuffer, OBSERVATION_SPACE)
    buffer = cls(size * n_envs, space, ACTION_SPACE, device="cpu", n_envs=n_envs, **kwargs)
    log = fill(buffer, replay_plan(seed, n_envs), n_envs, n_steps, goal)
    dataset = load_dataset(buffer)

    keep = min(n_steps, size)
    if shared and n_steps >= size:  # the oldest row has lost its observation to the newest next one
        keep -= 1
    parts = expected_episodes(log, n_envs, keep)
    rows = [(e.number, t) for e, start, end, _ in parts for t in range(start, end)]
    at, step = (np.array(column) for column in zip(*rows, strict=True))
    np.testing.assert_array_equal(dataset.observations, observation(at, step))
    np.testing.assert_allclose(dataset.actions, action(at, step), rtol=0, atol=2e-6)
    np.testing.assert_array_equal(dataset.rewards, reward(at, step))
    np.testing.assert_array_equal(dataset.episode_ends, np.cumsum([end - start for _, start, end, _ in parts]))
    finished = [end == e.length for e, _, end, _ in parts]
    terminated = [f and (shared or e.end == "terminated") for f, (e, _, _, _) in zip(finished, parts, strict=True)]
    last = dataset.episode_ends - 1
    np.testing.assert_array_equal(dataset.terminations[last], terminated)
    np.testing.assert_array_equal(dataset.truncations[last], ~np.array(terminated))
    assert dataset.terminations.sum() + dataset.truncations.sum() == len(parts)
    following = step + 1 - (dataset.terminations if shared else 0)
    np.testing.assert_array_equal(dataset.next_observations, observation(at, following))


def test_a_replay_buffer_that_an_algorithm_filled_gives_the_actions_the_environment_got():
    import gymnasium as gym
    from stable_baselines3 import TD3
    from stable_baselines3.common.vec_env import DummyVecEnv

    received: list[list[np.ndarray]] = [[], []]

    class Counter(gym.Env):
        observation_space, action_space = OBSERVATION_SPACE, ACTION_SPACE

        def __init__(self, number):
            self.number, self.episode, self.step_count = number, -1, 0

        def reset(self, *, seed=None, options=None):
            self.episode, self.step_count = self.episode + 1, 0
            return observation(10 * self.number + self.episode, np.float64(0)).astype(np.float32), {}

        def step(self, action):
            received[self.number].append(np.array(action))
            self.step_count += 1
            obs = observation(10 * self.number + self.episode, np.float64(self.step_count)).astype(np.float32)
            odd = self.episode % 2 == 1
            return obs, 1.0, self.step_count == 4 and odd, self.step_count == 4 and not odd, {}

    model = TD3(
        "MlpPolicy",
        DummyVecEnv([lambda: Counter(0), lambda: Counter(1)]),
        learning_starts=20,
        gradient_steps=1,
        batch_size=4,
        policy_kwargs={"net_arch": [4]},
        seed=0,
        device="cpu",
    )
    model.learn(40)
    dataset = load_dataset(model.replay_buffer)
    np.testing.assert_allclose(dataset.actions, np.concatenate(received), atol=1e-5)
    np.testing.assert_array_equal(dataset.next_observations[:, 1], dataset.observations[:, 1] + 1)
    np.testing.assert_array_equal(dataset.next_observations[:, 0], dataset.observations[:, 0])
    np.testing.assert_array_equal(dataset.episode_lengths(), [4] * 10)
    np.testing.assert_array_equal(dataset.terminations[dataset.episode_ends - 1], [0, 1, 0, 1, 0] * 2)


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_second_learn_starts_another_episode_unless_it_goes_on_with_the_first(goes_on):
    import gymnasium as gym
    from stable_baselines3 import TD3
    from stable_baselines3.common.vec_env import DummyVecEnv

    class Endless(gym.Env):
        observation_space, action_space = OBSERVATION_SPACE, ACTION_SPACE

        def __init__(self, number):
            self.number, self.time = number, 0

        def reset(self, *, seed=None, options=None):
            self.number, self.time = self.number + 1, 0
            return self.look(), {}

        def look(self):
            return observation(self.number, np.float64(self.time)).astype(np.float32)

        def step(self, action):
            self.time += 1
            return self.look(), 1.0, False, False, {}

    model = TD3(
        "MlpPolicy",
        DummyVecEnv([lambda: Endless(0), lambda: Endless(10)]),
        learning_starts=99,
        device="cpu",
        policy_kwargs={"net_arch": [4]},
    )
    model.learn(10)
    model.learn(8, reset_num_timesteps=not goes_on)
    dataset = load_dataset(model.replay_buffer)
    np.testing.assert_array_equal(dataset.episode_lengths(), [9, 9] if goes_on else [5, 4, 5, 4])
    np.testing.assert_array_equal(np.flatnonzero(dataset.truncations) + 1, dataset.episode_ends)
    assert not dataset.terminations.any()
