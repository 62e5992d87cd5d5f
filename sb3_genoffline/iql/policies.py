"""The policy of IQL: a Gaussian actor, twin critics, their targets, and a state value."""

from sb3_genoffline.common.in_sample import InSamplePolicy


class IQLPolicy(InSamplePolicy):
    """
    ``predict(deterministic=True)`` is the actor's mean μ(s), as the paper evaluates; ``deterministic=False`` one sample of its
    Gaussian, clipped to [−1, 1]. Layers start as PyTorch's.

    The arguments are those of :class:`~sb3_genoffline.common.in_sample.InSamplePolicy`.
    """

    starts_orthogonal = False
