"""The algorithms by name. A new one is a folder and a line here; the parametrised tests pick it up."""

from sb3_genoffline.common.offline_algorithm import OfflineAlgorithm
from sb3_genoffline.cped import CPED
from sb3_genoffline.dac import DAC
from sb3_genoffline.dql import DQL
from sb3_genoffline.qdq import QDQ

ALGOS: dict[str, type[OfflineAlgorithm]] = {"cped": CPED, "dac": DAC, "dql": DQL, "qdq": QDQ}
