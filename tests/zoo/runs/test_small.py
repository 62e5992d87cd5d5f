"""The profile `small` is one rule: no algorithm escapes it, and what stands beside it is four known exceptions."""

from typing import Any

import pytest

from sb3_genoffline.common.sequence_algorithm import SequenceAlgorithm
from sb3_genoffline.registry import ALGOS
from zoo.runs.hyperparameters import Hyperparameters, load_hyperparameters, read_settings, unnamed_defaults
from zoo.runs.small import FIT_STEPS, PROFILE, UPDATES

SETS = ("genoffline/hopper/medium-replay-v1", "genoffline/antmaze/umaze-v0")
EXCEPTIONS = {"onestep", "qdq", "cped", "diffuser"}


def whole(algo: str, settings: Hyperparameters) -> dict[str, Any]:
    """All settings of an agent: what is named and what is not."""
    unnamed = unnamed_defaults(algo, settings)
    networks = unnamed.pop("policy_kwargs") | (settings.plain.get("policy_kwargs") or {})
    return unnamed | {name: value for name, value in settings.plain.items() if name != "policy_kwargs"} | networks


def widths(arch: Any) -> list[int]:
    parts = arch.values() if isinstance(arch, dict) else arch if isinstance(arch, list | tuple) else None
    return [arch] if parts is None else [width for part in parts for width in widths(part)]


@pytest.mark.parametrize("algo", ALGOS)
@pytest.mark.parametrize("dataset", SETS)
def test_every_algorithm_follows_the_rule(algo: str, dataset: str) -> None:
    paper, small = (whole(algo, load_hyperparameters(algo, dataset, profile)) for profile in (None, PROFILE))
    assert (
        small["n_timesteps"] == (UPDATES // 4 if algo == "diffuser" else UPDATES) and small["normalize_observations"] is True
    )
    assert small["batch_size"] == min(paper["batch_size"], 16 if issubclass(ALGOS[algo], SequenceAlgorithm) else 128)
    for name, value in small.items():
        before = paper.get(name)
        if name in ("vae_steps", "behavior_steps", "flow_steps", "teacher_steps", "cd_steps", "value_steps"):
            assert value <= FIT_STEPS
        elif name in ("tau", "actor_tau"):
            assert value == pytest.approx(4 * before)
        elif name.endswith("net_arch") and before and name != "behavior_net_arch":
            assert widths(value) == [128] * len(widths(before))
        elif name in ("learning_rate", "critic_learning_rate") and before is not None and algo not in EXCEPTIONS:
            assert float(str(value).removeprefix("lin_")) == pytest.approx(min(before * 10 / 3, 1e-3), rel=0.02)
            assert str(value).startswith("lin_")
        elif name in ("n_critics", "n_actions", "n_target_samples", "n_kl_samples", "n_value_samples"):
            assert value == min(before, 4)
    assert small.get("critic_layer_norm", True) or small["spectral_norm"]


def test_only_four_algorithms_have_lines_beside_the_rule() -> None:
    assert {algo for algo in ALGOS if PROFILE in read_settings(algo).profiles} == EXCEPTIONS


@pytest.mark.parametrize("algo", sorted(set(ALGOS) - EXCEPTIONS))
def test_what_the_rule_does_not_name_is_the_papers(algo: str) -> None:
    paper, small = (whole(algo, load_hyperparameters(algo, SETS[0], profile)) for profile in (None, PROFILE))
    named = (
        "steps",
        "_start",
        "rate",
        "_lr",
        "size",
        "arch",
        "samples",
        "tau",
        "n_",
        "dim",
        "channels",
        "norm",
        "normalize",
        "decay",
    )
    left = {name for name in paper if small[name] != paper[name] and not any(part in name for part in named)}
    assert not left
    for name in ("expectile", "temperature", "alpha", "lam", "rho", "bc_threshold", "eta", "beta", "n_diffusion_steps"):
        assert small.get(name) == paper.get(name)
