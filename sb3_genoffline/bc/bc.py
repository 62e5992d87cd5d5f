"""Behaviour cloning, deterministic or Gaussian."""

from typing import Any, ClassVar, Unpack

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor
from torch.nn.functional import mse_loss

from sb3_genoffline.bc.policies import BCPolicy
from sb3_genoffline.common.arguments import Normalized, Positive, PositiveInt, Rate, RewardTransform
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.keywords import OfflineArguments
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.data.buffers import TransitionBatch
from sb3_genoffline.nets.actors import DeterministicActor, GaussianActor


class BC(OfflineAlgorithm[TransitionBatch, None]):
    """
    Behaviour cloning: the actor learns by regression to do what the data did. Rewards are not used, so whatever another
    algorithm scores above it, reinforcement learning has added. (``learn`` imitates the agent's own steps, no more.)

    Source: Pomerleau, "Efficient training of artificial neural networks for autonomous navigation", Neural Computation 1991,
    https://doi.org/10.1162/neco.1991.3.1.88. Networks, rate and batch size are those of the BC in TD3+BC (Fujimoto & Gu,
    NeurIPS 2021, https://arxiv.org/abs/2106.06860), which is that method without Q.

    Differences from these:

    1. Observations stay as they are; ``normalize_observations=True`` standardises them, as TD3+BC does.
    2. Batches are slices of random permutations; ``replacement=True`` draws each row afresh.
    3. Actions are clipped to ± (1 − 1e-5).
    4. ``gaussian=True`` has one σ for all states, and no Jacobian of the tanh of its mean, as the actors of IQL and AWAC.

    :param policy: ``"BCPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of the actor
    :param gaussian: learn N(μ(s), diag σ²) by maximum likelihood instead of π(s) by the squared error
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`; ``gamma`` and
        ``tau`` have no effect
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"BCPolicy": BCPolicy, "MlpPolicy": BCPolicy}
    default_gradient_steps = 1_000_000
    policy: BCPolicy
    actor: DeterministicActor | GaussianActor
    actor_optimizer: th.optim.Optimizer

    def __init__(
        self,
        policy: str | type[BCPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 3e-4,
        *,
        gaussian: bool = False,
        batch_size: PositiveInt = 256,
        lr_decay_steps: PositiveInt | None = None,
        max_grad_norm: Positive | None = None,
        reward_transform: RewardTransform = None,
        normalize_observations: Normalized = False,
        **kwargs: Unpack[OfflineArguments],
    ) -> None:
        self.gaussian = gaussian
        super().__init__(
            policy,
            env,
            learning_rate,
            batch_size=batch_size,
            lr_decay_steps=lr_decay_steps,
            max_grad_norm=max_grad_norm,
            reward_transform=reward_transform,
            normalize_observations=normalize_observations,
            **kwargs,
        )

    def policy_arguments(self) -> dict[str, Any]:
        """See :meth:`~sb3_genoffline.common.learner.Learner.policy_arguments`."""
        return {"gaussian": self.gaussian}

    def declare_state(self) -> None:
        """The actor and its optimizer."""
        self.add_networks("actor")
        self.add_optimizer("actor", self.actor.parameters())

    def draw_noise(self, batch_size: int) -> None:
        """Nothing: an update has no random numbers of its own."""

    def update(self, batch: TransitionBatch, noise: None) -> dict[str, Tensor]:
        """
        One gradient step.

        :param batch: B transitions
        :param noise: nothing
        :return: scalars to log, on the device
        """
        states = self.policy.normalize_observations(batch.observations)  # (B, S)
        info: dict[str, Tensor] = {}
        if isinstance(self.actor, GaussianActor):
            # ------ −E[log N(a; μ(s), σ²)]
            loss = -self.actor.log_prob(states, batch.actions).mean()
            info["actor_std"] = self.actor.std().detach().mean()
        else:
            # ------ E[(π(s) − a)²], the mean over action dimensions too
            loss = mse_loss(self.actor(states), batch.actions)
        gradient_step(self.actor_optimizer, loss, self.rate_now(self.learning_rate), self.max_grad_norm)
        return info | {"actor_loss": loss.detach()}
