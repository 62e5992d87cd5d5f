"""Logged data: loading, checking, scores and transforms."""

from sb3_genoffline.data.combining import combine, split
from sb3_genoffline.data.dataset import OfflineDataset
from sb3_genoffline.data.environments import check_compatible
from sb3_genoffline.data.flattening import FlatFloatObservation, flat_observation_space, flatten_env, flatten_observations
from sb3_genoffline.data.reading.sources import load_dataset
from sb3_genoffline.data.scores import REFERENCE, ScoreScale, normalized_score, reference_scores
from sb3_genoffline.data.transforms import (
    REWARD_TRANSFORMS,
    clip_actions,
    reward_affine,
    scale_actions,
    transform_rewards,
    unscale_actions,
)
from sb3_genoffline.data.windows import WindowedReturns, windowed_returns
from sb3_genoffline.data.writing.export import export_hdf5, export_minari
from sb3_genoffline.data.writing.minari import write_minari

__all__ = [
    "REFERENCE",
    "REWARD_TRANSFORMS",
    "FlatFloatObservation",
    "OfflineDataset",
    "ScoreScale",
    "WindowedReturns",
    "check_compatible",
    "clip_actions",
    "combine",
    "export_hdf5",
    "export_minari",
    "flat_observation_space",
    "flatten_env",
    "flatten_observations",
    "load_dataset",
    "normalized_score",
    "reference_scores",
    "reward_affine",
    "scale_actions",
    "split",
    "transform_rewards",
    "unscale_actions",
    "windowed_returns",
    "write_minari",
]
