"""A ladder of actors: scored, and the picked ones written with their index."""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sb3_genoffline.data.scores import reference_scores
from sb3_genoffline.errors import UserError

from ..runs.writing import write_json
from . import load_policy
from .gaussian import GaussianPolicy
from .rungs import Scores, Standard, choose_expert, choose_medium, choose_rungs, expert_levels, levels, score, score_candidate
from .trainers import TRAINERS

CHECK_SEED = 20_000  # medium and expert are scored again on seeds they were not chosen by


def score_ladder(ladder: Path, env_id: str, every: int, standard: Standard, last: int | None = None) -> dict[int, Scores]:
    """
    :param ladder: Folder of ``<steps>.safetensors``
    :param env_id: Where to score
    :param every: Score one of so many actors
    :param standard: With which noises
    :param last: No actor of more training steps than this
    :return: Training steps to scores; kept in ``scores.json`` of the folder, so that nothing is scored twice
    """
    kept = ladder / "scores.json"
    known = {int(steps): found for steps, found in json.loads(kept.read_text()).items()} if kept.exists() else {}
    scores = {}
    found = sorted(int(path.stem) for path in ladder.glob("[0-9]*.safetensors"))
    reached = [steps for steps in found if last is None or steps <= last]
    for steps in sorted({*reached[::every], *reached[-1:]}):
        if not standard.answered_by(known.get(steps, {})):
            known[steps] = score_candidate(load_policy(ladder / f"{steps}.safetensors"), env_id, standard)
            write_json(kept, {str(done): found for done, found in known.items()}, indent=1)
        scores[steps] = known[steps]
        print(steps, {kind: s["normalized"] for kind, s in scores[steps].items()}, flush=True)
    return scores


def write(folder: Path, ladder: Path, scores: dict[int, Scores], args: argparse.Namespace, standard: Standard) -> None:
    """Pick the rungs and write them with their index into ``folder``."""
    medium, expert = choose_medium(scores, standard), choose_expert(scores, standard)
    trainer = TRAINERS[args.algo]
    rungs = choose_rungs(scores, medium, args.n_rungs, standard, trainer.n_uniform)
    roles = {medium: "medium"} | ({} if expert is None else {expert: "expert"})
    files = {steps: _file(args.algo, steps) for steps in sorted({*rungs, *roles})}
    folder.mkdir(parents=True, exist_ok=True)
    entries = [_keep(folder, ladder, steps, roles.get(steps, "replay"), scores, args, standard) for steps in files]
    made = levels(files, rungs, medium, args.algo.upper(), trainer.library, trainer.n_uniform)
    if expert is not None:
        made |= expert_levels(made["medium"], files[expert], standard.expert_noise, _maker(args))
    low, high = reference_scores(args.env)
    index = {
        "env_id": args.env,
        "ref_min_score": low,
        "ref_max_score": high,
        "algorithm": f"{args.algo.upper()} ({trainer.library})",
        "seed": args.seed,
        "settings": trainer.settings,
        "standard": {"medium": standard.medium, "expert": standard.expert, "not_expert": standard.not_expert},
        "rungs": entries,
        "levels": made,
        **_history(ladder, scores, args, standard),
    }
    write_json(folder / "index.json", index, indent=1)
    for stale in set(folder.glob("*.safetensors")) - {folder / name for name in files.values()}:
        stale.unlink()


def write_expert(folder: Path, ladder: Path, scores: dict[int, Scores], args: argparse.Namespace, standard: Standard) -> None:
    """Add the expert of this ladder, and the levels that need one, to the rungs that are in ``folder``."""
    index = json.loads((folder / "index.json").read_text())
    expert = choose_expert(scores, standard)
    assert expert is not None
    entries = [entry for entry in index["rungs"] if entry["role"] != "expert"]
    file = _file(args.algo, expert)
    if file in [entry["file"] for entry in entries]:
        raise UserError(f"the actor of {expert} steps is a rung of {folder} already; train for longer")
    index["rungs"] = [*entries, _keep(folder, ladder, expert, "expert", scores, args, standard)]
    index["standard"]["expert"] = standard.expert
    index["levels"] |= expert_levels(index["levels"]["medium"], file, standard.expert_noise, _maker(args))
    index["expert"] = _history(ladder, scores, args, standard)
    write_json(folder / "index.json", index, indent=1)
    for stale in set(folder.glob("*.safetensors")) - {folder / entry["file"] for entry in index["rungs"]}:
        stale.unlink()


def _maker(args: argparse.Namespace) -> str:
    """What an actor was trained by: ``"SAC (zoo.behavior.sac)"``."""
    begun = f", begun with {args.start.stem}" if args.start else ""
    return f"{args.algo.upper()} ({TRAINERS[args.algo].library}{begun})"


def _file(algo: str, steps: int) -> str:
    return f"{algo}_{steps:07d}.safetensors"


def _keep(
    folder: Path, ladder: Path, steps: int, role: str, scores: dict[int, Scores], args: argparse.Namespace, standard: Standard
) -> dict[str, Any]:
    """Write one actor of the ladder into ``folder``; its entry of the index."""
    policy, file = load_policy(ladder / f"{steps}.safetensors"), _file(args.algo, steps)
    policy.save(folder / file)
    entry: dict[str, Any] = {"file": file, "steps": steps, "role": role}
    if isinstance(policy, GaussianPolicy):
        entry["std"] = [round(float(s), 3) for s in policy.std("policy")]
    if role == "replay":
        return entry | scores[steps]
    return entry | {kind: score(policy, args.env, noise, 40, CHECK_SEED) for kind, noise in standard.noises.items()}


def _history(ladder: Path, scores: dict[int, Scores], args: argparse.Namespace, standard: Standard) -> dict[str, Any]:
    """How a ladder came about, for the index."""
    curve = json.loads((ladder / "curve.json").read_text())
    return {
        "n_timesteps": max(scores),
        "versions": {n: version(n) for n in ("sb3_contrib", "stable_baselines3", "torch", "gymnasium", "mujoco", "numpy")}
        | {"python": platform.python_version()},
        "command": _command(args),
        "learning_curve": {
            "columns": ["steps", "return_mean_of_last_100_episodes"],
            "rows": curve[4::5] if args.algo == "trpo" else curve,
        },
        "scored": {
            "columns": ["steps", *standard.noises],
            "rows": [[t, *(found.get(kind, {}).get("normalized") for kind in standard.noises)] for t, found in scores.items()],
        },
    }


def _command(args: argparse.Namespace) -> str:
    flags = f"--env {args.env} --algo {args.algo} --seed {args.seed} -n {args.n_timesteps} --n-rungs {args.n_rungs}"
    flags += f" --score-every {args.score_every}"
    if args.medium:
        flags += f" --medium {args.medium[0]:g} {args.medium[1]:g}"
    flags += " --without-expert" if args.without_expert else " --expert-only" if args.expert_only else ""
    if args.expert is not None:
        flags += f" --expert {args.expert:g}"
    if args.resume_from_state:
        flags += " --resume-from-state"
    if args.start:
        flags += f" --start {args.start}"
    return f"python -m zoo.behavior.train {flags}"
