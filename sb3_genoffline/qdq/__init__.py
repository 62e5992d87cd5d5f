"""Q-Distribution guided Q-learning."""

from sb3_genoffline.qdq.policies import ConsistencyQPolicy
from sb3_genoffline.qdq.qdq import QDQ, UpdateNoise
from sb3_genoffline.qdq.sampler import ConsistencyQ

__all__ = ["QDQ", "ConsistencyQ", "ConsistencyQPolicy", "UpdateNoise"]
