"""The scene types: what each is called in a sentence, how fine it is seen, where it lies, and who lays it out."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rsvl_data.scenes import countryside, leisure, nature, transport, urban
from rsvl_data.scenes.canvas import Canvas


@dataclass(frozen=True)
class SceneType:
    """`phrase` names one scene of the type and holds the type's own words; `gsd_m` is the range at 256 pixels."""

    phrase: str
    gsd_m: tuple[float, float]
    places: str
    lay_out: Callable[[Canvas, np.random.Generator], None]


TYPES: dict[str, SceneType] = {
    "airport": SceneType("an airport", (2.3, 3.2), "anywhere", transport.airport),
    "bare land": SceneType("a stretch of bare land", (1.0, 6.0), "dry", nature.bare_land),
    "baseball field": SceneType("a baseball field", (0.7, 1.3), "land", leisure.baseball_field),
    "beach": SceneType("a beach", (0.5, 1.0), "coast", nature.beach),
    "bridge": SceneType("a bridge", (0.8, 1.5), "land", transport.bridge),
    "dense residential": SceneType("a dense residential area", (0.5, 0.75), "anywhere", urban.dense_residential),
    "farmland": SceneType("a tract of farmland", (2.0, 5.0), "anywhere", countryside.farmland),
    "forest": SceneType("a forest", (0.6, 2.4), "land", nature.forest),
    "golf course": SceneType("a golf course", (1.6, 2.4), "land", leisure.golf_course),
    "greenhouses": SceneType("a cluster of greenhouses", (0.6, 1.0), "anywhere", countryside.greenhouses),
    "harbor": SceneType("a harbor", (0.6, 1.9), "coast", transport.harbor),
    "highway interchange": SceneType("a highway interchange", (1.1, 1.6), "anywhere", transport.highway_interchange),
    "industrial area": SceneType("an industrial area", (0.9, 1.5), "anywhere", urban.industrial_area),
    "island": SceneType("an island", (1.5, 5.0), "islands", nature.island),
    "lake": SceneType("a lake", (2.0, 6.0), "land", nature.lake),
    "meadow": SceneType("a meadow", (0.6, 1.6), "land", countryside.meadow),
    "orchard": SceneType("an orchard", (0.4, 0.7), "land", countryside.orchard),
    "parking lot": SceneType("a parking lot", (0.3, 0.38), "anywhere", transport.parking_lot),
    "railway": SceneType("a railway", (0.5, 0.9), "anywhere", transport.railway),
    "river": SceneType("a river", (2.5, 6.0), "land", nature.river),
    "roundabout": SceneType("a roundabout", (0.45, 0.65), "anywhere", transport.roundabout),
    "snow mountain": SceneType("a snow mountain", (6.0, 10.0), "peaks", nature.snow_mountain),
    "solar farm": SceneType("a solar farm", (0.6, 1.1), "anywhere", urban.solar_farm),
    "sparse residential": SceneType("a sparse residential area", (0.6, 0.9), "land", urban.sparse_residential),
    "stadium": SceneType("a stadium", (1.25, 1.7), "anywhere", leisure.stadium),
    "storage tanks": SceneType("a group of storage tanks", (1.0, 1.7), "coast", urban.storage_tanks),
    "tennis courts": SceneType("a group of tennis courts", (0.45, 0.65), "anywhere", leisure.tennis_courts),
}
SCENE_TYPES: tuple[str, ...] = tuple(TYPES)
