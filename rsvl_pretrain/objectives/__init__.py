"""What is trained for: a model and its losses, one file a method."""

from rsvl_pretrain.objectives.base import Embeds, Objective
from rsvl_pretrain.objectives.clip import ClipObjective, ContrastiveConfig, number_of_text

__all__ = ["ClipObjective", "ContrastiveConfig", "Embeds", "Objective", "number_of_text"]
