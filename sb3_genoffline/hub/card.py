"""The card of an agent, README.md, and its results in the Hub's formats. Nothing is said that was not given."""

import inspect
import re
from collections.abc import Mapping
from importlib.metadata import packages_distributions
from pprint import pformat
from typing import Any

from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.errors import UserError
from sb3_genoffline.files.escaping import code, code_block, markdown, python_string
from sb3_genoffline.files.untrusted import conforms, short

_ACTING = ("manifest.json", "config.json", "model.safetensors")
_FILES = {
    "manifest.json": "sha256 and size of every file",
    "config.json": "algorithm, spaces, hyper-parameters, observation statistics, dataset, versions",
    "model.safetensors": "the weights needed to act",
    "results.json": "the evaluation, with its protocol",
    "fingerprint.json": "eight observations and the agent's actions in them, to test a copy",
    "hyperparameters.yml": "the settings of the training",
    "training_curve.png": "the training curve",
    "replay.mp4": "a film",
}
_NEEDED: dict[str, dict[str, type]] = {
    "": {"mean_reward": float, "n_eval_episodes": int, "gradient_steps": int, "env_id": str},
    "env_spec": {"entry_point": str, "kwargs": dict},
    "best": {"mean_reward": float, "gradient_steps": int},
    "seeds": {"unit": str, "n": int, "mean": float},
}


def make_card(
    model: AnyAlgorithm,
    config: Mapping[str, Any],
    address: str,
    name: str,
    results: Mapping[str, Any] | None,
    command: str | None,
    sizes: Mapping[str, int],
    training: bool,
    licence: str,
) -> str:
    """
    :param model: the agent
    :param config: its ``config.json``
    :param address: what ``load_from_hub`` takes to load it
    :param name: of the repository
    :param results: see :func:`~sb3_genoffline.hub.publishing.write_agent_folder`
    :param command: the training's
    :param sizes: bytes of the other files
    :param training: whether the archive holds what going on with training needs
    :param licence: in the Hub's short form
    :return: Markdown with YAML front matter
    """
    results, cls = results or {}, type(model)
    dataset = config["dataset"]
    where = _named(dataset)
    about = [" ".join(part.split()) for part in (inspect.getdoc(cls) or "").split("\n\n")]
    paper = re.findall(r"^Paper: .*?https://\S+[^\s.]", "\n".join(about), flags=re.MULTILINE)
    parts = [
        _front_matter(cls.__name__, config, results, licence),
        f"# {cls.__name__} on {where}\n",
        f"An offline reinforcement-learning agent, trained by sb3-genoffline. {about[0]}\n",
        *(f"{part}.\n" for part in paper),
        _baseline(results),
        "![training curve](training_curve.png)\n" if "training_curve.png" in sizes else "",
        _usage(model, address, name, results, training),
        _results(results),
        _training(config, results, command, "hyperparameters.yml" in sizes),
        _files(sizes, name, training),
        _limits(config, results),
        f"## Licence\n\n{markdown(licence)}\n",
    ]
    return "\n".join(part for part in parts if part)


def check_results(results: Any) -> None:
    """
    :param results: see :func:`~sb3_genoffline.hub.publishing.write_agent_folder`
    :raises ValueError: naming what the card needs of them and does not find
    """
    whole = results if isinstance(results, Mapping) else {}
    odd = []
    for part, needed in _NEEDED.items():
        given = whole.get(part) if part else whole
        if given is None:
            continue
        found = given if isinstance(given, Mapping) else {}
        names = [f"{name} ({hint.__name__})" for name, hint in needed.items() if not conforms(found.get(name), hint)]
        odd += [f"{part}: {name}" if part else name for name in names]
    if odd:
        raise UserError(
            f"results must have {', '.join(odd)}, as zoo.runs.scoring.evaluate returns them; they are {short(results)}."
        )


def addressed_to(card: str, repo_id: str) -> str:
    """The card with another address in the calls that load or download it."""
    return re.sub(r'((?:load|download)_from_hub\()"(?:[^"\\]|\\.)*"', rf'\g<1>"{repo_id}"', card)


def make_eval_results(config: Mapping[str, Any], results: Mapping[str, Any] | None) -> str | None:
    """
    :param config: the agent's ``config.json``
    :param results: its evaluation
    :return: YAML for ``.eval_results``; None without a score on a dataset that has a namespace
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils._fixes import yaml_dump

    namespace, _, rest = str(config["dataset"].get("id") or "").partition("/")
    score = (results or {}).get("normalized_score")
    if results is None or score is None or not rest:
        return None
    owner = f"farama-minari/{namespace}" if namespace in ("mujoco", "D4RL") else f"{namespace}/{rest.partition('/')[0]}"
    entry = EvalResultEntry(
        dataset_id=owner,
        task_id=rest,
        value=score,
        date=results.get("eval_datetime"),
        notes=f"{results['n_eval_episodes']} episodes of {results['env_id']}, {results.get('checkpoint', 'last')} checkpoint",
    )
    return yaml_dump(eval_result_entries_to_yaml([entry]))


def _front_matter(algorithm: str, config: Mapping[str, Any], results: Mapping[str, Any], licence: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    env_id, dataset_id = results.get("env_id"), config["dataset"].get("id")
    scores = []
    for name, metrics in ((env_id, ("mean_reward", "std_reward")), (dataset_id, ("normalized_score", "mean_reward"))):
        scores += [
            EvalResult(
                task_type="reinforcement-learning",
                task_name="reinforcement-learning",
                dataset_type=name,
                dataset_name=name,
                metric_type=metric,
                metric_name=metric,
                metric_value=results[metric],
            )
            for metric in metrics
            if name is not None and results.get(metric) is not None
        ]
    tags = ["deep-reinforcement-learning", "reinforcement-learning", "stable-baselines3", "offline-reinforcement-learning"]
    card = ModelCardData(
        library_name="stable-baselines3",
        license=licence,
        pipeline_tag="reinforcement-learning",
        tags=[*([env_id] if env_id else []), *tags, "sb3-genoffline", config["algo"]],
        model_name=algorithm if scores else None,
        eval_results=scores or None,
    )
    return f"---\n{card.to_yaml()}\n---\n"


def _named(dataset: Mapping[str, Any]) -> str:
    return markdown(dataset.get("id") or "a dataset without a name")


def _baseline(results: Mapping[str, Any]) -> str:
    name = results.get("baseline")
    return f"This agent is a baseline, with the method's idea switched off: {markdown(name)}.\n" if name else ""


_LOOPS = {
    False: (
        "done, total = False, 0.0",
        "while not done:",
        "    action, _ = model.predict(observation, deterministic=True)",
        "    observation, reward, terminated, truncated, _ = env.step(action)",
    ),
    True: (
        "done, total, state = False, 0.0, None",
        "while not done:",
        "    action, state = model.predict(observation, state, deterministic=True)",
        "    observation, reward, terminated, truncated, _ = env.step(action)",
        "    model.policy.observe_rewards(state, reward)",
    ),
}
"""An episode, of agents without a memory and with one."""


def _usage(model: AnyAlgorithm, address: str, name: str, results: Mapping[str, Any], training: bool) -> str:
    env_id, spec = results.get("env_id"), results.get("env_spec")
    lines = ["from sb3_genoffline import load_from_hub", "", f"model = load_from_hub({python_string(address)})"]
    if env_id is None:
        lines += ["action, _ = model.predict(model.observation_space.sample(), deterministic=True)"]
    else:
        maze, made = "Maze" in env_id, "spec" if spec else python_string(env_id)
        before = ["import gymnasium as gym", *(["import gymnasium_robotics"] if maze else [])]
        before += ["from gymnasium.envs.registration import EnvSpec", ""] if spec else [""]
        lines = [*before, lines[0], *(["from sb3_genoffline.data import flatten_env"] if maze else []), *lines[1:]]
        lines += [
            *(["gym.register_envs(gymnasium_robotics)"] if maze else []),
            *(_spec_lines(env_id, spec) if spec else []),
            f"env = flatten_env(gym.make({made}))" if maze else f"env = gym.make({made})",
            "observation, _ = env.reset(seed=0)",
            *_LOOPS[model.policy.has_memory],
            "    done, total = terminated or truncated, total + float(reward)",
            'print(f"return {total:.1f}")',
        ]
    archive = code(f'{type(model).__name__}.load(download_from_hub({python_string(address)}, "{name}.zip"))')
    if training:
        more = f"To resume training exactly where it stopped, load the whole archive: {archive}."
    else:
        more = f"The archive holds the same acting part: {archive}."
    snippet = code_block("\n".join(lines), "python")
    package = "pip install -e ." if env_id is None else 'pip install -e ".[zoo]"'  # with MuJoCo
    install = f"`{package}` in a checkout of sb3-genoffline, which is not on PyPI yet.{_brought_by(type(model))}"
    return f"## Use\n\n{install} Nothing is unpickled.\n\n{snippet}\n\n{more}\n"


def _brought_by(cls: type) -> str:
    """What else has to be there for an algorithm from outside."""
    module = cls.__module__.partition(".")[0]
    if module == __package__.partition(".")[0]:
        return ""
    packages = ", ".join(code(name) for name in sorted(set(packages_distributions().get(module, []))))
    return f" {cls.__name__} comes with {packages or 'the module ' + code(module)}, which has to be there too."


def _spec_lines(env_id: str, spec: Mapping[str, Any]) -> list[str]:
    arguments = {"id": env_id, **{name: spec.get(name) for name in ("entry_point", "max_episode_steps", "kwargs")}}
    lines = []
    for name, value in arguments.items():
        start = f"    {name}="
        shown = pformat(value, width=120 - len(start), sort_dicts=False)  # a maze's map: a line for each of its rows
        lines += (start + shown.replace("\n", "\n" + " " * len(start)) + ",").split("\n")
    return ["spec = EnvSpec(", *lines, ")"]


def _results(results: Mapping[str, Any]) -> str:
    if not results:
        return "## Results\n\nNone were given when this was published.\n"
    rows = [_row(f"{markdown(results.get('checkpoint', 'last'))} checkpoint, {results['gradient_steps']:,} updates", results)]
    best, seeds = results.get("best"), results.get("seeds")
    if best:
        rows.append(_row(f"best checkpoint, {best['gradient_steps']:,} updates", best))
    if seeds and seeds.get("n", 0) > 1:
        cell = _with_spread(seeds["mean"], seeds.get("std"))
        cells = ("", cell) if seeds["unit"] == "normalized_score" else (cell, "")
        rows.append((f"last checkpoints of {seeds['n']} seeds, mean ± std over seeds", *cells))
    behavior = (results.get("behavior_mean_reward"), results.get("behavior_normalized_score"))
    if any(value is not None for value in behavior):
        rows.append(("the data's behaviour", *("" if value is None else f"{value:.1f}" for value in behavior)))
    table = "\n".join(f"| {' | '.join(row)} |" for row in [("agent", "return", "normalised score"), ("---",) * 3, *rows])
    notes = [f"{results['n_eval_episodes']} episodes of {markdown(results['env_id'])}"]
    if results.get("is_deterministic") is not None:
        notes.append(code(f"predict(deterministic={results['is_deterministic']})"))
    if results.get("eval_seed") is not None:
        notes.append(f"environments seeded from {markdown(results['eval_seed'])}")
    if results.get("seed") is not None:
        notes.append(f"training seed {markdown(results['seed'])}")
    text = [f"## Results\n\n{table}\n\nProtocol: {', '.join(notes)}; ± within an agent is over episodes, brackets are a 95% "]
    text.append("bootstrap interval of the mean.")
    if results.get("protocol"):
        text.append(f" {code(results['protocol'])}.")
    if best and best.get("chosen_by"):
        text.append(f" The best checkpoint was chosen by {markdown(best['chosen_by'])}, so its result is biased upwards.")
    return "".join(text) + "\n"


def _row(label: str, result: Mapping[str, Any]) -> tuple[str, ...]:
    cells = [_with_spread(result["mean_reward"], result.get("std_reward"))]
    score, interval = result.get("normalized_score"), result.get("normalized_score_ci95")
    text = "" if score is None else f"{score:.1f}"
    cells.append(text + (f" [{interval[0]:.1f}, {interval[1]:.1f}]" if text and interval else ""))
    return label, cells[0], cells[1]


def _with_spread(mean: float, spread: float | None) -> str:
    return f"{mean:.1f}" if spread is None else f"{mean:.1f} ± {spread:.1f}"


def _training(config: Mapping[str, Any], results: Mapping[str, Any], command: str | None, has_settings: bool) -> str:
    dataset, counters = config["dataset"], config["counters"]
    lines = [f"## Training\n\n{counters['num_timesteps']:,} updates"]
    if dataset:
        lines.append(
            f" on {_named(dataset)}: {dataset['n_transitions']:,} transitions in {dataset['n_episodes']:,} episodes, "
            f"fingerprint {code(dataset['fingerprint'])}"
        )
    lines.append(". All hyper-parameters are in `config.json`")
    lines.append(", the training's settings in `hyperparameters.yml`.\n" if has_settings else ".\n")
    if command:
        lines.append(f"\n{code_block(command, 'sh')}\n")
    versions = results.get("trained_with") or config["versions"]
    lines.append("\nTrained with " if results.get("trained_with") else "\nWritten with ")
    lines.append(", ".join(f"{markdown(name)} {markdown(version)}" for name, version in versions.items()) + ".\n")
    return "".join(lines)


def _files(sizes: Mapping[str, int], name: str, training: bool) -> str:
    whole = "the archive of `save`: " + ("with optimizers, to resume training" if training else "the acting part")
    known = _FILES | {f"{name}.zip": whole}
    rows = ["| file | content | needed to act | KB |", "|---|---|---|---|"]
    for file in ("manifest.json", *sorted(sizes)):
        if file in known:
            size = f"{sizes[file] / 1024:,.1f}" if file in sizes else ""
            rows.append(f"| `{file}` | {known[file]} | {'yes' if file in _ACTING else ''} | {size} |")
    return "## Files\n\n" + "\n".join(rows) + "\n"


def _limits(config: Mapping[str, Any], results: Mapping[str, Any]) -> str:
    shapes = [config[space]["shape"][0] for space in ("observation_space", "action_space")]
    where = f"in {markdown(results['env_id'])}" if results.get("env_id") else "in the environment its data come from"
    return (
        f"## Intended use and limits\n\nFor research on offline reinforcement learning {where}: as a baseline, a starting "
        f"point or an example. It maps {shapes[0]} numbers to {shapes[1]} and knows nothing beyond its data. It was neither "
        "trained nor tested on a real machine, and should not control one.\n"
    )
