"""What is trained for: a model and its losses, one file a method."""

from rsvl_pretrain.objectives.base import Embeds, Objective
from rsvl_pretrain.objectives.clip import ClipObjective, ContrastiveConfig, number_of_text
from rsvl_pretrain.objectives.farslip import DistillConfig, FarSlipObjective, RegionConfig
from rsvl_pretrain.objectives.rs_m_clip import RsMClipObjective, ViewConfig

__all__ = [
    "ClipObjective",
    "ContrastiveConfig",
    "DistillConfig",
    "Embeds",
    "FarSlipObjective",
    "Objective",
    "RegionConfig",
    "RsMClipObjective",
    "ViewConfig",
    "number_of_text",
]
