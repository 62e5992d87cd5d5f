"""The algorithms by name. A new one is a folder and a line here; the parametrised tests pick it up."""

from sb3_genoffline.awac import AWAC
from sb3_genoffline.bc import BC
from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.cped import CPED
from sb3_genoffline.cql import CQL
from sb3_genoffline.dac import DAC
from sb3_genoffline.dql import DQL
from sb3_genoffline.iql import IQL
from sb3_genoffline.qdq import QDQ
from sb3_genoffline.spot import SPOT
from sb3_genoffline.td3_bc import TD3BC

ALGOS: dict[str, type[OfflineAlgorithm]] = {
    "awac": AWAC,
    "bc": BC,
    "cped": CPED,
    "cql": CQL,
    "dac": DAC,
    "dql": DQL,
    "iql": IQL,
    "qdq": QDQ,
    "spot": SPOT,
    "td3_bc": TD3BC,
}
