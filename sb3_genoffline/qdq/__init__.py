"""Q-Distribution guided Q-learning."""

from sb3_genoffline.qdq.policies import ConsistencyQPolicy
from sb3_genoffline.qdq.qdq import QDQ, QDQNoise
from sb3_genoffline.qdq.sampler import ConsistencyQ

__all__ = ["QDQ", "ConsistencyQ", "ConsistencyQPolicy", "QDQNoise"]
