"""Policies as ONNX files: they act as the agent, on any number of raw observations, and say what they are."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import onnxruntime
import pytest
import torch as th
from gymnasium import spaces
from worlds import ACTION_SPACE, make_agent, make_dataset

from sb3_genoffline import OfflineDataset
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.deploy import onnx_file
from sb3_genoffline.deploy.draws import RecordedDraws
from sb3_genoffline.errors import MissingPackageError, UserError
from sb3_genoffline.registry import ALGOS
from sb3_genoffline.td3_bc import TD3BC
from sb3_genoffline.version import __version__

EXPORTED = [name for name, cls in ALGOS.items() if cls.no_export is None]
ONE_LAYER = {"policy_kwargs": {"net_arch": [8]}}
GOAL_SPACE = spaces.Dict(
    position=spaces.Box(-np.inf, np.inf, (2,), np.float64),
    camera=spaces.Tuple([spaces.Box(-1, 1, (2, 2)), spaces.Box(0, 9, (1,), np.int64)]),
)


def session_of(content: Path | bytes) -> Any:
    return onnxruntime.InferenceSession(str(content) if isinstance(content, Path) else content)


def served(session: Any, observations: np.ndarray, numbers: dict[str, np.ndarray]) -> np.ndarray:
    return session.run(["action"], {"observation": observations, **numbers})[0]  # type: ignore[no-any-return]


def raw_observations(n: int) -> np.ndarray:
    return np.random.default_rng(n).normal(2.0, 3.0, size=(n, 3)).astype(np.float32)


def with_statistics(algo: str, **changes: Any) -> OfflineAlgorithm:
    model = make_agent(algo, **changes)
    model.policy.set_observation_statistics(th.tensor([2.0, 1.0, 3.0]), th.tensor([3.0, 2.0, 4.0]))
    return model


@pytest.fixture(scope="module")
def sampling(tmp_path_factory: pytest.TempPathFactory) -> tuple[OfflineAlgorithm, Path]:
    """DQL, which denoises candidates and draws one of them."""
    model = with_statistics("dql", n_diffusion_steps=2, **ONE_LAYER)
    return model, model.export_onnx(tmp_path_factory.mktemp("onnx") / "agent.v1")


def test_one_file_acts_on_any_number_of_observations_as_predict_with_the_same_noise(
    sampling: tuple[OfflineAlgorithm, Path],
) -> None:
    model, file = sampling
    assert [each.name for each in file.parent.iterdir()] == ["agent.v1.onnx"]
    session = session_of(file)
    shapes = {each.name: (each.shape, each.type) for each in session.get_inputs()}
    assert shapes == {
        "observation": (["batch", 3], "tensor(float)"),
        "noise": ([2, "batch", 3, 2], "tensor(float)"),
        "uniform": (["batch", 3], "tensor(float)"),
    }
    assert [(each.name, each.shape) for each in session.get_outputs()] == [("action", ["batch", 2])]
    for n in (1, 4, 9):
        with RecordedDraws() as drawn:
            expected = model.predict(raw_observations(n), deterministic=True)[0]
        numbers = {name: values.numpy() for name, values in drawn.numbers}
        np.testing.assert_allclose(served(session, raw_observations(n), numbers), expected, rtol=0, atol=1e-5)


def test_another_draw_chooses_another_candidate(sampling: tuple[OfflineAlgorithm, Path]) -> None:
    session, states = session_of(sampling[1]), np.repeat(raw_observations(1), 200, axis=0)
    rng = np.random.default_rng(0)
    noise = np.repeat(rng.standard_normal((2, 1, 3, 2), dtype=np.float32), 200, axis=1)
    actions = served(session, states, {"noise": noise, "uniform": rng.random((200, 3), dtype=np.float32)})
    assert len(np.unique(actions.round(4), axis=0)) > 1


def test_the_file_says_what_it_is_and_nothing_of_the_machine_it_was_made_on(
    sampling: tuple[OfflineAlgorithm, Path],
) -> None:
    facts = session_of(sampling[1]).get_modelmeta().custom_metadata_map
    assert facts["algorithm"] == "dql" and facts["library"] == f"sb3-genoffline {__version__}"
    assert facts["deterministic"] == "true" and "seed the generator" in facts["seed"]
    assert '"noise": "standard normal"' in facts["inputs"] and '"uniform": "uniform in [0, 1)"' in facts["inputs"]
    assert "environment" not in facts  # bare spaces have none
    content = sampling[1].read_bytes()
    assert not [
        word for word in (b"site-packages", b".py", b"pkg.", str(Path(__file__).parents[2]).encode()) if word in content
    ]


def goal_data(space: spaces.Box) -> OfflineDataset:
    """The point's world, of which the agent sees more."""
    data = make_dataset()
    seen, following = (np.pad(states, ((0, 0), (0, 4))) for states in (data.observations, data.next_observations))
    return data.replace(observations=seen, next_observations=following, observation_space=space)


def test_a_file_that_samples_has_inputs_of_their_own_for_parts_and_exporting_leaves_the_agent_as_it_was(
    tmp_path: Path,
) -> None:
    model, other = (make_agent("onestep", (GOAL_SPACE, ACTION_SPACE), **ONE_LAYER) for _ in range(2))
    rng = np.random.default_rng(0)
    camera = (rng.uniform(-1, 1, (3, 2, 2)).astype(np.float32), rng.integers(0, 9, (3, 1)))
    observation: Any = {"position": rng.normal(size=(3, 2)), "camera": camera}
    for each in (model, other):
        each.learn_offline(goal_data(each.observation_space), 2).predict(observation)  # type: ignore[arg-type]
    exported = session_of(model.export_onnx(tmp_path / "sampled", deterministic=False))
    np.testing.assert_array_equal(model.predict(observation)[0], other.predict(observation)[0])
    facts = exported.get_modelmeta().custom_metadata_map
    assert facts["dataset"] == "tests/point-0-v0" and facts["deterministic"] == "false"
    assert {each.name: each.shape for each in exported.get_inputs()} == {
        "observation.camera.0": ["batch", 2, 2],
        "observation.camera.1": ["batch", 1],
        "observation.position": ["batch", 2],
        "uniform": ["batch", 1, 2],
    }
    other.set_acting_seed(3)  # the numbers of the acting stream can be drawn outside
    inputs = {"uniform": th.rand(3, 1, 2, generator=th.Generator().manual_seed(3)).numpy()}
    given = {"camera.0": camera[0], "camera.1": camera[1], "position": observation["position"]}
    inputs |= {f"observation.{name}": value.astype(np.float32) for name, value in given.items()}
    expected = other.predict(observation, deterministic=False)[0]
    np.testing.assert_allclose(exported.run(["action"], inputs)[0], expected, rtol=0, atol=1e-4)
    for each in (model, other):
        each.learn_offline(goal_data(each.observation_space), 2, reset_num_timesteps=False)  # type: ignore[arg-type]
    assert all(th.equal(a, b) for a, b in zip(model.policy.parameters(), other.policy.parameters(), strict=True))


def test_a_file_that_acts_otherwise_is_not_written(
    sampling: tuple[OfflineAlgorithm, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "_translated", lambda *_: onnx_ir.load(sampling[1]))  # another agent's
    with pytest.raises(UserError, match=r"would not act as DQL: for \d observation.* of their range from predict's"):
        with_statistics("dql", n_diffusion_steps=2, seed=1, **ONE_LAYER).export_onnx(tmp_path / "wrong.onnx")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_the_error_names_it(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=rf'needs {package} .*pip install "sb3-genoffline\[onnx\]"'):
        make_agent("bc").export_onnx(tmp_path / "a.onnx")


class Remembering(TD3BC):
    """An algorithm whose policy is no function of one observation."""

    no_export = "it acts on what came before."


def test_an_algorithm_may_say_why_it_has_no_file(tmp_path: Path) -> None:
    model = Remembering("MlpPolicy", make_dataset(), policy_kwargs={"net_arch": [8]})
    with pytest.raises(UserError, match=r"Remembering can't be exported: it acts on what came before\."):
        model.export_onnx(tmp_path / "a.onnx")
    with pytest.raises(UserError, match="no policy yet"):
        TD3BC("MlpPolicy").export_onnx(tmp_path / "a.onnx")
    with pytest.raises(UserError, match=r"'\.' is no name of a file"):
        make_agent("bc").export_onnx("")


class Smoothing(TD3BC.policy_aliases["MlpPolicy"]):  # type: ignore[misc]
    """A policy of a third party that remembers, and does not say how a file should."""

    has_memory = True


def test_a_policy_that_remembers_has_to_say_what_a_file_remembers(tmp_path: Path) -> None:
    model = TD3BC(Smoothing, make_dataset(), policy_kwargs={"net_arch": [8]})
    with pytest.raises(UserError, match=r"Smoothing acts by what came before.*give it an acting_module"):
        model.export_onnx(tmp_path / "a.onnx")
    assert not [*tmp_path.iterdir()]


@pytest.mark.usefixtures("float64")
def test_what_onnxruntime_can_not_do_in_double_precision_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"onnxruntime can't run the file of this DQL.*train in single precision"):
        make_agent("dql", n_diffusion_steps=2, **ONE_LAYER).export_onnx(tmp_path / "a.onnx")
    assert not [*tmp_path.iterdir()]


def test_actions_are_in_the_agents_precision_whatever_the_spaces(tmp_path: Path) -> None:
    space = spaces.Box(-2.0, 3.0, (2,), np.float64)
    model = make_agent("bc", (spaces.Box(-np.inf, np.inf, (3,)), space), policy_kwargs={"net_arch": [8]})
    assert {each.type for each in session_of(model.export_onnx(tmp_path / "a")).get_outputs()} == {"tensor(float)"}


def test_a_plan_of_one_step_is_a_file_too(tmp_path: Path) -> None:
    """However long it is to be followed."""
    small = {"horizon": 1, "n_diffusion_steps": 1, "policy_kwargs": {"channels": [32]}}
    session = session_of(make_agent("diffuser", replan_every=3, **small).export_onnx(tmp_path / "a"))
    assert [each.shape for each in session.get_outputs()] == [["batch", 2], ["batch", 1, 2]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes", [{"replan_every": 1, "guide_stop": 0}, {"replan_every": 3}, {"replan_every": 1, "n_guide_steps": 0}]
)
def test_diffusers_file_plans_as_it_does(changes: dict[str, Any], tmp_path: Path) -> None:
    """With a guide that changes the plan; where a plan is executed for several steps, these are an output."""
    model = with_statistics("diffuser", guide_scale=5.0, **changes)
    session = session_of(model.export_onnx(tmp_path / "agent"))
    k = changes["replan_every"]
    assert [each.name for each in session.get_outputs()] == (["action", "plan"] if k > 1 else ["action"])
    with RecordedDraws() as drawn:
        actions, state = model.predict(raw_observations(4), deterministic=True)
    expected = [actions]
    for _ in range(k - 1):
        actions, state = model.predict(raw_observations(4), state, deterministic=True)
        expected.append(actions)
    (given,) = onnx_file.draws_of(model)
    found = session.run(None, {"observation": raw_observations(4), "noise": drawn.numbers[0][1].view(given.sized(4)).numpy()})
    np.testing.assert_allclose(found[-1].reshape(4, k, 2), np.stack(expected, axis=1), rtol=0, atol=1e-4)
    model.guide_scale = 0.0
    model.set_acting_seed(model.policy.acting_seed)
    assert changes.get("n_guide_steps") == 0 or not np.allclose(
        model.predict(raw_observations(4), deterministic=True)[0], found[0]
    )


@pytest.mark.slow
@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("algo", EXPORTED)
def test_every_algorithm_has_a_file_that_acts_as_it(algo: str, deterministic: bool, tmp_path: Path) -> None:
    """``export_onnx`` compares the file with ``predict`` itself."""
    session = session_of(with_statistics(algo).export_onnx(tmp_path / "agent", deterministic))
    draws = onnx_file.draws_of(with_statistics(algo), deterministic)
    names = ["observation", *with_statistics(algo).policy.acting_module(deterministic).memory, *(each.name for each in draws)]
    assert [each.name for each in session.get_inputs()] == names
