"""
Train the behaviour policies of one environment and keep a ladder of them.

`python -m zoo.behavior.train --env Walker2d-v5 --seed 1` trains TRPO (`--algo sac` and `--algo tqc` the others, and `--algo
ppo --start FILE` and `--algo es --start FILE` train an actor on), scores the actor after every few updates with and without
its noise, picks the rungs and writes them with an `index.json` into `zoo/behavior/<name>/`. The ladder stays in
`logs/behavior/`, so that a second call only scores and picks. Ctrl-C and SIGTERM end
SAC's and TQC's training with the state saved, and the same command goes on; the others begin again (ES's takes an hour, they
minutes). A ladder of another start or seed is not touched. The same seed gives the same files on the same machine and
versions.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
from safetensors import SafetensorError

from sb3_genoffline.data.scores import reference_scores
from sb3_genoffline.errors import UserError

from ..runs.provenance import command_line
from ..runs.reading import check_parts, read_json
from ..runs.stopping import advised, ending_in_order
from ..runs.writing import write_json
from . import load_policy, sac_state
from .ladder import score_ladder, write, write_expert
from .rungs import Standard
from .squashed import SquashedPolicy
from .trainers import RESUMING, TRAINERS

BEGUN = "begun.json"  # of a ladder: the actor that its training began with, and its seed


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
            f"one of SAC, TQC, PPO or ES with shapes {observations} and {actions}."
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
    index = read_json(folder / "index.json", "index of behaviour policies")
    check_parts(index, {"rungs": list, "levels": dict, "standard": dict}, f"{folder / 'index.json'},")
    old = [entry["file"] for entry in index["rungs"] if entry["role"] == "expert"]
    if args.start and args.start.resolve() in [(folder / file).resolve() for file in old]:
        raise UserError(f"--start {args.start} is the expert that a new one replaces: begin with a copy of it elsewhere.")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_trained(ladder: Path, args: argparse.Namespace) -> bool:
    """
    Whether a ladder is whole and as long as asked for.

    :raises UserError: if it is another training's, which stays
    """
    reached = max((int(path.stem) for path in ladder.glob("[0-9]*.safetensors")), default=None)
    begun = read_json(ladder / BEGUN, "note of what a training began with") if (ladder / BEGUN).is_file() else {}
    if reached is not None and args.algo not in RESUMING:
        asked = {"sha256": _digest(args.start) if args.start else None, "seed": args.seed}
        if asked["sha256"] != begun.get("sha256") or begun.get("seed", args.seed) != args.seed:
            raise UserError(f"{ladder} has actors of another training (its --start or --seed differs): name another --ladder.")
    return reached is not None and reached >= args.n_timesteps and (ladder / "curve.json").is_file()


def make(args: argparse.Namespace) -> None:
    """Train, or go on where an earlier call ended, score, and write the rungs."""
    trainer = TRAINERS[args.algo]
    if trainer.trains_on != (args.start is not None):
        needs = "begins with an actor: add --start FILE" if trainer.trains_on else "begins anew: --start is for ppo and es"
        raise UserError(f"--algo {args.algo} {needs}.")
    if args.n_timesteps is not None and args.n_timesteps < 1:
        raise UserError(f"-n {args.n_timesteps}: train for at least one step.")
    if args.score_every < 1:
        raise UserError(f"--score-every {args.score_every}: score one actor of so many, 1 or more.")
    if args.algo != "sac" and (args.resume_from_state or args.keep_state):
        raise UserError(f"--{'resume-from' if args.resume_from_state else 'keep'}-state is for --algo sac, not {args.algo}.")
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
    try:
        ladder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"--ladder {ladder} can't be a folder: {error.strerror}.") from error
    try:
        if args.resume_from_state:
            sac_state.restore(args.env, args.seed, folder, ladder)
        if args.keep_state:
            sac_state.keep(folder, ladder)
            return
    except FileNotFoundError as error:
        raise UserError(
            f"{error.filename} is not there: --keep-state makes a state from a ladder, after a training."
        ) from error
    if not _is_trained(ladder, args):
        if args.algo not in RESUMING:  # nothing of an earlier training is left among its actors and scores
            records = (ladder / name for name in ("curve.json", "scores.json", BEGUN))
            for stale in (*ladder.glob("[0-9]*.safetensors"), *records):
                stale.unlink(missing_ok=True)
            write_json(ladder / BEGUN, {"sha256": _digest(args.start) if args.start else None, "seed": args.seed})
        started = time.process_time()
        trainer.train(args.env, args.seed, args.n_timesteps, ladder, *actor)
        print(f"trained up to {args.n_timesteps} steps in {time.process_time() - started:.0f} CPU-seconds")
    scores = score_ladder(ladder, args.env, args.score_every, standard, None if args.start else args.n_timesteps)
    (write_expert if args.expert_only else write)(folder, ladder, scores, args, standard)


if __name__ == "__main__":
    main()
