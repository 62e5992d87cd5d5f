"""
Train the behaviour policies of one environment and keep a ladder of them.

`python -m zoo.behavior.train --env Walker2d-v5 --seed 1` trains TRPO (`--algo sac` and `--algo tqc` the others, and `--algo
ppo --start FILE` and `--algo es --start FILE` train an actor on), scores the actor after every few updates with and without
its noise, picks the rungs and writes them with an `index.json` into `zoo/behavior/<name>/`. The ladder stays in
`logs/behavior/`, so that a second call only scores and picks. Ctrl-C and SIGTERM end it with the state saved; the same
command goes on (all trainings but SAC's and TQC's take minutes, and begin again). The same seed gives the same files on the
same machine and versions.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
from safetensors import SafetensorError

from sb3_genoffline.data.scores import reference_scores
from sb3_genoffline.errors import UserError

from ..runs.provenance import command_line
from ..runs.stopping import advised, ending_in_order
from ..runs.writing import write_json
from . import evolution, load_policy, ppo, sac, sac_state, tqc, trpo
from .gaussian import GaussianPolicy
from .rungs import Scores, Standard, choose_expert, choose_medium, choose_rungs, expert_levels, levels, score, score_candidate
from .squashed import SquashedPolicy

RESUMING = ("sac", "tqc")  # whose trainings go on where they ended; the others, of minutes, begin again
BEGUN = "begun.json"  # of a ladder: the actor that its training began with
CHECK_SEED = 20_000  # medium and expert are scored again on seeds they were not chosen by


@dataclass(frozen=True)
class Trainer:
    """How one algorithm makes a ladder, and what is asked of its actors; ``trains_on``: it needs an actor to begin with."""

    train: Callable[..., None]
    settings: dict[str, Any]
    n_timesteps: int
    standard: Standard
    library: str = "sb3-contrib"
    subfolder: str = ""
    trains_on: bool = False

    @property
    def n_uniform(self) -> int:
        """Steps of uniform actions before the first actor acts; TQC's are left to its untrained actor."""
        return int(self.settings["learning_starts"]) if self.train is sac.train else 0


TRAINERS = {
    # its own spread would make TRPO's expert a medium policy, so the expert acts with its mean plus a little noise
    "trpo": Trainer(
        trpo.train,
        trpo.SETTINGS | {"normalize": True},
        300_000,
        Standard({"deterministic": "none", "little_noise": 0.1, "half_noise": 0.3, "stochastic": "policy"}, "little_noise"),
    ),
    "tqc": Trainer(
        tqc.train, tqc.SETTINGS, 700_000, Standard({"deterministic": "none", "stochastic": "policy"}, "stochastic")
    ),
    "sac": Trainer(
        sac.train,
        sac.SETTINGS,
        300_000,
        Standard({"deterministic": "none", "stochastic": "policy"}, "stochastic", medium=(30.0, 45.0), expert=None),
        library="zoo.behavior.sac",
        subfolder="sac",
    ),
    "ppo": Trainer(
        ppo.train,
        ppo.SETTINGS,
        5_000_000,
        Standard({"deterministic": "none", "stochastic": "policy"}, "stochastic", expert=90.0),
        library="stable-baselines3",
        subfolder="sac",
        trains_on=True,
    ),
    "es": Trainer(
        evolution.train,
        evolution.SETTINGS,
        13_000_000,
        Standard({"deterministic": "none", "stochastic": "policy"}, "stochastic", expert=90.0),
        library="zoo.behavior.evolution",
        subfolder="sac",
        trains_on=True,
    ),
}


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
        if steps not in known:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Hopper-v5", help="a MuJoCo environment with known reference returns")
    parser.add_argument("--algo", choices=list(TRAINERS), default="trpo")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-n", "--n-timesteps", type=int, default=None, help="environment steps (default: the algorithm's)")
    parser.add_argument("--n-rungs", type=int, default=11, help="policies from random to medium")
    parser.add_argument("--score-every", type=int, default=3, help="score one of so many actors of the ladder")
    parser.add_argument(
        "--medium", type=float, nargs=2, default=None, metavar=("LOW", "HIGH"), help="band of the medium score"
    )
    parser.add_argument("--expert", type=float, default=None, help="least score of the expert")
    levels = parser.add_mutually_exclusive_group()
    levels.add_argument("--without-expert", action="store_true", help="make no levels that need an expert")
    levels.add_argument("--expert-only", action="store_true", help="add the expert and its levels to the rungs that are there")
    parser.add_argument("--folder", type=Path, default=None, help="default: zoo/behavior/<name of the env>")
    parser.add_argument("--ladder", type=Path, default=None, help="default: logs/behavior/<env>-<algo>-<seed>")
    parser.add_argument("--start", type=Path, default=None, metavar="FILE", help="ppo and es: the actor to begin with")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--resume-from-state", action="store_true", help="SAC: resume from the state kept in the folder")
    kept.add_argument("--keep-state", action="store_true", help="SAC: keep only what resuming the ladder's training needs")
    args = parser.parse_args()
    with ending_in_order("behavior.train", to_the_end=__name__ == "__main__"):
        try:
            make(args)
        except UserError as error:
            raise SystemExit(f"zoo.behavior.train: {error}") from None
        except KeyboardInterrupt as stop:
            whole = f" ({args.algo.upper()}'s training begins again)" if args.algo not in RESUMING else ""
            raise advised(stop, f"to resume, run the same command: {command_line()}{whole}") from None


def _actor_to_train_on(path: Path, env_id: str) -> SquashedPolicy:
    """:raises UserError: if the file has no actor of SAC's form with the environment's sizes"""
    try:
        policy = load_policy(path)
    except (OSError, SafetensorError) as error:
        why = "it is a folder" if path.is_dir() else error
        raise UserError(f"--start {path} can't be read as an actor: {why}") from error
    env = gym.make(env_id)
    observations, actions = (space.shape for space in (env.observation_space, env.action_space))
    if not isinstance(policy, SquashedPolicy) or (observations, actions) != ((policy.obs_dim,), (policy.act_dim,)):
        kind = "" if isinstance(policy, SquashedPolicy) else "unsquashed "
        raise UserError(
            f"--start {path} is an {kind}actor of {policy.obs_dim} observations and {policy.act_dim} actions; {env_id} needs "
            f"one of SAC, TQC, PPO or ES with {observations} and {actions}."
        )
    return policy


def _check_expert(args: argparse.Namespace, standard: Standard, folder: Path) -> None:
    """:raises UserError: if what is asked of an expert can't be met, whatever is trained"""
    if TRAINERS[args.algo].trains_on and not args.expert_only:
        raise UserError(f"--algo {args.algo} makes an expert alone: add --expert-only.")
    if not args.expert_only:
        return
    if standard.expert is None:
        raise UserError(f"--expert-only with --algo {args.algo} needs --expert SCORE.")
    if not (folder / "index.json").is_file():
        raise UserError(f"--expert-only adds to the rungs of {folder}, which has no index.json: make the rungs first.")
    old = [entry["file"] for entry in json.loads((folder / "index.json").read_text())["rungs"] if entry["role"] == "expert"]
    if args.start and args.start.resolve() in [(folder / file).resolve() for file in old]:
        raise UserError(f"--start {args.start} is the expert that a new one replaces: begin with a copy of it elsewhere.")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_trained(ladder: Path, args: argparse.Namespace) -> bool:
    """Whether a ladder is whole, as long as asked for, and begun with the actor that is asked for."""
    reached = max((int(path.stem) for path in ladder.glob("[0-9]*.safetensors")), default=-1)
    if reached < args.n_timesteps or not (ladder / "curve.json").is_file():
        return False
    begun = json.loads((ladder / BEGUN).read_text())["sha256"] if (ladder / BEGUN).is_file() else None
    return begun == (_digest(args.start) if args.start else None)


def make(args: argparse.Namespace) -> None:
    """Train, or go on where an earlier call ended, score, and write the rungs."""
    trainer = TRAINERS[args.algo]
    if trainer.trains_on != (args.start is not None):
        needs = "begins with an actor: add --start FILE" if trainer.trains_on else "begins anew: --start is for ppo and es"
        raise UserError(f"--algo {args.algo} {needs}.")
    if args.n_timesteps is not None and args.n_timesteps < 1:
        raise UserError(f"-n {args.n_timesteps}: train for at least one step.")
    reference_scores(args.env)  # or a sentence that it has none
    actor = [_actor_to_train_on(args.start, args.env)] if args.start else []
    args.n_timesteps = args.n_timesteps or trainer.n_timesteps
    standard = trainer.standard
    if args.medium:
        standard = replace(standard, medium=tuple(args.medium), not_expert=max(standard.not_expert, args.medium[1] + 7))
    if args.without_expert or args.expert is not None:
        standard = replace(standard, expert=None if args.without_expert else args.expert)
    folder = args.folder or Path(__file__).parent / args.env.rpartition("-")[0].lower() / trainer.subfolder
    ladder = args.ladder or Path("logs/behavior") / f"{args.env}-{args.algo}-{args.seed}"
    _check_expert(args, standard, folder)
    ladder.mkdir(parents=True, exist_ok=True)
    if args.resume_from_state:
        sac_state.restore(args.env, args.seed, folder, ladder)
    if args.keep_state:
        sac_state.keep(folder, ladder)
        return
    if not _is_trained(ladder, args):
        if args.algo not in RESUMING:  # nothing of an earlier training is left among its actors and scores
            for stale in (
                *ladder.glob("[0-9]*.safetensors"),
                *(ladder / name for name in ("curve.json", "scores.json", BEGUN)),
            ):
                stale.unlink(missing_ok=True)
        if args.start:
            write_json(ladder / BEGUN, {"sha256": _digest(args.start)})
        started = time.process_time()
        trainer.train(args.env, args.seed, args.n_timesteps, ladder, *actor)
        print(f"trained up to {args.n_timesteps} steps in {time.process_time() - started:.0f} CPU-seconds")
    (write_expert if args.expert_only else write)(
        folder,
        ladder,
        score_ladder(ladder, args.env, args.score_every, standard, None if args.start else args.n_timesteps),
        args,
        standard,
    )


if __name__ == "__main__":
    main()
