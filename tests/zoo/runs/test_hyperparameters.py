"""Hyper-parameters: the papers' tables, merging, and strings that must not run."""

import importlib
from pathlib import Path
from typing import Any

import pytest
from gymnasium import spaces
from stable_baselines3.common.utils import LinearSchedule
from torch import nn

from sb3_genoffline import ALGOS, CPED, DAC, IQL, QDQ
from sb3_genoffline.cped.multiplier import scheduled_alpha
from sb3_genoffline.errors import UserError
from sb3_genoffline.nets.activations import Mish
from zoo.runs.hyperparameters import load_hyperparameters, own_file, parse_pairs, parse_value, read_settings, read_yaml

DAC_TABLE = {  # rho, b, eta, eta_lr, critic rate (None: 3e-4), max over next actions
    "walker2d-medium-v2": (1.0, 1.0, 1.0, 0.001, None, False),
    "walker2d-medium-expert-v2": (1.0, 1.0, 1.0, 0.001, None, False),
    "hopper-medium-v2": (1.5, 1.0, 1.0, 0.001, None, False),
    "hopper-medium-replay-v2": (1.5, 1.0, 1.0, 0.001, None, False),
    "hopper-medium-expert-v2": (1.5, 0.05, 1.0, 0.001, None, False),
    "halfcheetah-medium-v2": (0.0, 1.0, 1.0, 0.001, None, False),
    "halfcheetah-medium-expert-v2": (0.0, 0.1, 1.0, 0.001, None, False),
    "antmaze-umaze-diverse-v0": (1.0, None, 0.1, 0.0, None, True),
    "antmaze-medium-play-v0": (1.0, None, 0.1, 0.0, None, True),
    "antmaze-large-play-v0": (1.1, None, 0.1, 0.0, 0.001, True),
    "antmaze-large-diverse-v0": (1.0, None, 0.1, 0.0, 0.001, True),
}
# the released code's: alpha, beta, lam, gradient clip, multiplier, objective, steps of the distillation
QDQ_TABLE = {
    "halfcheetah-medium-v2": (0.992, 0.9, 0.0, 10, "paper", "q_bc", 1_600_000),
    "halfcheetah-medium-replay-v2": (0.992, 0.9, 0.1, 10, "paper", "q_bc", 1_000_000),
    "halfcheetah-medium-expert-v2": (0.992, 0.9, 2.0, 10, "paper", "q_bc", 1_600_000),
    "hopper-medium-v2": (0.992, 0.8, 0.8, 10, "paper", "q_bc", 1_600_000),
    "hopper-medium-replay-v2": (0.992, 0.8, 0.8, 10, "paper", "q_bc", 1_600_000),
    "hopper-medium-expert-v2": (0.992, 0.8, 2.0, 10, "paper", "q_bc", 1_600_000),
    "walker2d-medium-v2": (0.992, 0.8, 0.8, 10, "paper", "q_bc", 1_600_000),
    "walker2d-medium-replay-v2": (0.992, 0.8, 0.8, 10, "paper", "q_bc", 1_600_000),
    "walker2d-medium-expert-v2": (0.992, 0.8, 2.0, 10, "paper", "q_bc", 2_000_000),
    "antmaze-umaze-v0": (0.99, 0.9, 0.0, 7, "antmaze_awr", "awr", 1_600_000),
    "antmaze-umaze-diverse-v0": (0.01, 0.9, 1.5, 7, "antmaze_q", "q_bc", 1_600_000),
    "antmaze-medium-play-v0": (0.99, 0.9, 0.0, 7, "antmaze_awr", "awr", 1_600_000),
    "antmaze-medium-diverse-v0": (0.99, 0.9, 1.0, 7, "antmaze_awr", "awr", 1_600_000),
    "antmaze-large-play-v0": (0.99, 0.9, 0.0, 7, "antmaze_awr", "awr", 1_600_000),
    "antmaze-large-diverse-v0": (0.99, 0.9, 0.0, 3, "antmaze_awr", "awr", 1_600_000),
}
# the paper's table G.2: alpha, beta, lam
QDQ_PAPER_TABLE = {
    "halfcheetah-medium-v2": (0.99, 0.9, 0.0),
    "halfcheetah-medium-replay-v2": (0.99, 0.9, 0.0),
    "halfcheetah-medium-expert-v2": (0.99, 0.9, 1.0),
    "hopper-medium-v2": (0.99, 0.8, 1.0),
    "hopper-medium-replay-v2": (0.99, 0.8, 1.0),
    "hopper-medium-expert-v2": (0.95, 0.8, 1.0),
    "walker2d-medium-v2": (0.95, 0.9, 1.0),
    "walker2d-medium-replay-v2": (0.95, 0.9, 1.0),
    "walker2d-medium-expert-v2": (0.95, 0.9, 1.0),
    **dict.fromkeys([name for name in QDQ_TABLE if name.startswith("antmaze")], (0.99, 0.9, 1.0)),
}
# the second released code's: actor's rate, updates of the policy, steps of the density, alpha from an update on
CPED_MUJOCO = (
    1e-4,
    1_000_000,
    500_000,
    [(0, 1000), (100_001, 10), (200_000, 7.5), (300_000, 5), (400_000, 2.5), (500_001, 1.5)],
)
CPED_ANTMAZE = (3e-4, 700_000, 300_000, [(0, 0.25), (200_001, 0.1), (500_001, 0.08)])
CPED_LARGE = (3e-4, 600_000, 400_000, [(0, 0.25), (100_001, 0.1), (400_001, 0.08)])
CPED_TABLE = {
    **{
        f"{env}-{level}-v2": CPED_MUJOCO
        for env in ("halfcheetah", "hopper", "walker2d")
        for level in ("medium", "medium-replay", "medium-expert")
    },
    **{f"antmaze-{maze}-v2": CPED_ANTMAZE for maze in ("umaze", "umaze-diverse", "medium-play", "medium-diverse")},
    "antmaze-large-play-v2": CPED_LARGE,
    "antmaze-large-diverse-v2": CPED_LARGE,
}
CPED_CODE = {  # the flow-GAN and the constraint of the code that differ from the library's choice
    "flow": "nice",
    "held_out": 0,
    "dequantization": 0,
    "flow_learning_rate": 1e-4,
    "flow_betas": (0.9, 0.01),
    "flow_eps": 1e-4,
    "discriminator_betas": (0.9, 0.999),
    "gp_weight": 0.5,
    "gp_interpolation": "normal",
    "n_critic_steps": 5,
    "vector_discriminator": True,
    "standardize_context": False,
    "alpha_mode": "schedule",
    "max_grad_norm": None,
    "clip_target_action": False,
}
SPACES = (spaces.Box(-1.0, 1.0, (3,)), spaces.Box(-1.0, 1.0, (2,)))
OF_WORDS = {"optimizer_class": "SGD", "net_arch": {"pi": [8], "qf": [8]}, "share": True}
ATTACKS = [
    "__import__('pathlib').Path('{file}').touch()",
    "dict(net_arch=__import__('pathlib').Path('{file}').touch())",
    "[__import__('pathlib').Path('{file}').touch()]",
    "(lambda: open('{file}', 'w'))()",
    "dict(**open('{file}', 'w').__dict__)",
    "[open('{file}', 'w') for _ in [1]]",
    "().__class__.__bases__[0]",
    "open('{file}', 'w')",
]


@pytest.mark.parametrize("dataset", DAC_TABLE)
def test_the_table_of_the_dac_paper_is_what_a_dataset_gets(dataset: str) -> None:
    settings = load_hyperparameters("dac", dataset)
    rho, b, eta, eta_lr, critic_rate, max_q = DAC_TABLE[dataset]
    assert settings.entry == dataset
    assert settings.n_timesteps == DAC.default_gradient_steps == 2_000_000
    found = settings.arguments
    assert (found["rho"], found["eta"], found["eta_lr"]) == (rho, eta, eta_lr)
    assert b is None or found["bc_threshold"] == b
    assert (found.get("critic_learning_rate"), found.get("max_q", False)) == (critic_rate, max_q)


@pytest.mark.parametrize("dataset", QDQ_TABLE)
def test_the_released_code_of_qdq_is_what_a_dataset_gets(dataset: str) -> None:
    settings = load_hyperparameters("qdq", dataset)
    found = settings.arguments
    assert settings.entry == dataset
    assert settings.n_timesteps == QDQ.default_gradient_steps == 1_000_000
    names = ("alpha", "beta", "lam", "max_grad_norm", "penalty", "actor_objective", "cd_steps")
    assert tuple(found[name] for name in names) == QDQ_TABLE[dataset]
    assert (found["teacher_steps"], found["cd_init"], found["cd_first_index"]) == (800_000, "random", 1)
    antmaze = dataset.startswith("antmaze")
    assert found.get("reward_transform") == ("iql_antmaze" if antmaze else None)
    policy = found.get("policy_kwargs", {})
    assert policy.get("net_arch") == ([256, 256] if antmaze else None)
    assert policy.get("critic_layer_norm", False) == ("large" in dataset)
    assert "q_net_arch" not in policy


@pytest.mark.parametrize("dataset", QDQ_PAPER_TABLE)
def test_the_profile_paper_of_qdq_is_table_g2_over_the_released_codes_entry(dataset: str) -> None:
    entry, found = (load_hyperparameters("qdq", dataset, profile).plain for profile in (None, "paper"))
    changed = ("alpha", "beta", "lam", "cd_n", "teacher_steps", "cd_steps")
    assert tuple(found[name] for name in changed) == (*QDQ_PAPER_TABLE[dataset], 1000, 800_000, 1_600_000)
    assert {**found, **dict.fromkeys(changed)} == {**entry, **dict.fromkeys(changed)}


def test_qdq_on_a_cpu_distils_all_noise_levels_from_the_teacher_whatever_the_entry_says() -> None:
    for dataset in [*QDQ_TABLE, "nobody/knows/this-v0"]:
        found = load_hyperparameters("qdq", dataset, "cpu").arguments
        assert (found["cd_init"], found["cd_first_index"]) == ("teacher", 0) and found["cd_n"] < 100, dataset
        assert found["teacher_steps"] + found["cd_steps"] < 100_000


def settings_of(model: CPED) -> dict[str, Any]:
    """All hyper-parameters as the agent keeps them."""
    found = {name: getattr(model, name) for name in CPED.argument_table().arguments if hasattr(model, name)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def make_cped(dataset: str, profile: str | None = None) -> CPED:
    settings = load_hyperparameters("cped", dataset, profile)
    return CPED(settings.policy, SPACES, device="cpu", **settings.arguments)


@pytest.mark.parametrize("dataset", CPED_TABLE)
def test_the_second_released_code_of_cped_is_what_a_dataset_gets(dataset: str) -> None:
    settings = load_hyperparameters("cped", dataset)
    found = dict(settings.arguments)
    rate, n_updates, flow_steps, alphas = CPED_TABLE[dataset]
    assert settings.entry == dataset and settings.n_timesteps == n_updates
    assert (found.pop("learning_rate"), found.pop("flow_steps")) == (rate, flow_steps)
    schedule, ends = found.pop("alpha_schedule"), [first for first, _ in alphas[1:]] + [n_updates]
    for (first, alpha), end in zip(alphas, ends, strict=True):
        assert scheduled_alpha(schedule, first) == scheduled_alpha(schedule, end - 1) == alpha
    assert found.pop("reward_transform", None) == ("iql_antmaze" if dataset.startswith("antmaze") else None)
    assert found == CPED_CODE


@pytest.mark.parametrize(("dataset", "antmaze"), [("hopper-medium-v2", False), ("antmaze-umaze-v2", True)])
def test_cpeds_entries_are_its_official_preset(dataset: str, antmaze: bool) -> None:
    assert settings_of(make_cped(dataset)) == settings_of(CPED.official(env=SPACES, antmaze=antmaze, device="cpu"))


def test_cpeds_default_and_recommended_profile_are_the_constructors_defaults_on_any_data() -> None:
    defaults = settings_of(CPED("FlowDensityPolicy", SPACES, device="cpu"))
    assert settings_of(make_cped("nobody/knows/this-v0")) == defaults
    for dataset in CPED_TABLE:
        found = settings_of(make_cped(dataset, "recommended"))
        transform = "iql_antmaze" if dataset.startswith("antmaze") else None
        assert found == {**defaults, "reward_transform": transform}, dataset
        assert load_hyperparameters("cped", dataset, "recommended").n_timesteps == CPED.default_gradient_steps


def test_cped_on_a_cpu_is_the_same_whatever_the_entry_says() -> None:
    plain = load_hyperparameters("cped", "nobody/knows/this-v0", "cpu").plain
    assert (plain["flow"], plain["alpha_mode"]) == ("spline", "fixed") and plain["flow_steps"] + plain["n_timesteps"] < 100_000
    for dataset in CPED_TABLE:
        found = load_hyperparameters("cped", dataset, "cpu").plain
        found.pop("reward_transform", None)  # of the rewards, not of the machine
        assert found == plain, dataset


def test_a_word_may_give_way_to_a_number_or_pairs_where_the_algorithm_takes_them() -> None:
    pairs = parse_pairs(["epsilon:1.5", "alpha_schedule:[[0, 2], [10, 1]]"])
    found = load_hyperparameters("cped", "x-v0", None, pairs).arguments
    assert (found["epsilon"], found["alpha_schedule"]) == (1.5, [[0, 2], [10, 1]])
    with pytest.raises(ValueError, match="alpha_mode=3 is not known; use one of 'dual'"):
        load_hyperparameters("cped", "x-v0", None, parse_pairs(["alpha_mode:3"]))


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("hopper-medium-v2", (0.7, 3.0, "iql_locomotion")),
        ("genoffline/hopper/medium-replay-v1", (0.7, 3.0, "iql_locomotion")),
        ("antmaze-large-play-v0", (0.9, 10.0, "iql_antmaze")),
        ("genoffline/pointmaze/stitch-v0", (0.9, 10.0, "iql_antmaze")),
    ],
)
def test_iql_has_the_papers_two_settings(dataset: str, expected: tuple[float, float, str]) -> None:
    model: Any = IQL("IQLPolicy", SPACES, device="cpu", **load_hyperparameters("iql", dataset).arguments)
    assert (model.expectile, model.temperature, model.reward_transform) == expected


def test_td3_bc_standardises_the_observations_of_all_but_antmazes() -> None:
    for dataset, expected in (("hopper-medium-v2", None), ("antmaze-large-play-v2", False), ("D4RL/antmaze/umaze-v1", False)):
        assert load_hyperparameters("td3_bc", dataset).arguments.get("normalize_observations") is expected


@pytest.mark.parametrize("algo", ["dac", "qdq", "cped", "iql"])
@pytest.mark.parametrize(
    ("minari", "d4rl"),
    [
        ("mujoco/hopper/medium-v0", "hopper-medium-v2"),
        ("mujoco/halfcheetah/medium-v0", "halfcheetah-medium-v2"),
        ("mujoco/walker2d/medium-v0", "walker2d-medium-v2"),
        ("genoffline/hopper/medium-replay-v1", "hopper-medium-replay-v2"),
        ("mujoco/halfcheetah/expert-v0", "halfcheetah-medium-expert-v2"),
        ("D4RL/antmaze/large-play-v1", "antmaze-large-play-v0"),
        ("D4RL/antmaze/umaze-diverse-v1", "antmaze-umaze-diverse-v0"),
        ("somewhere/hopper_medium_expert-v2.hdf5", "hopper-medium-expert-v2"),
        ("hopper_medium_expert-v2", "hopper-medium-expert-v2"),  # the id of a dataset that was read from such a file
        ("mujoco/hopper/medium-v2", "mujoco/hopper/medium-v0"),
        ("nobody/knows/this-v0", "default"),
    ],
)
def test_a_dataset_has_the_same_values_under_all_its_names(minari: str, d4rl: str, algo: str) -> None:
    assert load_hyperparameters(algo, minari).plain == load_hyperparameters(algo, d4rl).plain


def test_datasets_of_ours_and_minaris_have_the_papers_values_in_qdqs_profile() -> None:
    for d4rl, values in QDQ_PAPER_TABLE.items():
        env, level = d4rl.rsplit("-v", 1)[0].split("-", 1)
        names = (
            [f"D4RL/antmaze/{level}-v1"]
            if env == "antmaze"
            else [f"{root}/{env}/{level}-v0" for root in ("mujoco", "genoffline")]
        )
        for name in names:
            found = load_hyperparameters("qdq", name, "paper").arguments
            assert (found["alpha"], found["beta"], found["lam"]) == values, name


@pytest.mark.parametrize("algo", ALGOS)
def test_every_entry_makes_an_agent_with_and_without_each_profile(algo: str) -> None:
    entries = read_yaml(own_file(ALGOS[algo]))
    datasets = [name for name in entries if name not in ("profiles", "search")]
    made, shapes = list[dict[str, Any]](), list[dict[str, Any]]()
    for profile in (None, *entries["profiles"]):
        for dataset in datasets:
            settings = load_hyperparameters(algo, dataset, profile)
            if settings.arguments in made:
                continue
            made.append(settings.arguments)
            model: Any = ALGOS[algo](settings.policy, None, device="cpu", **settings.arguments)
            shape = model.policy_arguments() | model.policy_kwargs
            if dataset == datasets[0] and shape not in shapes:  # networks take most of the time
                shapes.append(shape)
                ALGOS[algo](settings.policy, SPACES, device="cpu", **settings.arguments)


def test_later_sources_win_and_mappings_merge_key_by_key(tmp_path: Path) -> None:
    conf = tmp_path / "conf.yml"
    conf.write_text(
        "default: {rho: 0.5}\n"
        "some/set-v0: {rho: 1.0, batch_size: 64, tau: 0.1, policy_kwargs: 'dict(net_arch=[8], residual=True)'}\n"
        "profiles:\n"
        "  mine:\n"
        "    default: {batch_size: 32, tau: 0.2, policy_kwargs: {net_arch: [16]}}\n"
        "    some/set-v0: {tau: 0.3}\n"
    )
    settings = load_hyperparameters("dac", "some/set-v0", "mine", {"gamma": 0.9, "tau": 0.4}, conf)
    expected = {"rho": 1.0, "batch_size": 32, "tau": 0.4, "gamma": 0.9, "policy_kwargs": {"net_arch": [16], "residual": True}}
    assert settings.arguments == expected
    assert load_hyperparameters("dac", "some/set-v0", "mine", None, conf).arguments["tau"] == 0.3
    assert load_hyperparameters("dac", "other-v0", "mine", None, conf).arguments["rho"] == 0.5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 0.001),
        ("-2.5", -2.5),
        ("True", True),
        ("false", False),
        ("None", None),
        ("null", None),
        ("none", "none"),
        ("soft", "soft"),
        ("lin_3e-4", "lin_3e-4"),
        ("[64, 64]", [64, 64]),
        ("(1, -2)", [1, -2]),
        ("dict(net_arch=[64], critic_activation_fn=nn.ReLU)", {"net_arch": [64], "critic_activation_fn": "ReLU"}),
        ("{'net_arch': dict(pi=[8], qf=[16])}", {"net_arch": {"pi": [8], "qf": [16]}}),
        ("1e3a", "1e3a"),
        ("1e3", 1000),
        ("1000.0", 1000.0),
        ("dict(optimizer_class=SGD, net_arch=dict(pi=[8], qf=[8]), share=true)", OF_WORDS),
        ("dict(optimizer_class=th.optim.SGD)", {"optimizer_class": "SGD"}),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_values_are_read_as_literals_or_words(text: str, value: Any) -> None:
    assert parse_value("name", text) == value


@pytest.mark.parametrize("attack", ATTACKS)
def test_code_on_the_command_line_is_refused_and_does_not_run(attack: str, tmp_path: Path) -> None:
    file = tmp_path / "ran"
    for name in ("policy_kwargs", "guidance", "learning_rate"):
        with pytest.raises(ValueError, match=name):
            load_hyperparameters("dac", "x-v0", None, parse_pairs([f"{name}:{attack.format(file=file)}"]))
    assert not file.exists()


@pytest.mark.parametrize(
    "attack", ["!!python/object/apply:pathlib.Path.touch [{file}]", *(f'"{attack}"' for attack in ATTACKS)]
)
def test_code_in_a_yaml_file_is_refused_and_does_not_run(attack: str, tmp_path: Path) -> None:
    file, conf = tmp_path / "ran", tmp_path / "conf.yml"
    conf.write_text(f"default:\n  policy_kwargs: {attack.format(file=file)}\n")
    with pytest.raises(ValueError):
        load_hyperparameters("dac", "x-v0", conf_file=conf)
    assert not file.exists()


def test_a_python_file_is_no_configuration(tmp_path: Path) -> None:
    conf = tmp_path / "conf.py"
    conf.write_text("hyperparams = {}")
    with pytest.raises(ValueError, match="Python files are not read"):
        load_hyperparameters("dac", "x-v0", conf_file=conf)
    with pytest.raises(FileNotFoundError, match=r"absent\.yml"):
        load_hyperparameters("dac", "x-v0", conf_file=tmp_path / "absent.yml")


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("rhoo:1", "'rhoo'; did you mean 'rho'"),
        ("normalize_obs:True", "did you mean 'normalize_observations'"),
        ("policy_kwargs:dict(net_arhc=[8])", "'net_arhc'; did you mean 'net_arch'"),
        (
            "policy_kwargs:dict(critic_activation_fn='rleu')",
            "critic_activation_fn='rleu'.*did you mean 'relu'.*Use one of Mish, ReLU",
        ),
        ("policy_kwargs:3", "policy_kwargs=3 must be a mapping"),
        ("policy:DifusionPolicy", "did you mean 'DiffusionPolicy'"),
        ("batch_size:many", "batch_size='many' must be a whole number"),
        ("batch_size:32.0", r"batch_size=32\.0 must be a whole number: write 32"),
        ("policy:[1]", r"policy=\[1\] is not known"),
        ("env_kwargs:3", "env_kwargs=3 must be a mapping"),
        ("policy_kwargs:dict(net_arch=[8.0])", r"has the entry 8\.0, which must be a whole number: write 8"),
        ("policy_kwargs:dict(optimizer_class=SDG)", "optimizer_class='SDG' is not known; did you mean 'sgd'"),
        ("batch_size:2.5", r"batch_size=2\.5 must be a whole number"),
        ("max_q:3", "max_q=3 must be True or False"),
        ("guidance:1", "guidance=1 is not known; use one of 'soft', 'hard'"),
        ("gamma:1.5", r"gamma=1\.5 must lie in \(0, 1\]"),
        ("use_sde:True", "takes no use_sde: state-dependent exploration"),
        ("policy_kwargs:dict(optimizer_class='adamm')", "optimizer_class='adamm'.*AdamW"),
        ("n_timesteps:0", "n_timesteps=0 must be at least 1"),
        ("learning_rate:slow", "learning_rate='slow' is not a schedule"),
        ("seed:3", "--seed"),
        ("rho", "'rho' is not a pair"),
    ],
)
def test_a_wrong_name_or_value_is_an_error_that_names_it(pair: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_hyperparameters("dac", "x-v0", None, parse_pairs([pair]))


def test_an_unknown_algorithm_or_profile_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'dacc' is not known; did you mean 'dac'.* There are: awac, bc"):
        load_hyperparameters("dacc", "x-v0")
    with pytest.raises(ValueError, match=r"'gpu'.*There are: cpu"):
        load_hyperparameters("dac", "x-v0", "gpu")


def test_schedules_and_activations_become_objects_and_stay_plain_in_the_record() -> None:
    pairs = ["learning_rate:lin_3e-4", "policy_kwargs:dict(critic_activation_fn=nn.ReLU)", "n_timesteps:1e3"]
    settings = load_hyperparameters("dac", "x-v0", None, parse_pairs(pairs))
    schedule = settings.arguments["learning_rate"]
    assert isinstance(schedule, LinearSchedule)
    assert [schedule(1.0), schedule(0.5), schedule(0.0)] == pytest.approx([3e-4, 1.5e-4, 0.0])
    assert settings.arguments["policy_kwargs"] == {"critic_activation_fn": nn.ReLU}
    assert settings.plain["learning_rate"] == "lin_3e-4"
    assert settings.plain["policy_kwargs"] == {"critic_activation_fn": "ReLU"}
    assert settings.n_timesteps == 1000 and isinstance(settings.n_timesteps, int)
    mish = load_hyperparameters("dac", "x-v0", None, {"policy_kwargs": {"critic_activation_fn": "mish"}})
    assert mish.arguments["policy_kwargs"]["critic_activation_fn"] is Mish


def test_an_algorithm_from_elsewhere_brings_its_own_file_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs.py").write_text("from sb3_genoffline import IQL\n\nclass Theirs(IQL):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(ALGOS._classes, "theirs", importlib.import_module("theirs").Theirs)
    nothing = load_hyperparameters("theirs", "a/b-v0")
    assert nothing.arguments == {} and nothing.n_timesteps == IQL.default_gradient_steps
    with pytest.raises(UserError, match=r"'cpu' is not in .*/hyperparameters.yml. There are: small"):
        load_hyperparameters("theirs", "a/b-v0", "cpu")
    (tmp_path / "hyperparameters.yml").write_text("default: {expectile: 0.8}\nprofiles: {cpu: {default: {n_timesteps: 7}}}\n")
    own = load_hyperparameters("theirs", "a/b-v0", "cpu")
    assert own.arguments == {"expectile": 0.8} and own.n_timesteps == 7


@pytest.mark.parametrize("algo", ALGOS)
def test_the_set_of_clipped_noise_has_the_settings_of_the_level_that_it_is(algo: str) -> None:
    for profile in (None, *read_settings(algo).profiles):
        named, level = (
            load_hyperparameters(algo, f"genoffline/walker2d/{name}-v0", profile)
            for name in ("clipped-noise", "medium-replay")
        )
        quiet = (
            {"acting_noise_scale": 0.1} if (algo, profile) == ("dac", "cpu") else {}
        )  # its noise is what a policy must not learn
        assert named.plain == level.plain | quiet
