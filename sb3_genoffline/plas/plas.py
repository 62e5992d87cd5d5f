"""Policy in the Latent Action Space (Zhou et al., CoRL 2020, arXiv 2011.07213)."""

from typing import Annotated, Any, ClassVar, Unpack

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from sb3_genoffline.common.arguments import (
    NonNegative,
    Normalized,
    Positive,
    PositiveInt,
    Rate,
    RewardTransform,
    Share,
    TakenOver,
)
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.keywords import OfflineArguments
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.common.vae_training import VAEFittingAlgorithm
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.files.archive import PathOrFile
from sb3_genoffline.generative.vae import ConditionalVAE
from sb3_genoffline.nets.ensembles import soft_minimum, soft_update
from sb3_genoffline.plas.policies import LatentActor, LatentPolicy

_WATCHED_ROWS = 64
_SHORT_REACH = 0.01


class PLAS(VAEFittingAlgorithm[None]):
    """
    Policy in the Latent Action Space: a VAE of behaviour is fitted and frozen, and a deterministic actor learns which of its
    latents to decode, within a box, by DDPG through the decoder. So actions stay near the data's, however rare those are.
    ``max_perturbation`` adds a network that moves the decoded action a little, as BCQ's does (PLAS+P).

    Paper: Zhou, Bajracharya, Held, "PLAS: Latent Action Space for Offline Reinforcement Learning", CoRL 2020,
    https://arxiv.org/abs/2011.07213. Its code is https://github.com/Wenxuan-Zhou/PLAS at 9fbc6ff. :meth:`learn_offline` first
    fits the VAE (progress bar and log keys ``vae/`` of its own; left out if there is a fitted one), then trains actor and
    critics, whose updates ``num_timesteps`` counts.

    Where the paper and its code disagree:

    1. λ is 1, clipped double Q (paper). The code's class has 0.75 and its script no flag for it, so that a run of the released
       command has 0.75: ``lam=0.75``, the profile ``official`` of the zoo.
    2. The actor's rate is 1e-4 (paper and script; 1e-3 in the class).
    3. The perturbation is measured where actions are scaled to [−1, 1]; the code does not multiply it with the bounds. Its
       script's default of 0 is PLAS with a network that does nothing, here ``max_perturbation=0.0``; None has none.
    4. On medium-replay the VAE's layers are 128 wide (paper; 750 in the code unless told), see ``plas/hyperparameters.yml``.

    Differences from both:

    5. ``predict(deterministic=False)`` adds normal noise of std 0.1, which they do not have.
    6. Batches of actor and critics are slices of random permutations; ``replacement=True`` draws as the code does. Those of
       the VAE are drawn.
    7. Actions are clipped to ± (1 − 1e-5).
    8. Options they do not have, off by default: ``normalize_observations`` (the VAE's too), ``lr_decay_steps`` (of the actor's
       rate), ``max_grad_norm``, LayerNorm in the critics (``policy_kwargs=dict(critic_layer_norm=True)``).

    :param policy: ``"LatentPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of the actor
    :param critic_learning_rate: of the critics (None: ``learning_rate``)
    :param lam: λ, share of the smaller critic in the target; the larger one has the rest
    :param max_latent_action: M, largest absolute value of a latent: 2, or 0.5 where actions must stay closer to the data's
    :param max_perturbation: ε, how far a decoded action may be moved (None: no perturbation)
    :param beta: β, weight of the VAE's KL term
    :param vae_steps: steps that fit the VAE
    :param vae_batch_size: rows of such a step
    :param vae_learning_rate: of the VAE
    :param density: a fitted :class:`~sb3_genoffline.generative.vae.ConditionalVAE`, or a file of :meth:`save_fitted_model`,
        SPOT's too, instead of fitting one; None once it is taken over
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"LatentPolicy": LatentPolicy, "MlpPolicy": LatentPolicy}
    default_gradient_steps = 500_000
    policy: LatentPolicy
    actor: LatentActor
    actor_target: LatentActor

    def __init__(
        self,
        policy: str | type[LatentPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 1e-4,
        critic_learning_rate: Rate | None = 1e-3,
        *,
        lam: Share = 1.0,
        max_latent_action: Positive = 2.0,
        max_perturbation: NonNegative | None = None,
        beta: Positive = 0.5,
        vae_steps: PositiveInt = 500_000,
        vae_batch_size: PositiveInt = 100,
        vae_learning_rate: NonNegative = 1e-4,
        density: Annotated[ConditionalVAE | PathOrFile | None, TakenOver] = None,
        batch_size: PositiveInt = 100,
        lr_decay_steps: PositiveInt | None = None,
        max_grad_norm: Positive | None = None,
        reward_transform: RewardTransform = None,
        normalize_observations: Normalized = False,
        **kwargs: Unpack[OfflineArguments],
    ) -> None:
        self.lam = lam
        self.max_latent_action = max_latent_action
        self.max_perturbation = max_perturbation
        self.beta = beta
        self.vae_steps = vae_steps
        self.vae_batch_size = vae_batch_size
        self.vae_learning_rate = vae_learning_rate
        self.density = density
        super().__init__(
            policy,
            env,
            learning_rate,
            critic_learning_rate,
            batch_size=batch_size,
            lr_decay_steps=lr_decay_steps,
            max_grad_norm=max_grad_norm,
            reward_transform=reward_transform,
            normalize_observations=normalize_observations,
            **kwargs,
        )

    def policy_arguments(self) -> dict[str, Any]:
        """See :meth:`~sb3_genoffline.common.learner.Learner.policy_arguments`."""
        return {name: getattr(self, name) for name in ("beta", "max_latent_action", "max_perturbation")}

    def overestimation_hint(self) -> str:
        """The arguments that help."""
        return (
            f"What helps: latents nearer to the data's (a new agent with max_latent_action below {self.max_latent_action}), a "
            "smaller max_perturbation if there is one, or LayerNorm (policy_kwargs=dict(critic_layer_norm=True))."
        )

    def draw_noise(self, batch_size: int) -> None:
        """None: an update draws no random numbers."""

    def update(self, batch: TransitionBatch, noise: None = None) -> dict[str, Tensor]:
        """
        One gradient step of actor and critics.

        :param batch: B transitions
        :param noise: unused
        :return: scalars to log, on the device
        """
        states = self.policy.normalize_observations(batch.observations)  # (B, S)
        next_states = self.policy.normalize_observations(batch.next_observations)

        # ------ y = r + γ·m·[λ·min_i Q̄_i + (1 − λ)·max_i Q̄_i](s', ξ̄(s', decode(s', z̄))), z̄ = M·tanh(net̄(s'))
        with th.no_grad():
            decoded = self.policy.decode(batch.next_observations, self.actor_target(next_states))
            next_actions = self.actor_target.perturb(next_states, decoded)  # (B, A)
            target = self.td_target(batch, soft_minimum(self.critic_target(next_states, next_actions), self.lam))
        info = self.critic_step(states, batch.actions, target)

        # ------ −E[Q_1(s, ξ(s, decode(s, z)))], z = M·tanh(net(s)): the gradient passes the frozen decoder
        latents = self.actor(states)  # (B, Z)
        decoded = self.policy.decode(batch.observations, latents)  # (B, A)
        actions = self.actor.perturb(states, decoded)
        q = self.critic.of_member(0, states, actions)  # (B,)
        gradient_step(self.actor_optimizer, -q.mean(), self.actor_rate_now(), self.max_grad_norm)

        soft_update(self.critic, self.critic_target, self.tau)
        soft_update(self.actor, self.actor_target, self.tau)
        size = latents.detach().abs()
        info |= {
            "actor_loss": -q.detach().mean(),
            "latent_size": size.mean(),
            "latents_at_bound": (size > 0.95 * self.max_latent_action).float().mean(),
        }
        if self.max_perturbation is not None:
            info["perturbation"] = (actions - decoded).detach().abs().mean()
        return info

    def watch(self, metrics: dict[str, float]) -> None:
        """Log how far one latent can move an action, on a few rows, always the same; warn where it is next to nothing."""
        reach = self.latent_reach()
        self.logger.record("train/latent_reach", reach)
        self.last_metrics["latent_reach"] = reach
        if reach < _SHORT_REACH:
            self.monitor.warn_once(
                "latent_reach",
                f"The VAE's latents hardly move its actions (latent_reach={reach:.2g}), so that there is nothing to choose: "
                f"actions closer to each other than {self.policy.density.action_variance**0.5:.2g} are one to it. A new agent "
                f"with a smaller beta than {self.beta} tells them apart.",
            )

    @th.no_grad()
    def latent_reach(self) -> float:
        """
        How far an action moves when one latent goes from −M to M and the others are 0: the farthest of the latents, as a mean
        over states and action dimensions.
        """
        assert self.replay_buffer is not None
        rows = self.replay_buffer.rows_at(th.arange(min(_WATCHED_ROWS, self.replay_buffer.size()), device=self.device))
        ends = self.max_latent_action * th.eye(self.policy.density.latent_dim, device=self.device)  # (Z, Z)
        corners = th.cat([ends, -ends]).to(self.policy.obs_mean.dtype).expand(len(rows.observations), -1, -1)
        highest, lowest = self.policy.decode(rows.observations, corners).chunk(2, dim=1)  # (B, Z, A)
        return (highest - lowest).abs().mean(-1).amax(1).mean().item()
