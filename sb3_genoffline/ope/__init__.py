"""Offline policy evaluation: estimate what a policy is worth from logs alone."""

from sb3_genoffline.ope.fqe import FQE, Estimate
from sb3_genoffline.ope.report import Judgement, OfflineReport, evaluate_offline
from sb3_genoffline.ope.weighting import ImportanceWeighting

__all__ = ["FQE", "Estimate", "ImportanceWeighting", "Judgement", "OfflineReport", "evaluate_offline"]
