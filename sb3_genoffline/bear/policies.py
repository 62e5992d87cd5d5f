"""The policy of BEAR: a tanh-Gaussian actor, twin critics, and a VAE of behaviour."""

from sb3_genoffline.common.support_matching import SupportMatchingPolicy


class BEARPolicy(SupportMatchingPolicy):
    """
    ``predict(deterministic=True)`` draws ``n_action_samples`` actions of the actor and takes the one with the largest Q_1;
    ``deterministic=False`` is one of them. tanh(μ(s)) is not BEAR's policy. Both draw random numbers:
    ``model.set_acting_seed(seed)`` before makes them the same again.

    The arguments are those of :class:`~sb3_genoffline.common.support_matching.SupportMatchingPolicy`.
    """
