"""
Settings of the papers made small: one rule for all algorithms, so that none is favoured (``--profile small``).

The rule turns hours on a GPU into minutes on a core. It reads only names and values, never scores:

- updates: 20,000 of the policy; at most 10,000 of each model fitted before or beside it
- batches: at most 128 rows, or 16 windows of a sequence model
- networks: as many hidden layers as in the paper, each 128 wide; U-nets and transformers half as wide
- rates: times 10/3, at most 1e-3; those of actors and critics fall linearly to 0
- targets: tau times 4
- counts of updates, such as warm-ups: times 20,000 / the paper's number of updates
- at most 4 critics, 4 sampled actions in an update and 16 candidates when acting
- standardised observations; LayerNorm in critics, but for those with spectral norms

What an algorithm needs beside it stands as the profile ``small`` in its ``hyperparameters.yml``, with the reason.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sb3_genoffline.common.offline_algorithm import AnyAlgorithm
from sb3_genoffline.common.sequence_algorithm import SequenceAlgorithm

PROFILE = "small"
UPDATES = 20_000
FIT_STEPS = 10_000

_RATE, _LARGEST_RATE = 10 / 3, 1e-3
_WIDTH, _BATCH, _WINDOWS, _SAMPLES, _CANDIDATES, _TAU = 128, 128, 16, 4, 16, 4
_BATCHES = ("batch_size", "critic_batch_size", "vae_batch_size", "flow_batch_size", "q_batch_size")
_FALLING = ("learning_rate", "critic_learning_rate")
_FITTING = ("vae_learning_rate", "behavior_learning_rate", "flow_learning_rate", "teacher_learning_rate", "cd_learning_rate")
_MULTIPLIERS = ("multiplier_learning_rate", "alpha_learning_rate", "eta_lr")
_FITS = ("vae_steps", "behavior_steps", "flow_steps", "teacher_steps", "cd_steps", "value_steps")
_COUNTS = ("warmup_steps", "bc_steps", "critic_start", "q_start", "target_copy_steps", "actor_ema_start")
_FEW = (
    "n_critics",
    "n_q_samples",
    "n_actions",
    "n_target_samples",
    "n_kl_samples",
    "n_value_samples",
    "n_planning_samples",
    "n_passes",
)
_ACTING = ("n_action_samples", "n_plans")
_SAME_WIDTH = ("net_arch", "vae_net_arch", "q_net_arch", "hidden_dim")
_HALF_WIDTH = ("behavior_net_arch", "channels", "embed_dim")


def made_small(cls: type[AnyAlgorithm], settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param cls: of the algorithm
    :param settings: plain values of a dataset's entry: the paper's
    :param defaults: of the constructors of algorithm and policy, for what the entry does not name; the policy's in
        ``policy_kwargs``
    :return: the settings with what the rule changes
    """
    paper = {**defaults, **settings}
    share = UPDATES / paper["n_timesteps"]
    rules: dict[str, Callable[[Any], Any]] = {"n_timesteps": lambda _: UPDATES, "lr_decay_steps": lambda _: None}
    rules |= dict.fromkeys(_BATCHES, lambda n: min(n, _WINDOWS if issubclass(cls, SequenceAlgorithm) else _BATCH))
    rules |= dict.fromkeys(_FALLING, lambda rate: f"lin_{_faster(rate)}")
    rules |= dict.fromkeys(_FITTING, _faster)
    rules |= dict.fromkeys(_MULTIPLIERS, lambda rate: _rounded(rate * _RATE))
    rules |= dict.fromkeys(("tau", "actor_tau"), lambda tau: _rounded(min(tau * _TAU, 1.0)))
    rules |= dict.fromkeys(_FITS, lambda n: min(n, FIT_STEPS))
    rules |= dict.fromkeys(_COUNTS, lambda n: round(n * share))
    rules |= {"critic_steps": lambda n: min(round(n * share), UPDATES)}
    rules |= dict.fromkeys(_FEW, lambda n: min(n, _SAMPLES)) | dict.fromkeys(_ACTING, lambda n: min(n, _CANDIDATES))
    rules |= {"normalize_observations": lambda _: True}
    small = {name: rule(paper[name]) for name, rule in rules.items() if paper.get(name) is not None}
    networks = {**defaults.get("policy_kwargs", {}), **(settings.get("policy_kwargs") or {})}
    kwargs = {name: _wide(networks[name], _WIDTH, 0) for name in _SAME_WIDTH if networks.get(name)}
    kwargs |= {name: _wide(networks[name], 0, 2) for name in _HALF_WIDTH if networks.get(name)}
    if "critic_layer_norm" in networks and not networks.get("spectral_norm"):
        kwargs["critic_layer_norm"] = True
    changed = {name: value for name, value in small.items() if paper[name] != value}
    return {**settings, **changed, "policy_kwargs": {**(settings.get("policy_kwargs") or {}), **kwargs}}


def _faster(rate: float) -> float:
    return min(_rounded(rate * _RATE), max(rate, _LARGEST_RATE))


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _wide(arch: Any, width: int, divisor: int) -> Any:
    """:param arch: a width, or widths in lists and mappings"""
    if isinstance(arch, Mapping):
        return {name: _wide(part, width, divisor) for name, part in arch.items()}
    if isinstance(arch, list | tuple):
        return [_wide(part, width, divisor) for part in arch]
    return arch // divisor if divisor else width
