"""Offline reinforcement learning with generative models, in the manner of stable-baselines3."""

from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.common.recording import RecordDatasetCallback
from sb3_genoffline.cped import CPED, FlowDensityPolicy
from sb3_genoffline.dac import DAC, DiffusionPolicy
from sb3_genoffline.data import OfflineDataset, combine, export_hdf5, export_minari, load_dataset, split
from sb3_genoffline.dql import DQL, DiffusionQLPolicy
from sb3_genoffline.qdq import QDQ, ConsistencyQPolicy
from sb3_genoffline.registry import ALGOS
from sb3_genoffline.version import __version__

__all__ = [
    "ALGOS",
    "CPED",
    "DAC",
    "DQL",
    "QDQ",
    "ConsistencyQPolicy",
    "DiffusionPolicy",
    "DiffusionQLPolicy",
    "FlowDensityPolicy",
    "OfflineAlgorithm",
    "OfflineDataset",
    "RecordDatasetCallback",
    "__version__",
    "combine",
    "export_hdf5",
    "export_minari",
    "load_dataset",
    "split",
]
