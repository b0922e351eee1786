"""Procedural overhead scenes: image, mask, objects, captions and geo facts from a seed. The built-in data."""

from rsvl_data.scenes.land_cover import LAND_COVER, LAND_COVER_PALETTE
from rsvl_data.scenes.objects import OBJECT_CATEGORIES
from rsvl_data.scenes.refer import referents
from rsvl_data.scenes.render import Scene, render_scene
from rsvl_data.scenes.types import SCENE_TYPES

__all__ = ["LAND_COVER", "LAND_COVER_PALETTE", "OBJECT_CATEGORIES", "SCENE_TYPES", "Scene", "referents", "render_scene"]
