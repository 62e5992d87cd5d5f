"""Decision Transformer: a sequence model that is asked for a return."""

from sb3_genoffline.decision_transformer.decision_transformer import DecisionTransformer
from sb3_genoffline.decision_transformer.policies import DecisionTransformerPolicy

__all__ = ["DecisionTransformer", "DecisionTransformerPolicy"]
