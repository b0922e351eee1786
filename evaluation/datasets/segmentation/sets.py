"""Public sets of images with masks of classes.

Where the facts come from. Palettes and ignore rules: `rsvl_data.mask_files.KNOWN_LEGENDS`, with their sources; UDD5:
https://github.com/MarcWong/UDD. Tiles and the layouts img_dir/, ann_dir/: mmseg 1.2.2 tools/dataset_converters and
https://github.com/likyoo/SegEarth-OV (commit 4496e8b: dataset_prepare.md, tools/dataset_converters, custom_datasets.py). Synonyms: the
cls_*.txt of https://github.com/NJU-LHRS/RS-OVSS at a65c307, which the open-vocabulary numbers of FarSLIP use. Splits of Potsdam and
Vaihingen: the areas of the ISPRS contest, as mmseg's converters list them. "Inferred" marks what nobody states.
"""

from dataclasses import replace

from evaluation.datasets.entry import DatasetEntry, OfficialSplit
from evaluation.datasets.segmentation.masked_files import Labels
from evaluation.datasets.segmentation.paired_files import PairedFiles
from evaluation.datasets.segmentation.tiles import Tiles, square_tiles
from rsvl_data.mask_files import KNOWN_LEGENDS, Legend

_SEGEARTH = "already cut and renamed by a converter: img_dir/SPLIT/ and ann_dir/SPLIT/"


def _ids(names: tuple[str, ...], ignore_index: int | None = None) -> Legend:
    """Masks that hold ids only; 255, the padding of the converters, may occur."""
    return Legend(names, ignore_index=255 if ignore_index is None else ignore_index)


def _converted(labels: Labels, splits: dict[str, str], ending: str = "png", mask_ending: str = r"\.png") -> PairedFiles:
    image, mask = rf"img_dir/{{split}}/(.+)\.{ending}", rf"ann_dir/{{split}}/(.+){mask_ending}"
    return PairedFiles(_SEGEARTH, image, mask, labels, splits)


def _small_copy(labels: Labels, image: str, mask: str) -> PairedFiles:
    return PairedFiles("images/ and masks/ with the same names", image, mask, labels, {"all": "all"})


def _with_synonyms(layouts: tuple[PairedFiles, ...], *synonyms: str) -> tuple[PairedFiles, ...]:
    """Synonyms as RS-OVSS writes them: of each class, joined by commas."""
    return tuple(replace(layout, synonyms=tuple(tuple(phrases.split(",")) for phrases in synonyms)) for layout in layouts)


# --- OpenEarthMap ---------------------------------------------------------------------------------------------------------

_OEM_LEGEND = KNOWN_LEGENDS["OpenEarthMap"]
_OEM_PHRASES = ("bareland,barren", "grass", "pavement", "road", "tree,forest", "water,river", "cropland", "building,roof,house")


def _open_earth_map(name: str, classes: tuple[str, ...], phrases: tuple[str, ...], notes: str) -> DatasetEntry:
    labels = Labels(replace(_OEM_LEGEND, ignore_index=None), classes, ignored=("unknown",))
    official = PairedFiles(
        "REGION/images/*.tif, REGION/labels/*.tif and val.txt, train.txt",
        r"(?:.*/)?images/([^/]+)\.tif",
        r"(?:.*/)?labels/([^/]+)\.tif",
        labels,
        {"val": "val", "train": "train"},
        lists="{split}.txt",
    )
    converted = _converted(labels, {"val": "val"}, ending="tif", mask_ending=r"\.tif")
    return DatasetEntry(
        name=name,
        title="OpenEarthMap",
        family="openearthmap",
        tasks=("segmentation",),
        splits=(OfficialSplit("val", 500), OfficialSplit("train", 3_000)),
        folders=("OpenEarthMap", "OpenEarthMap_wo_xBD"),
        layouts=_with_synonyms((official, converted), *phrases),
        home="https://open-earth-map.org",
        licence="labels as the images they were drawn on: CC BY-NC-SA 4.0 and others, a region each (inferred)",
        citation="Xia et al., WACV 2023, arXiv:2210.10732",
        notes=f"{notes} The images of xBD are not in the archive, so the note of a result says how many are there. Labels of test "
        "are withheld.",
        classes=classes,
    )


OPEN_EARTH_MAP = _open_earth_map(
    "openearthmap", _OEM_LEGEND.classes[1:], _OEM_PHRASES, "Eight classes; id 0 (unknown) is ignored, as its authors do."
)
OPEN_EARTH_MAP_9 = _open_earth_map(
    "openearthmap-9",
    _OEM_LEGEND.classes,
    ("background", *_OEM_PHRASES),
    "Nine classes: id 0 (unknown) is counted, asked for as background, as SegEarth-OV and RS-OVSS do.",
)

# --- LoveDA ---------------------------------------------------------------------------------------------------------------

_LOVEDA_LEGEND = KNOWN_LEGENDS["LoveDA"]
_LOVEDA_LABELS = Labels(_LOVEDA_LEGEND, _LOVEDA_LEGEND.classes[1:])

LOVEDA = DatasetEntry(
    name="loveda",
    title="LoveDA",
    tasks=("segmentation",),
    splits=(OfficialSplit("val", 1_669), OfficialSplit("train", 2_522)),
    folders=("LoveDA", "loveda_sample"),
    layouts=_with_synonyms(
        (
            PairedFiles(
                "Val/Rural/images_png/*.png and masks_png/, the same for Urban and Train",
                r"(?:.*/)?{split}/(?:Rural|Urban)/images_png/(\d+)\.png",
                r"(?:.*/)?{split}/(?:Rural|Urban)/masks_png/(\d+)\.png",
                _LOVEDA_LABELS,
                {"val": "Val", "train": "Train"},
            ),
            _converted(_LOVEDA_LABELS, {"val": "val", "train": "train"}),
            _small_copy(_LOVEDA_LABELS, r"images/(\d+)\.(?:jpg|png)", r"masks/(\d+)\.png"),
        ),
        *("background", "building,roof,house", "road", "water", "barren", "forest", "agricultural"),
    ),
    home="https://github.com/Junjue-Wang/LoveDA",
    licence="CC BY-NC-SA 4.0, academic use",
    citation="Wang et al., NeurIPS Datasets 2021, arXiv:2110.08733",
    notes="Ids in the files are 0 no data (ignored) and 1 to 7; classes here are 0 to 6, background is one of them. Labels of test are "
    "withheld.",
    classes=_LOVEDA_LABELS.classes,
)

# --- ISPRS Potsdam and Vaihingen --------------------------------------------------------------------------------------------

_ISPRS_LEGEND = KNOWN_LEGENDS["ISPRS"]
_ISPRS_CLASSES = _ISPRS_LEGEND.classes[:6]
_ISPRS_COLOURS = Labels(_ISPRS_LEGEND, _ISPRS_CLASSES)
_ISPRS_IDS = Labels(_ids(("boundary", *_ISPRS_CLASSES), ignore_index=0), _ISPRS_CLASSES)  # as mmseg's converters number them
_POTSDAM_TEST = frozenset("2_13 2_14 3_13 3_14 4_13 4_14 4_15 5_13 5_14 5_15 6_13 6_14 6_15 7_13".split())
_POTSDAM_TRAIN = frozenset(
    "2_10 2_11 2_12 3_10 3_11 3_12 4_10 4_11 4_12 5_10 5_11 5_12 6_7 6_8 6_9 6_10 6_11 6_12 7_7 7_8 7_9 7_10 7_11 7_12".split()
)
_VAIHINGEN_TEST = frozenset("2 4 6 8 10 12 14 16 20 22 24 27 29 31 33 35 38".split())
_VAIHINGEN_TRAIN = frozenset("1 3 5 7 11 13 15 17 21 23 26 28 30 32 34 37".split())
_ISPRS_TERMS = "ISPRS benchmark, research use; the German Association of Photogrammetry (DGPF) provides Vaihingen"
_WITHOUT_BOUNDARY = (
    "Three pixels around every border are left out (the `noBoundary` files), as published numbers do. Tiles of 512 px. Clutter is a "
    "class: `GeoSeg` and others leave it out of the means."
)
_WITH_BOUNDARY = "All pixels are counted, borders too: numbers are lower. Tiles of 512 px."


def _isprs(
    name: str, image: str, mask: str, test: frozenset[str], train: frozenset[str], only_files: str
) -> tuple[PairedFiles, ...]:
    official = PairedFiles(
        only_files,
        image,
        mask,
        _ISPRS_COLOURS,
        {"test": "test", "train": "train"},
        only={"test": test, "train": train},
        tiles=square_tiles(512),
    )
    road = "road,parking lot" if name == "potsdam" else "impervious surface"
    clutter = "clutter,background" if name == "potsdam" else "clutter"
    converted = _converted(_ISPRS_IDS, {"test": "val", "train": "train"})
    small = _small_copy(_ISPRS_IDS, r"images/(.+)\.png", r"masks/(.+)\.png")
    return _with_synonyms((official, converted, small), road, "building", "low vegetation", "tree", "car", clutter)


def _potsdam(name: str, mask: str, notes: str) -> DatasetEntry:
    return DatasetEntry(
        name=name,
        title="ISPRS Potsdam",
        family="potsdam",
        tasks=("segmentation",),
        splits=(OfficialSplit("test", 14), OfficialSplit("train", 24)),
        folders=("Potsdam", "ISPRS_Potsdam"),
        layouts=_isprs(
            *("potsdam", r"(?:.*/)?top_potsdam_(\d+_\d+)_RGB\.tif", rf"(?:.*/)?top_potsdam_(\d+_\d+)_{mask}\.tif"),
            *(_POTSDAM_TEST, _POTSDAM_TRAIN, f"2_Ortho_RGB/top_potsdam_*_RGB.tif and top_potsdam_*_{mask}.tif"),
        ),
        home="https://www.isprs.org/education/benchmarks/UrbanSemLab/2d-sem-label-potsdam.aspx",
        licence=_ISPRS_TERMS,
        citation="Rottensteiner et al., ISPRS Annals 2012",
        notes=f"{notes} Labels of 7_10 (train) are known to be bad.",
        classes=_ISPRS_CLASSES,
    )


def _vaihingen(name: str, mask: str, notes: str) -> DatasetEntry:
    return DatasetEntry(
        name=name,
        title="ISPRS Vaihingen",
        family="vaihingen",
        tasks=("segmentation",),
        splits=(OfficialSplit("test", 17), OfficialSplit("train", 16)),
        folders=("Vaihingen", "ISPRS_Vaihingen", "isprs_vaihingen_sample"),
        layouts=_isprs(
            *("vaihingen", r"(?:.*/)?top/top_mosaic_09cm_area(\d+)\.tif", rf"(?:.*/)?{mask}\.tif"),
            *(_VAIHINGEN_TEST, _VAIHINGEN_TRAIN, "top/top_mosaic_09cm_area*.tif and the ground truth beside it"),
        ),
        home="https://www.isprs.org/education/benchmarks/UrbanSemLab/2d-sem-label-vaihingen.aspx",
        licence=_ISPRS_TERMS,
        citation="Rottensteiner et al., ISPRS Annals 2012",
        notes=f"{notes} Near infrared, red and green stand where a model expects red, green and blue.",
        classes=_ISPRS_CLASSES,
    )


POTSDAM = _potsdam("potsdam", "label_noBoundary", _WITHOUT_BOUNDARY)
POTSDAM_BOUNDARY = _potsdam("potsdam-boundary", "label", _WITH_BOUNDARY)
VAIHINGEN = _vaihingen("vaihingen", r"top_mosaic_09cm_area(\d+)_noBoundary", _WITHOUT_BOUNDARY)
VAIHINGEN_BOUNDARY = _vaihingen(
    "vaihingen-boundary", r"[^/]*(?:ground_truth_COMPLETE|gts_for_participants)/top_mosaic_09cm_area(\d+)", _WITH_BOUNDARY
)

# --- iSAID ----------------------------------------------------------------------------------------------------------------

_ISAID_LEGEND = KNOWN_LEGENDS["iSAID"]
_ISAID_COLOURS = Labels(_ISAID_LEGEND, _ISAID_LEGEND.classes)
_ISAID_IDS = Labels(replace(_ISAID_LEGEND, ignore_index=255), _ISAID_LEGEND.classes)

ISAID = DatasetEntry(
    name="isaid",
    title="iSAID",
    tasks=("segmentation",),
    splits=(OfficialSplit("val", 458), OfficialSplit("train", 1_411)),
    folders=("iSAID", "isaid_sample"),
    layouts=(
        PairedFiles(
            "val/images/**/P0003.png and val/Semantic_masks/**/P0003_instance_color_RGB.png",
            r"(?:.*/)?{split}/(?:.*/)?(P\d+)\.png",
            r"(?:.*/)?{split}/(?:.*/)?(P\d+)_instance_color_RGB\.png",
            _ISAID_COLOURS,
            {"val": "val", "train": "train"},
            tiles=square_tiles(896, overlap_px=384),
        ),
        _converted(_ISAID_IDS, {"val": "val", "train": "train"}, mask_ending=r"_instance_color_RGB\.png"),
        _small_copy(_ISAID_COLOURS, r"images/(P\d+)\.(?:jpg|png)", r"masks/(P\d+)_instance_color_RGB\.png"),
    ),
    home="https://captain-whu.github.io/iSAID/dataset.html",
    licence="academic use only",
    citation="Zamir et al., CVPRW 2019, arXiv:1905.12886",
    notes="Tiles of 896 px that overlap by 384: 33,978 of train, 11,644 of val. Background is a class and raises the mean over 16 "
    "by about two points: give the mean over the other 15 as well. Images are those of DOTA-v1.0.",
    classes=_ISAID_LEGEND.classes,
)

# --- UAVid, UDD5, VDD -------------------------------------------------------------------------------------------------------

_UAVID_LEGEND = KNOWN_LEGENDS["UAVid"]
_UAVID_7 = ("background", "building", "road", "car", "tree", "vegetation", "human")
_UAVID_MERGED = (
    *(("clutter", "background"), ("moving car", "car"), ("static car", "car")),
    ("low vegetation", "vegetation"),
)


def _uavid(name: str, labels: Labels, tiles: Tiles | None, converted: tuple[PairedFiles, ...], notes: str) -> DatasetEntry:
    official = PairedFiles(
        "uavid_val/seq16/Images/*.png and Labels/",
        r"(?:.*/)?(?:uavid_)?{split}(?:_gt)?/(seq\d+)/Images/(\d+)\.png",
        r"(?:.*/)?(?:uavid_)?{split}(?:_gt)?/(seq\d+)/Labels/(\d+)\.png",
        labels,
        {"test": "test", "val": "val", "train": "train"},
        tiles=tiles,
    )
    return DatasetEntry(
        name=name,
        title="UAVid",
        family="uavid",
        tasks=("segmentation",),
        splits=(OfficialSplit("test", 150), OfficialSplit("val", 70), OfficialSplit("train", 200)),
        folders=("UAVid",),
        layouts=(official, *converted),
        home="https://uavid.nl",
        licence="CC BY-NC-SA 4.0",
        citation="Lyu et al., ISPRS Journal 2020, arXiv:1810.10438",
        notes=f"{notes} Oblique views. Test labels were withheld at first; a copy without them has val.",
        classes=labels.classes,
    )


UAVID = _uavid("uavid", Labels(_UAVID_LEGEND, _UAVID_LEGEND.classes), None, (), "The eight classes of its authors, whole images.")
UAVID_7 = _uavid(
    "uavid-7",
    Labels(_UAVID_LEGEND, _UAVID_7, _UAVID_MERGED),
    Tiles(1280, 1080, 1280, 1080),
    (_converted(Labels(_ids(_UAVID_7), _UAVID_7), {"test": "test"}),),
    "Seven classes in the order of SegEarth-OV and RS-OVSS: moving and static car are one; tiles of 1280 x 1080.",
)

_UDD5_CLASSES = ("vegetation", "building", "road", "vehicle", "other")
_UDD5_LEGEND = Legend(_UDD5_CLASSES, ((107, 142, 35), (102, 102, 156), (128, 64, 128), (0, 0, 142), (0, 0, 0)), ignore_index=255)
_VDD_CLASSES = ("other", "wall", "road", "vegetation", "vehicle", "roof", "water")


def _src_gt(labels: Labels, splits: dict[str, str]) -> PairedFiles:
    return PairedFiles(
        "SPLIT/src/*.JPG and SPLIT/gt/*.png",
        r"(?:.*/)?{split}/src/([^/]+)\.(?:JPG|jpg|png)",
        r"(?:.*/)?{split}/gt/([^/]+)\.png",
        labels,
        splits,
    )


UDD5 = DatasetEntry(
    name="udd5",
    title="UDD5",
    tasks=("segmentation",),
    splits=(OfficialSplit("val", None), OfficialSplit("train", None)),
    folders=("UDD5", "UDD-5"),
    layouts=_with_synonyms(
        (_src_gt(Labels(_UDD5_LEGEND, _UDD5_CLASSES), {"val": "val", "train": "train"}),),
        *("vegetation", "building", "road", "vehicle", "background"),
    ),
    home="https://github.com/MarcWong/UDD",
    licence="non-commercial use",
    citation="Chen et al., PRCV 2018",
    notes="Five classes; other is one of them, asked for as background. UDD6 is another set with other ids.",
    classes=_UDD5_CLASSES,
)

VDD = DatasetEntry(
    name="vdd",
    title="VDD",
    tasks=("segmentation",),
    splits=(OfficialSplit("test", 40), OfficialSplit("val", 80), OfficialSplit("train", 280)),
    folders=("VDD",),
    layouts=_with_synonyms(
        (_src_gt(Labels(_ids(_VDD_CLASSES), _VDD_CLASSES), {"test": "test", "val": "val", "train": "train"}),),
        *("background", "facade", "road", "vegetation", "vehicle", "roof", "water"),
    ),
    home="https://github.com/RussRobin/VDD",
    licence="non-commercial use",
    citation="Cai et al., 2023, arXiv:2305.13608",
    notes="Ids 0 to 6 in the masks (inferred from SegEarth-OV); 400 images, their division 280/80/40 is inferred.",
    classes=_VDD_CLASSES,
)

# --- small sets -----------------------------------------------------------------------------------------------------------

_ROADS_LEGEND = Legend(("background", "road"), ((0, 0, 0), (255, 255, 255)), binary=True)
_VHR10_CLASSES = (
    *("background", "airplane", "ship", "storage tank", "baseball diamond", "tennis court", "basketball court"),
    *("ground track field", "harbor", "bridge", "vehicle"),
)

EPFL_ROADS = DatasetEntry(
    name="epfl-roads",
    title="EPFL roads",
    tasks=("segmentation",),
    splits=(OfficialSplit("all", None),),
    folders=("epfl_roads",),
    layouts=(_small_copy(Labels(_ROADS_LEGEND, _ROADS_LEGEND.classes), r"images/(.+)\.(?:jpg|png)", r"masks/(.+)\.png"),),
    home="https://github.com/mhamas/road-extraction-from-aerial-images",
    licence="not stated",
    citation="EPFL CS-433 course project",
    notes="Tiles of 400 px with soft edges in the masks: road where the value is above 127. No official split.",
    classes=_ROADS_LEGEND.classes,
)

NWPU_VHR10 = DatasetEntry(
    name="nwpu-vhr10",
    title="NWPU VHR-10, polygons as masks",
    family="nwpu-vhr10",
    tasks=("segmentation",),
    splits=(OfficialSplit("all", None),),
    folders=("nwpu_vhr10",),
    layouts=(_small_copy(Labels(_ids(_VHR10_CLASSES), _VHR10_CLASSES), r"images/(\d+)\.jpg", r"semantic_masks/(\d+)\.png"),),
    home="https://github.com/chaozhong2010/VHR-10_dataset_coco",
    licence="annotations MIT, images for research",
    citation="Cheng et al., ISPRS Journal 2014; Su et al., IGARSS 2019",
    notes="Masks drawn from the polygons of instances, largest first; not a published segmentation set.",
    classes=_VHR10_CLASSES,
)

SEGMENTATION_SETS = (
    *(OPEN_EARTH_MAP, OPEN_EARTH_MAP_9, LOVEDA, POTSDAM, POTSDAM_BOUNDARY, VAIHINGEN, VAIHINGEN_BOUNDARY, ISAID),
    *(UAVID, UAVID_7, UDD5, VDD, EPFL_ROADS, NWPU_VHR10),
)
