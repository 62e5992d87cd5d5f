"""Decision Transformer (Chen et al., NeurIPS 2021, arXiv 2106.01345)."""

from typing import Any, ClassVar, Unpack

import torch as th
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from sb3_genoffline.common.arguments import Count, NonNegative, Normalized, Positive, PositiveInt, Rate, RewardTransform
from sb3_genoffline.common.envs import EnvLike
from sb3_genoffline.common.keywords import OfflineArguments
from sb3_genoffline.common.optimizers import gradient_step
from sb3_genoffline.common.schedules import warm_up
from sb3_genoffline.common.sequence_algorithm import SequenceAlgorithm, ended_episodes
from sb3_genoffline.data.batches import SequenceBatch
from sb3_genoffline.data.buffers import OfflineBuffer
from sb3_genoffline.decision_transformer.network import ReturnTransformer
from sb3_genoffline.decision_transformer.policies import ContextLength, DecisionTransformerPolicy, EpisodeSteps
from sb3_genoffline.nets.causal_transformer import DropoutMasks


class DecisionTransformer(SequenceAlgorithm[DropoutMasks | None]):
    """
    A GPT that learns, by regression, which action followed a state in the data, given the return that came after it. Asked for
    a high return it does what brought one. There are no values, and nothing is bootstrapped.

    Paper: Chen, Lu, Rajeswaran, Lee, Grover, Laskin, Abbeel, Srinivas, Mordatch, "Decision Transformer: reinforcement learning
    via sequence modeling", NeurIPS 2021, https://arxiv.org/abs/2106.01345. The defaults are those of the authors' code for Gym
    (kzl/decision-transformer at e2d82e6).

    Where paper and code disagree, or where this differs from the code:

    1. The rate rises over 10,000 updates (code), not over 100,000 (paper).
    2. The loss is the mean over the steps of windows (code), not over their padding too, as CORL has it.
    3. ``target_return=None`` asks for the largest return of the data. The code names numbers for each of its environments, two
       each (HalfCheetah 12000 and 6000, Hopper 3600 and 1800, Walker2d 5000 and 2500), and evaluates both.
    4. Windows are slices of random permutations of all starts; ``replacement=True`` draws each afresh, as the code does.
    5. Observations are standardised by all rows, those of the last, cut episode too; constant columns stay as they are.
    6. Actions of the data are clipped to ± (1 − 1e-5).
    7. Training on the best share of episodes alone, the paper's %BC, is not built: select the episodes, and use BC.
    8. Steps from ``max_episode_steps`` on act like the last of the table; the code ends episodes there.

    :param policy: ``"DecisionTransformerPolicy"`` (alias ``"MlpPolicy"``) or a class
    :param env: see :class:`~sb3_genoffline.common.learner.Learner`
    :param learning_rate: of AdamW, once it has risen
    :param context_length: K, steps that it sees
    :param target_return: undiscounted return that is asked for when an episode starts, in the environment's units (None: the
        largest of the training data)
    :param return_scale: returns are divided by it
    :param max_episode_steps: steps of an episode that are told apart
    :param warmup_steps: updates over which the rate rises linearly; 0: none
    :param weight_decay: of AdamW, for all parameters
    :param kwargs: the remaining arguments of :class:`~sb3_genoffline.common.learner.Learner`; ``reward_transform``, ``gamma``
        and ``tau`` have no effect: returns are those of the environment
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "DecisionTransformerPolicy": DecisionTransformerPolicy,
        "MlpPolicy": DecisionTransformerPolicy,
    }
    default_gradient_steps = 100_000
    policy: DecisionTransformerPolicy
    actor: ReturnTransformer
    actor_optimizer: th.optim.Optimizer

    def __init__(
        self,
        policy: str | type[DecisionTransformerPolicy],
        env: EnvLike | None = None,
        learning_rate: Rate = 1e-4,
        *,
        context_length: ContextLength = 20,
        target_return: float | None = None,
        return_scale: Positive = 1000.0,
        max_episode_steps: EpisodeSteps = 1000,
        warmup_steps: Count = 10_000,
        weight_decay: NonNegative = 1e-4,
        batch_size: PositiveInt = 64,
        lr_decay_steps: PositiveInt | None = None,
        max_grad_norm: Positive | None = 0.25,
        reward_transform: RewardTransform = None,
        normalize_observations: Normalized = True,
        **kwargs: Unpack[OfflineArguments],
    ) -> None:
        self.context_length = context_length
        self.target_return = target_return
        self.return_scale = return_scale
        self.max_episode_steps = max_episode_steps
        self.warmup_steps = warmup_steps
        self.weight_decay = weight_decay
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
        names = ("context_length", "target_return", "return_scale", "max_episode_steps")
        return {name: getattr(self, name) for name in names}

    def declare_state(self) -> None:
        """The transformer and its optimizer, which decays weights apart from the gradient."""
        self.add_networks("actor")
        self.add_optimizer(
            "actor",
            self.actor.parameters(),
            options=lambda agent: {"weight_decay": agent.weight_decay},
            usual=th.optim.AdamW,
        )

    def window_arguments(self) -> dict[str, Any]:
        """From every row of an episode K steps or what is left of it, padded before; with the environment's returns."""
        return {"horizon": self.context_length, "padding": "before", "discount": 1.0, "raw_returns": True}

    def take_buffer(self, buffer: OfflineBuffer) -> None:
        """See :meth:`~sb3_genoffline.common.stored_learner.StoredLearner.take_buffer`."""
        super().take_buffer(buffer)
        assert buffer.dataset is not None  # a sampler would have refused it
        returns = buffer.dataset.episode_returns()[ended_episodes(buffer.dataset)]
        self.policy.largest_return.fill_(float(returns.max()))

    def draw_noise(self, batch_size: int) -> DropoutMasks | None:
        """The random numbers of one update from this algorithm's generator: what dropout keeps."""
        return self.actor.draw_masks(batch_size, self.context_length, self.generator)

    def _rate(self) -> float:
        """The learning rate of the coming update."""
        return self._decayed(self.learning_rate, self._n_updates) * warm_up(self._n_updates, self.warmup_steps)

    def update(self, batch: SequenceBatch, noise: DropoutMasks | None) -> dict[str, Tensor]:
        """
        One gradient step.

        :param batch: B windows
        :param noise: what dropout keeps
        :return: scalars to log, on the device
        """
        states = self.policy.normalize_observations(batch.observations.flatten(0, 1)).view_as(batch.observations)
        assert batch.returns_to_go is not None
        returns_to_go = batch.returns_to_go / self.return_scale  # (B, K)

        # ------ E[(π(R̂_{t−K+1..t}, s_{t−K+1..t}, a_{t−K+1..t−1}) − a_t)²], over steps that are no padding, and dimensions
        predicted = self.actor(states, batch.actions, returns_to_go, batch.timesteps, batch.valid, noise)  # (B, K, A)
        errors = (predicted - batch.actions).square().mean(-1)
        loss = (errors * batch.valid).sum() / batch.valid.sum()
        gradient_step(self.actor_optimizer, loss, self.number_now(self._rate), self.max_grad_norm)
        return {"actor_loss": loss.detach()}
