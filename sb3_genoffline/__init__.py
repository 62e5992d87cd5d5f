"""Offline reinforcement learning with generative models, in the style of stable-baselines3."""

from sb3_genoffline.awac import AWAC, AWACPolicy
from sb3_genoffline.bc import BC, BCPolicy
from sb3_genoffline.bcq import BCQ, VAEPolicy
from sb3_genoffline.bear import BEAR, BEARPolicy
from sb3_genoffline.common.evaluation import with_rewards
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.cped import CPED, FlowDensityPolicy
from sb3_genoffline.cql import CQL, CQLPolicy
from sb3_genoffline.dac import DAC, DiffusionPolicy
from sb3_genoffline.data import OfflineDataset, combine, export_hdf5, export_minari, load_dataset, split
from sb3_genoffline.data.recording import RecordDatasetCallback
from sb3_genoffline.decision_transformer import DecisionTransformer, DecisionTransformerPolicy
from sb3_genoffline.diffuser import Diffuser, DiffuserPolicy
from sb3_genoffline.dql import DQL, DiffusionQLPolicy
from sb3_genoffline.envs import register_envs
from sb3_genoffline.eql import EQL, EQLPolicy
from sb3_genoffline.errors import UserError
from sb3_genoffline.hub import HubError, download_from_hub, load_from_hub, push_to_hub
from sb3_genoffline.idql import IDQL, IDQLPolicy
from sb3_genoffline.iql import IQL, IQLPolicy
from sb3_genoffline.mcq import MCQ, MCQPolicy
from sb3_genoffline.onestep import Onestep, OnestepPolicy
from sb3_genoffline.plas import PLAS, LatentPolicy
from sb3_genoffline.qdq import QDQ, ConsistencyQPolicy
from sb3_genoffline.registry import ALGOS, load_agent, register_algorithm
from sb3_genoffline.sfbc import SfBC, SfBCPolicy
from sb3_genoffline.spot import SPOT, VAEDensityPolicy
from sb3_genoffline.sql import SQL, SQLPolicy
from sb3_genoffline.td3_bc import TD3BC
from sb3_genoffline.uwac import UWAC, UWACPolicy
from sb3_genoffline.version import __version__

__all__ = [
    "ALGOS",
    "AWAC",
    "BC",
    "BCQ",
    "BEAR",
    "CPED",
    "CQL",
    "DAC",
    "DQL",
    "EQL",
    "IDQL",
    "IQL",
    "MCQ",
    "PLAS",
    "QDQ",
    "SPOT",
    "SQL",
    "TD3BC",
    "UWAC",
    "AWACPolicy",
    "BCPolicy",
    "BEARPolicy",
    "CQLPolicy",
    "ConsistencyQPolicy",
    "DecisionTransformer",
    "DecisionTransformerPolicy",
    "Diffuser",
    "DiffuserPolicy",
    "DiffusionPolicy",
    "DiffusionQLPolicy",
    "EQLPolicy",
    "FlowDensityPolicy",
    "HubError",
    "IDQLPolicy",
    "IQLPolicy",
    "LatentPolicy",
    "MCQPolicy",
    "OfflineAlgorithm",
    "OfflineDataset",
    "Onestep",
    "OnestepPolicy",
    "RecordDatasetCallback",
    "SQLPolicy",
    "SfBC",
    "SfBCPolicy",
    "UWACPolicy",
    "UserError",
    "VAEDensityPolicy",
    "VAEPolicy",
    "__version__",
    "combine",
    "download_from_hub",
    "export_hdf5",
    "export_minari",
    "load_agent",
    "load_dataset",
    "load_from_hub",
    "push_to_hub",
    "register_algorithm",
    "split",
    "with_rewards",
]

register_envs()
