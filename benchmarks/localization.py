"""Semantic localisation: ours against the official scripts of AIR-SLT, with a stub encoder that costs nothing.

    git clone https://github.com/xiaoyuan1996/SemanticLocalizationMetrics PEER
    pip install --target PEER_LIBRARIES opencv-python-headless scikit-image scipy
    python -m benchmarks.localization --peer-folder PEER --peer-path PEER_LIBRARIES     # writes benchmarks/results/localization.json

One scene of 2,000 x 3,000 px from a seed, windows of 256, 512 and 768 px, one sentence. The peer's `split_image` and `generate_heatmap`
are run as they are, from its file; only its encoder is ours: the mean colour of an image against a colour. Time is read at three places:
  similarity   cutting and encoding the windows. The peer goes through JPEG files.
  map          similarities to the map before the blur: the peer's loop over pixels, our cells
  total        from the scene in memory or file to the four indicators; cpu is its CPU time
From equal similarities both must make the same map, and from equal maps the same indicators: else the benchmark fails.
"""

import importlib.util
import logging
import sys
import tempfile
import time
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from benchmarks import measure

SCALES_PX, REGION = (256, 512, 768), [[1150.0, 700.0], [1690.0, 700.0], [1690.0, 1210.0], [1150.0, 1210.0]]
COLOUR = np.array([0.9, 0.3, 0.1])
SMALLEST_MAP_RATIO, SMALLEST_TOTAL_RATIO = 5.0, 2.0


@dataclass(frozen=True)
class Options:
    """Semantic localisation against the authors' scripts."""

    peer_folder: Path | None = None
    """clone of SemanticLocalizationMetrics"""
    peer_path: Path | None = None
    """folder with OpenCV, scikit-image and scipy, made by pip install --target"""
    out: Path = Path(__file__).parent / "results" / "localization.json"
    """the result file"""
    height_px: int = 2000
    """of the scene"""
    width_px: int = 3000
    """of the scene"""
    rounds: int = 3
    """of both in turn"""
    data: Path = Path(tempfile.gettempdir()) / "rsvl-bench-localization"
    """where the scene and what is compared are written"""
    role: Literal["all", "peer", "ours"] = "all"
    """the others are what the benchmark runs in processes of their own"""


def scene_path(options: Options) -> Path:
    return options.data / f"scene_{options.height_px}x{options.width_px}.png"


def make_scene(options: Options) -> None:
    """Smooth colour fields with a patch of the colour that is looked for."""
    from PIL import Image

    if scene_path(options).exists():
        return
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(30, 220, (20, 30, 3), dtype=np.uint8))
    pixels = np.array(coarse.resize((options.width_px, options.height_px), Image.Resampling.BICUBIC))
    pixels[700:1210, 1150:1690] = (230, 77, 26)
    options.data.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(scene_path(options))


def colour_similarity(mean_rgb: np.ndarray) -> np.ndarray:
    return mean_rgb @ COLOUR / np.linalg.norm(mean_rgb, axis=-1) / np.linalg.norm(COLOUR)


# --- The peer ---


def peer_modules(folder: Path) -> tuple[Any, Any]:
    """`generate_selo` and `SLM`, with the encoder exchanged. Its model files ask for a GPU and are not loaded."""
    from PIL import Image

    class Encoder:
        def __init__(self, model: Any): ...
        def text_encoder(self, model: Any, vocab: Any, text: str) -> np.ndarray:
            return COLOUR

        def image_encoder(self, model: Any, path: str) -> np.ndarray:
            return np.asarray(Image.open(path).convert("RGB"), dtype=np.float64).mean((0, 1))

        def cosine_sim(self, text: np.ndarray, image: np.ndarray) -> float:
            return float(colour_similarity(image))

    for name, attribute, value in (("model_encoder", "Encoder", Encoder), ("model_init", "model_init", None)):
        stub = types.ModuleType(name)
        setattr(stub, attribute, value)
        sys.modules[name] = stub
    sys.path[:0] = [str(folder), str(folder / "predict")]
    logging.disable(logging.CRITICAL)
    spec = importlib.util.spec_from_file_location("generate_selo", folder / "predict" / "generate_selo.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module).update(model=None, vocab=None, logger=logging.getLogger("peer"))
    return module, vars(module)["SLM"]()


def run_peer(options: Options) -> measure.Measured:
    assert options.peer_folder is not None
    peer, slm = peer_modules(options.peer_folder)
    with tempfile.TemporaryDirectory() as cache:
        probability = str(Path(cache) / "probability.png")  # lossless, so that the maps can be compared; the scripts say .jpg
        names = [str(Path(cache) / name) for name in ("heat.jpg", "overlay.jpg")]
        start, cpu_start = time.perf_counter(), measure.cpu_seconds()
        split_s = peer.split_image(str(scene_path(options)), SCALES_PX, cache)
        similarity_s, map_s, blur_s = peer.generate_heatmap(str(scene_path(options)), "a colour", *names, probability, cache)
        found = slm.evaluate(probability, [REGION])
        total_s, cpu_s = time.perf_counter() - start, measure.cpu_seconds() - cpu_start
        import cv2

        np.save(options.data / "peer_map.npy", cv2.imread(probability, cv2.IMREAD_GRAYSCALE))
    values = {name.split()[1].lower(): float(value) for name, value in found.items()}
    versions = measure.versions("opencv-python-headless", "numpy")
    seconds = {"similarity_s": split_s + similarity_s, "map_s": map_s, "blur_s": blur_s, "total_s": total_s, "cpu_s": cpu_s}
    return seconds | {"indicators": values, "versions": versions}


# --- Ours ---


def run_ours(options: Options) -> measure.Measured:
    """The windows go the way of `embed_images`' input, through `WindowSet`; the mean colour stands for preprocessing and encoder."""
    import io

    from PIL import Image

    from evaluation.localization_map import grey_levels, mean_similarity, median_blur, windows
    from evaluation.metrics.localization import localization
    from evaluation.scene_windows import WindowSet, open_scene

    start, cpu_start = time.perf_counter(), measure.cpu_seconds()
    with open_scene(scene_path(options)) as scene:
        size = (scene.height, scene.width)
        seen = sorted(windows(*size, SCALES_PX, "semantic_localization_metrics"))
        crops = WindowSet(scene, "scene", seen, "semantic_localization_metrics")
        images = (np.asarray(Image.open(io.BytesIO(crops.image(i))), dtype=np.float64) for i in range(len(seen)))
        similarity = colour_similarity(np.stack([image.mean((0, 1)) for image in images]))
    similarity_s = time.perf_counter() - start
    began_map = time.perf_counter()
    pixels = mean_similarity(seen, similarity, *size).pixels()  # the cells are enough for us; the peer's map has pixels
    map_s = time.perf_counter() - began_map
    began_blur = time.perf_counter()
    levels = median_blur(grey_levels(mean_similarity(seen, similarity, *size)))
    blur_s = time.perf_counter() - began_blur
    found = localization(levels, [REGION], "semantic_localization_metrics")
    total_s, cpu_s = time.perf_counter() - start, measure.cpu_seconds() - cpu_start
    np.save(options.data / "ours_map.npy", levels)
    plain = plain_map(seen, similarity, *size)
    values = {name: getattr(found, name) for name in ("rsu", "ras", "rda", "rmi")}
    seconds = {"similarity_s": similarity_s, "map_s": map_s, "blur_s": blur_s, "total_s": total_s, "cpu_s": cpu_s}
    return seconds | {"indicators": values, "largest_map_error": float(np.abs(plain - pixels).max()), "windows": len(seen)}


def plain_map(seen: list[Any], similarity: np.ndarray, height: int, width: int) -> np.ndarray:
    total, count = np.zeros((height, width)), np.zeros((height, width))
    for (top, bottom, left, right), value in zip(seen, similarity):
        total[top:bottom, left:right] += value
        count[top:bottom, left:right] += 1
    return total / count


# --- Both ---


def contender(options: Options, role: str) -> measure.Measured:
    arguments = [f"--data={options.data}", f"--height-px={options.height_px}", f"--width-px={options.width_px}", f"--role={role}"]
    if role == "peer":
        arguments.append(f"--peer-folder={options.peer_folder}")
    return measure.measure_in_fresh_process(__file__, arguments, path_first=options.peer_path if role == "peer" else None)


def check(options: Options, found: dict[str, measure.Measured]) -> dict[str, float]:
    """Raises RuntimeError for numbers that differ by more than the peer's JPEG files explain: a grey level or two in the windows."""
    from evaluation.metrics.localization import localization

    ours, theirs = (np.load(options.data / f"{role}_map.npy").astype(int) for role in ("ours", "peer"))
    difference = float(np.abs(ours - theirs).max())
    again = localization(theirs.astype(np.uint8), [REGION], "semantic_localization_metrics")
    of_equal_maps = max(abs(getattr(again, name) - value) for name, value in found["peer"]["indicators"].items())
    own = found["ours"]["indicators"]
    of_whole = max(abs(own[name] - value) for name, value in found["peer"]["indicators"].items())
    if difference > 4 or of_equal_maps > 1e-6 or of_whole > 0.02 or found["ours"]["largest_map_error"] > 1e-9:
        raise RuntimeError(f"outputs differ: map {difference} levels, indicators {of_equal_maps} and {of_whole}, {found}")
    return {"map_levels": difference, "indicators_of_equal_maps": of_equal_maps, "indicators": of_whole}


def main(options: Options) -> None:
    if options.role != "all":
        measure.report(run_peer(options) if options.role == "peer" else run_ours(options))
        return
    if options.peer_folder is None:
        raise SystemExit("--peer-folder is missing: the clone that the docstring names")
    make_scene(options)
    rounds = measure.alternate({role: lambda role=role: contender(options, role) for role in ("peer", "ours")}, options.rounds)
    differences = [check(options, each) for each in rounds]
    parts = ("similarity", "map", "blur", "total", "cpu")
    ratios = {
        name: measure.median_and_range([each["peer"][f"{name}_s"] / each["ours"][f"{name}_s"] for each in rounds])
        for name in parts
    }
    seconds = {
        role: {f"{name}_s": measure.median_and_range([each[role][f"{name}_s"] for each in rounds]) for name in parts}
        for role in ("peer", "ours")
    }
    least = {"map": SMALLEST_MAP_RATIO, "total": SMALLEST_TOTAL_RATIO}
    result = {
        "setting": {"height_px": options.height_px, "width_px": options.width_px, "windows": rounds[0]["ours"]["windows"]},
        "rounds": options.rounds,
        "missed": [name for name, smallest in least.items() if ratios[name]["median"] < smallest],
        "ratio": ratios,
        **seconds,
        "peak_rss_mib": {role: rounds[0][role]["peak_rss_mib"]["process"] for role in ("peer", "ours")},
        "largest_difference": {name: max(each[name] for each in differences) for name in differences[0]},
        "versions": {"peer": rounds[0]["peer"]["versions"], "ours": measure.versions("numpy", "torch", "pillow")},
    }
    measure.write_result(options.out, "localization", result)


if __name__ == "__main__":
    main(tyro.cli(Options))
