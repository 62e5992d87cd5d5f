"""Decision Transformer as an ONNX file: the history goes in and comes out."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch as th
from worlds import make_agent

from sb3_genoffline.decision_transformer.policies import History
from sb3_genoffline.deploy import onnx_file
from sb3_genoffline.deploy.acting import EPISODE_START
from sb3_genoffline.errors import UserError


def agent(**changes: Any) -> Any:
    model = make_agent("decision_transformer", context_length=3, **changes)
    model.policy.set_observation_statistics(th.tensor([2.0, 1.0, 3.0]), th.tensor([3.0, 2.0, 4.0]))
    model.policy.largest_return.fill_(7.0)
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """An agent and its file."""
    model = agent(target_return=-40.0, return_scale=2.0)
    return model, model.export_onnx(tmp_path_factory.mktemp("exported") / "agent")


def test_a_file_acts_in_episodes_that_end_at_different_times_as_predict_does(exported: tuple[Any, Path]) -> None:
    """Claim 7 of the page on acting without PyTorch."""
    (model, file), n = exported, 4
    session = onnxruntime.InferenceSession(str(file))
    assert float(session.get_modelmeta().custom_metadata_map["target_return"]) == -40.0
    assert float(agent().policy.acting_module(True).facts["target_return"]) == 7.0  # none is named: the data's largest
    memory = {each.name: np.zeros([n, *each.shape[1:]], np.float32) for each in session.get_inputs()[1:]}
    outputs = [each.name for each in session.get_outputs()]
    rng, state, begins = np.random.default_rng(0), None, np.ones(n, bool)
    for _ in range(8):
        observation, rewards = rng.normal(2.0, 3.0, (n, 3)).astype(np.float32), rng.normal(size=n).astype(np.float32)
        expected, state = model.predict(observation, state, begins)
        memory[EPISODE_START] = begins.astype(np.float32)
        found = dict(zip(outputs, session.run(outputs, {"observation": observation, **memory}), strict=True))
        np.testing.assert_allclose(found["action"], expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(found["next_state.returns_to_go"], state.returns_to_go, rtol=0, atol=1e-4)
        memory |= {name.removeprefix("next_"): part for name, part in found.items() if name != "action"}
        memory["reward"] = rewards
        model.policy.observe_rewards(state, rewards)
        begins = rng.random(n) < 0.4


def test_a_file_that_remembers_otherwise_is_not_written(
    exported: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, file = exported
    translated = onnx_ir.from_proto(onnx.load(file))
    monkeypatch.setattr(onnx_file, "_translated", lambda *_: translated)
    monkeypatch.setattr(type(model.policy), "observe_rewards", lambda *_: None)
    with pytest.warns(UserWarning, match="told no reward"), pytest.raises(UserError, match="remember other returns_to_go"):
        model.export_onnx(tmp_path / "agent")
    assert not [*tmp_path.iterdir()]


@pytest.mark.usefixtures("float64")
def test_a_file_in_double_precision_is_compared_in_it(tmp_path: Path) -> None:
    session = onnxruntime.InferenceSession(str(agent().export_onnx(tmp_path / "agent")))
    assert {each.type for each in session.get_inputs()} == {"tensor(double)"}


def test_a_state_may_be_a_view_of_any_kind_and_is_a_history() -> None:
    model, observation = agent(), np.ones((2, 3), np.float32)
    _, state = model.predict(observation)
    assert isinstance(state, History)
    backwards = tuple(part[::-1] for part in state)
    for part in backwards:
        part.flags.writeable = False
    turned = model.predict(observation, backwards, np.zeros(2, bool))[0]
    np.testing.assert_array_equal(turned[::-1], model.predict(observation, state, np.zeros(2, bool))[0])


def test_no_observations_get_no_actions_whatever_the_number_of_heads() -> None:
    model = agent(policy_kwargs={"embed_dim": 8, "n_layers": 1, "n_heads": 2})
    actions, state = model.predict(np.zeros((0, 3), np.float32))
    assert actions.shape == (0, 2) and state.actions.shape == (0, 3, 2)
