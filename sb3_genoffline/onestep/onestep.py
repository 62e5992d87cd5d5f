"""Onestep RL (Brandfonbrener et al., NeurIPS 2021, arXiv 2106.08909)."""

from typing import Annotated, Any, ClassVar, NamedTuple, Unpack

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from sb3_genoffline.common.arguments import (
    NCandidates,
    NonNegative,
    Normalized,
    Positive,
    PositiveInt,
    Rate,
    RewardTransform,
    SampleCount,
    TakenOver,
)
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.fitting import Fit
from sb3_genoffline.common.in_sample import exponential_weights
from sb3_genoffline.common.keywords import OfflineArguments
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.data.batches import SarsaBatch
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.data.sarsa import SarsaSampler
from sb3_genoffline.files.archive import PathOrFile
from sb3_genoffline.nets.bounded_gaussian import BoundedGaussianActor
from sb3_genoffline.nets.ensembles import EnsembleQ
from sb3_genoffline.onestep.fit import BehaviorFit, SarsaFit
from sb3_genoffline.onestep.policies import BehaviourAndQ, Distribution, Improvement, OnestepPolicy

_EDGE = 1e-4  # of the data's actions to ±1 in the weighted likelihood, the code's


class OnestepNoise(NamedTuple):
    """
    The random numbers of one update, uniform or standard normal as the distribution's samples want them.

    :param action: (B, A), of the action of π that climbs Q; None where none does
    :param samples: (B, n, A), of the actions that estimate the KL divergence (π's) or V (β̂'s), or are chosen from (β̂'s)
    """

    action: Tensor | None
    samples: Tensor


class Onestep(OfflineAlgorithm[SarsaBatch, OnestepNoise]):
    """
    Onestep RL: β̂, who made the data, by maximum likelihood; Q, what it is worth to act as the data do from the next step on,
    by SARSA on the actions that the data took; then one improvement of the policy against that Q, which stays as it is. No
    action outside the data is ever bootstrapped from.

    Paper: Brandfonbrener, Whitney, Ranganath, Bruna, "Offline RL without off-policy evaluation", NeurIPS 2021,
    https://arxiv.org/abs/2106.08909. Its code is https://github.com/davidbrandfonbrener/onestep-rl at 9999443.
    :meth:`learn_offline` first fits β̂ and Q (progress bars and log keys ``behavior/`` and ``critic/`` of their own), unless
    there are fitted ones, then improves π, whose updates ``num_timesteps`` counts. One pair of β̂ and Q serves all operators
    and weights: :meth:`save_fitted_model` and ``behavior_and_q=...``.

    ``improvement`` names the paper's operators:

    - ``"reverse_kl"``: π climbs E[Q(s, a)] − α·KL(π ‖ β̂);
    - ``"exp_weight"``: π imitates the data's actions with the weights exp(temperature·(Q − V));
    - ``"easy_bcq"``: acting takes the best of M samples of β̂. There is no π and nothing to train behind the fits: use
      :meth:`pretrain`; updates only measure what choosing gains.

    Where the authors' code is not the paper, and where this differs from it:

    1. All policies are normals that are truncated to [−1, 1] (paper). The run that the code releases has plain normals: its
       π is replaced by a copy of β̂, whose setting is the plain one. That is ``distribution="normal"``.
    2. Q's slow copy moves every second step (code; in the paper each step): ``target_update_interval``.
    3. One Q (paper). ``policy_kwargs=dict(n_critics=2)`` takes the smaller of two, which the code means to offer and which
       does not run there.
    4. V of the weights is the mean Q of 10 samples of β̂ (code; the paper names no estimator).
    5. ``"easy_bcq"`` follows the paper; the code's training refuses its own name for it.
    6. Actions are kept 1e−4 away from ±1 in the weighted likelihood (code) and 1e−5 everywhere (ours).
    7. Rows without a next action are left out for π and β̂ too (code). D4RL's files that lack next observations lose the last
       two rows of an episode that a time limit cut, one more than in the code, which loses the file's last row instead.
    8. π's batches are slices of random permutations; ``replacement=True`` draws as the code does.
    9. It does not go on online: the paper has no such form, and Q would have to change.

    :param policy: ``"OnestepPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of π
    :param critic_learning_rate: of Q
    :param behavior_learning_rate: of β̂
    :param improvement: ``"reverse_kl"``, ``"exp_weight"`` or ``"easy_bcq"``
    :param alpha: α of ``"reverse_kl"``, in units of the rewards (the paper's choices: 0.03 to 10)
    :param temperature: factor on the advantage of ``"exp_weight"``, in units of one over the rewards (the paper's choices: 0.1
        to 30; there it is called τ, and AWAC's ``lam`` is its inverse); 0 imitates
    :param max_weight: largest weight of an action
    :param n_kl_samples: of π, which estimate the KL divergence
    :param n_value_samples: of β̂, which estimate V
    :param n_action_samples: M, candidates of ``"easy_bcq"`` (the paper's choices: 2 to 100)
    :param distribution: ``"truncated"`` or ``"normal"``, of π and β̂, see 1
    :param behavior_steps: steps that fit β̂
    :param critic_steps: steps that fit Q
    :param target_update_interval: steps of Q's fit between two moves of its slow copy, by ``tau``
    :param behavior_and_q: fitted ones, or a file of :meth:`save_fitted_model`, instead of fitting them; None once they are
        taken over
    :param batch_size: of all three
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {"OnestepPolicy": OnestepPolicy, "MlpPolicy": OnestepPolicy}
    default_gradient_steps = 100_000
    goes_online = False
    why_not_online = "its Q is that of the policy that made the data, and would have to change"
    baselines: ClassVar[dict[str, dict[str, Any]]] = {"imitation only": {"improvement": "exp_weight", "temperature": 0}}
    fitted_model_arguments = "the same distribution and policy_kwargs"
    fitted_model_units = ("gamma", "reward_transform", "normalize_observations")
    policy: OnestepPolicy
    actor: BoundedGaussianActor
    actor_optimizer: th.optim.Optimizer
    batches: SarsaSampler

    def __init__(
        self,
        policy: str | type[OnestepPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 1e-4,
        *,
        critic_learning_rate: NonNegative = 1e-4,
        behavior_learning_rate: NonNegative = 1e-4,
        improvement: Improvement = "reverse_kl",
        alpha: NonNegative = 1.0,
        temperature: NonNegative = 1.0,
        max_weight: Positive = 100.0,
        n_kl_samples: SampleCount = 10,
        n_value_samples: SampleCount = 10,
        n_action_samples: NCandidates = 10,
        distribution: Distribution = "truncated",
        behavior_steps: PositiveInt = 500_000,
        critic_steps: PositiveInt = 2_000_000,
        target_update_interval: PositiveInt = 2,
        behavior_and_q: Annotated[BehaviourAndQ | PathOrFile | None, TakenOver] = None,
        batch_size: PositiveInt = 512,
        lr_decay_steps: PositiveInt | None = None,
        max_grad_norm: Positive | None = None,
        reward_transform: RewardTransform = None,
        normalize_observations: Normalized = False,
        **kwargs: Unpack[OfflineArguments],
    ) -> None:
        self.critic_learning_rate = critic_learning_rate
        self.behavior_learning_rate = behavior_learning_rate
        self.improvement = improvement
        self.alpha = alpha
        self.temperature = temperature
        self.max_weight = max_weight
        self.n_kl_samples = n_kl_samples
        self.n_value_samples = n_value_samples
        self.n_action_samples = n_action_samples
        self.distribution = distribution
        self.behavior_steps = behavior_steps
        self.critic_steps = critic_steps
        self.target_update_interval = target_update_interval
        self.behavior_and_q = behavior_and_q
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
        names = ("improvement", "n_action_samples", "distribution")
        return {name: getattr(self, name) for name in names}

    def declare_state(self) -> None:
        """π and its optimizer; β̂ and Q are the policy's, and have theirs while they are fitted."""
        self.add_networks("actor")
        self.add_optimizer("actor", self.actor.parameters())

    @property
    def critic(self) -> EnsembleQ:
        """Q of the behaviour."""
        return self.policy.behavior_and_q.critic

    def make_sampler(self, buffer: OfflineBuffer) -> SarsaSampler:
        """Rows with their next actions."""
        return SarsaSampler(buffer, replacement=self.replacement, seed=self._buffer_seed)

    # ------------------------------------------------------------------ what comes before

    def fit_arguments(self) -> tuple[str, ...]:
        """What the fits of β̂ and Q alone read."""
        steps, rates = ("behavior_steps", "critic_steps"), ("behavior_learning_rate", "critic_learning_rate")
        return (*steps, *rates, "target_update_interval", "tau")

    def make_fits(self) -> list[Fit]:
        """β̂'s, then Q's."""
        draw = self.draw_for_fit
        critic = (self.critic_learning_rate, self.gamma, self.tau, self.target_update_interval)
        return [
            BehaviorFit(self.behavior_steps, self.policy, draw, self.behavior_learning_rate),
            SarsaFit(self.critic_steps, self.policy, draw, *critic),
        ]

    def draw_for_fit(self) -> SarsaBatch:
        """A batch for β̂ or Q, drawn with replacement."""
        return self.batches.draw_by(self.generator, self.batch_size)

    def set_fitted_model(self, source: Any) -> None:
        """
        Take over β̂ and Q; π starts again as a copy of β̂.

        :param source: of another agent, or a file of :meth:`save_fitted_model`
        """
        super().set_fitted_model(source)
        self.policy.start_from_behavior()

    # ------------------------------------------------------------------ the one step

    def draw_noise(self, batch_size: int) -> OnestepNoise:
        """The random numbers of one update from this algorithm's generator."""
        n_samples = {
            "reverse_kl": self.n_kl_samples,
            "exp_weight": self.n_value_samples,
            "easy_bcq": self.n_action_samples,
        }[self.improvement]
        climbs, action_dim = self.improvement == "reverse_kl", self.policy.action_dim
        return OnestepNoise(
            self.actor.draws(batch_size, action_dim, generator=self.generator) if climbs else None,
            self.actor.draws(batch_size, n_samples, action_dim, generator=self.generator),
        )

    def update(self, batch: SarsaBatch, noise: OnestepNoise) -> dict[str, Tensor]:
        """
        One gradient step of π; β̂ and Q stay as they are.

        :param batch: B rows, of which states and actions are read
        :param noise: all random numbers of the step
        :return: scalars to log, on the device
        """
        states = self.policy.normalize_observations(batch.observations)  # (B, S)
        models = self.policy.behavior_and_q
        with th.no_grad():
            behavior = models.behavior.distribution(states)
            data_q = models.q(states, batch.actions)  # (B,)
        info = {"q_mean": data_q.mean()}

        if self.improvement == "easy_bcq":
            # ------ nothing to descend: what choosing the best of M samples of β̂ gains
            with th.no_grad():
                samples = behavior.sample(noise.samples).clamp(-1.0, 1.0)
                return info | {"chosen_q": models.q(states, samples).amax(1).mean()}

        policy = self.actor.distribution(states)
        if self.improvement == "reverse_kl":
            # ------ −E[Q(s, a)] + α·KL(π ‖ β̂), a ~ π; the KL by samples of π, with the gradient of samples and densities
            assert noise.action is not None
            actor_q = models.q(states, policy.sample(noise.action)).mean()
            samples = policy.sample(noise.samples)  # (B, n, A)
            kl = (policy.log_prob(samples) - behavior.log_prob(samples)).mean()
            actor_loss = self.alpha * kl - actor_q
            info |= {"actor_q": actor_q.detach(), "kl": kl.detach()}
        else:
            # ------ −E[min(exp(temperature·(Q(s, a) − V(s))), 100)·log π(a | s)], V(s) = E[Q(s, ã)], ã ~ β̂
            with th.no_grad():
                values = models.q(states, behavior.sample(noise.samples)).mean(1)  # (B,)
                weights = exponential_weights(data_q - values, self.temperature, self.max_weight)
            actor_loss = -(weights * policy.log_prob(batch.actions.clamp(_EDGE - 1.0, 1.0 - _EDGE))).mean()
            info |= {
                "v_mean": values.mean(),
                "advantage_mean": (data_q - values).mean(),
                "weight_mean": weights.mean(),
                "clipped_share": (weights >= self.max_weight).float().mean(),
            }
        gradient_step(self.actor_optimizer, actor_loss, self.rate_now(self.learning_rate), self.max_grad_norm)
        return info | {"actor_loss": actor_loss.detach(), "actor_std": policy.std.detach().mean()}
