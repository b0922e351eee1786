"""Sets of scene classes: what zero-shot classification is measured on.

Where the facts come from. Classes: EuroSAT, RESISC45, UCM, PatternNet, Million-AID from torchgeo
(https://github.com/microsoft/torchgeo/tree/7ea0616ded0cc27a8feb8b2aafefd7c14155f6fb/torchgeo/datasets), and with them licences
and published lists of splits; AID, WHU-RS19, RSI-CB256, OPTIMAL-31 from AiTLAS
(https://github.com/biasvariancelabs/aitlas/tree/94482bbad02560de3fefbafb58e7fa8dab30a947/aitlas/datasets); fMoW from its home page.
File names (`files_sha256`), folders of RSSCN7 and RSI-CB256, images a class: lists of the archives in
https://github.com/albertofrizzera/VT-RSBS/tree/ded5390c69e227a2d424e7f077ffe312cfa5b771/metadata.
Layout of the benchmark files: https://github.com/wangzhecheng/SkyScript. "Inferred" marks what nobody states.

Hardly any of these sets has an official split. GeoRSCLIP measures on whole sets (`all`), SkyScript and FarSLIP on the tables of
SkyScript, of which those of AID and EuroSAT are a part (`skyscript_test`, so that no two lists share a name).
"""

from evaluation.datasets.class_folders import ClassFolders
from evaluation.datasets.entry import DatasetEntry, OfficialSplit
from evaluation.datasets.tables import LabelTable
from evaluation.prompts import RESISC45_CLASS_NAMES

_GEORSCLIP = "No official split; GeoRSCLIP measures on the whole set."
_SKYSCRIPT = "No official split; SkyScript and FarSLIP measure on the whole set."
_OURS = "No official split; to measure on the whole set is our choice, since papers do not say which images they took."
_IN_DOMAIN = "train, val, test are the 60/20/20 of arXiv:1911.06721, by the lists that torchgeo publishes beside the images."
_WHOLE_TABLE = {"all": "img_txt_pairs_train.csv"}  # SkyScript calls it train; it is the whole set

AID = DatasetEntry(
    name="aid",
    title="AID",
    tasks=("zero-shot",),
    classes=tuple(
        "Airport BareLand BaseballField Beach Bridge Center Church Commercial DenseResidential Desert Farmland Forest "
        "Industrial Meadow MediumResidential Mountain Park Parking Playground Pond Port RailwayStation Resort River School "
        "SparseResidential Square Stadium StorageTanks Viaduct".split()
    ),
    splits=(OfficialSplit("all", 10_000), OfficialSplit("skyscript_test", None)),
    folders=("AID", "AID_dataset"),
    layouts=(LabelTable({"skyscript_test": "aid_img_txt_pairs_test.csv"}), ClassFolders()),
    home="https://captain-whu.github.io/AID/",
    licence="not stated",
    citation="Xia et al., IEEE TGRS 2017, arXiv:1608.05167",
    notes=f"{_GEORSCLIP} 220 to 420 images a class. skyscript_test has 2,000 images (inferred from the scores of FarSLIP).",
)

RESISC45 = DatasetEntry(
    name="resisc45",
    title="NWPU-RESISC45",
    tasks=("zero-shot",),
    classes=tuple(name.replace(" ", "_") for name in RESISC45_CLASS_NAMES),
    splits=(
        OfficialSplit("all", 31_500),
        OfficialSplit("train", 18_900, list_md5="b5a4c05a37de15e4ca886696a85c403e"),
        OfficialSplit("val", 6_300, list_md5="a0770cee4c5ca20b8c32bbd61e114805"),
        OfficialSplit("test", 6_300, list_md5="3dda9e4988b47eb1de9f07993653eb08"),
    ),
    folders=("NWPU-RESISC45", "RESISC45", "nwpu"),
    layouts=(LabelTable(_WHOLE_TABLE), ClassFolders(lists="resisc45-{}.txt")),
    home="https://hf.co/datasets/isaaccorley/resisc45",
    licence="CC-BY-NC-4.0 (as torchgeo says)",
    citation="Cheng et al., Proceedings of the IEEE 2017, arXiv:1703.00121",
    notes=f"The home is a copy; the authors' page was http://www.escience.cn/people/JunweiHan/NWPU-RESISC45.html. {_GEORSCLIP} "
    f"{_IN_DOMAIN} 700 images a class. NWPU-Captions describes these images: a model trained on it has seen them. A copy "
    "with 12 other classes goes by the same name; it is refused.",
)

EUROSAT = DatasetEntry(
    name="eurosat",
    title="EuroSAT RGB",
    tasks=("zero-shot",),
    classes=tuple(
        "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop Residential River SeaLake".split()
    ),
    splits=(
        OfficialSplit("all", 27_000, "60cceb80fff94518c750f60e132ee70dae9408ca5cfbad46c892d74aedadb5a6"),
        OfficialSplit("train", 16_200, list_md5="908f142e73d6acdf3f482c5e80d851b1"),
        OfficialSplit("val", 5_400, list_md5="95de90f2aa998f70a3b2416bfe0687b4"),
        OfficialSplit("test", 5_400, list_md5="7ae5ab94471417b6e315763121e67c5f"),
        OfficialSplit("skyscript_test", None),
    ),
    folders=("EuroSAT", "EuroSAT_RGB", "2750"),
    layouts=(
        LabelTable({"skyscript_test": "eurosat_img_txt_pairs_test.csv"}),
        ClassFolders(lists="eurosat-{}.txt", ending=".jpg"),
    ),
    home="https://github.com/phelber/EuroSAT",
    licence="MIT; contains modified Copernicus Sentinel data",
    citation="Helber et al., IEEE JSTARS 2019, arXiv:1709.00029",
    notes=f"The RGB archive (EuroSAT/2750/CLASS/CLASS_1.jpg). {_GEORSCLIP} {_IN_DOMAIN} 2,000 to 3,000 images a class. "
    "skyscript_test has 2,700 images (inferred from the scores of FarSLIP). CLIP_benchmark's tables draw other splits "
    "again.",
)

UCM = DatasetEntry(
    name="ucm",
    title="UC Merced Land Use",
    tasks=("zero-shot",),
    classes=tuple(
        "agricultural airplane baseballdiamond beach buildings chaparral denseresidential forest freeway golfcourse harbor "
        "intersection mediumresidential mobilehomepark overpass parkinglot river runway sparseresidential storagetanks "
        "tenniscourt".split()
    ),
    splits=(
        OfficialSplit("all", 2_100, "90f41449f85bf844a466f981426f937d05cba0497eb7c0c9823a208179f31d90"),
        OfficialSplit("train", 1_260, list_md5="f2fb12eb2210cfb53f93f063a35ff374"),
        OfficialSplit("val", 420, list_md5="11ecabfc52782e5ea6a9c7c0d263aca0"),
        OfficialSplit("test", 420, list_md5="046aff88472d8fc07c4678d03749e28d"),
    ),
    folders=("UCMerced_LandUse", "UCM", "ucmerced"),
    layouts=(ClassFolders(lists="uc_merced-{}.txt"),),
    home="http://weegee.vision.ucmerced.edu/datasets/landuse.html",
    licence="public domain (USGS imagery)",
    citation="Yang and Newsam, ACM GIS 2010",
    notes=f"{_OURS} {_IN_DOMAIN} 100 images a class, some of them byte for byte the same. UCM-Captions describes these images.",
)

WHU_RS19 = DatasetEntry(
    name="whu-rs19",
    title="WHU-RS19",
    tasks=("zero-shot",),
    classes=tuple(
        "Airport Beach Bridge Commercial Desert Farmland footballField Forest Industrial Meadow Mountain Park Parking Pond "
        "Port railwayStation Residential River Viaduct".split()
    ),
    splits=(OfficialSplit("all", 1_005, "a59eede14768755301120e7cc9da8307d73c624909982f8c2caf3666b275c1f3"),),
    folders=("WHU-RS19", "RS19"),
    layouts=(ClassFolders(),),
    home="https://captain-whu.github.io/BED4RS/",
    licence="not stated",
    citation="Xia et al., ISPRS TC VII Symposium 2010; Dai and Yang, IEEE GRSL 2011",
    notes=f"{_OURS} 50 to 61 images a class.",
)

PATTERNNET = DatasetEntry(
    name="patternnet",
    title="PatternNet",
    tasks=("zero-shot",),
    classes=tuple(
        "airplane baseball_field basketball_court beach bridge cemetery chaparral christmas_tree_farm closed_road "
        "coastal_mansion crosswalk dense_residential ferry_terminal football_field forest freeway golf_course harbor "
        "intersection mobile_home_park nursing_home oil_gas_field oil_well overpass parking_lot parking_space railway river "
        "runway runway_marking shipping_yard solar_panel sparse_residential storage_tank swimming_pool tennis_court "
        "transformer_station wastewater_treatment_plant".split()
    ),
    splits=(OfficialSplit("all", 30_400, "46fc031fb9ab493d97465fd7ea5c3cd4b1c7573300d4666316602f020133a62f"),),
    folders=("PatternNet",),
    layouts=(LabelTable(_WHOLE_TABLE), ClassFolders()),
    home="https://sites.google.com/view/zhouwx/dataset",
    licence="CC-BY-4.0 (as torchgeo says)",
    citation="Zhou et al., ISPRS Journal 2018, arXiv:1706.03424",
    notes=f"{_SKYSCRIPT} 800 images a class.",
)

RSICB256 = DatasetEntry(
    name="rsicb256",
    title="RSI-CB256",
    tasks=("zero-shot",),
    classes=tuple(
        "airplane airport_runway artificial_grassland avenue bare_land bridge city_building coastline container crossroads "
        "dam desert dry_farm forest green_farmland highway hirst lakeshore mangrove marina mountain parkinglot pipeline "
        "residents river river_protection_forest sandbeach sapling sea shrubwood snow_mountain sparse_forest storage_room "
        "stream town".split()
    ),
    splits=(OfficialSplit("all", 24_747, "b7c6bada49f1da7f788e2cb7d976a701ed40e245af3c34fe7c472aa0fcec7018"),),
    folders=("RSI-CB256", "rsicb256", "rsicb"),
    layouts=(LabelTable(_WHOLE_TABLE), ClassFolders()),
    home="https://github.com/lehaifeng/RSI-CB",
    licence="not stated",
    citation="Li et al., Sensors 2020, doi:10.3390/s20061594",
    notes=f"{_SKYSCRIPT} Seven folders of kinds (construction_land, woodland, ...) hold the folders of classes. 198 to 1,331 "
    "images a class. The names hirst and sapling are as published.",
)

FMOW = DatasetEntry(
    name="fmow",
    title="fMoW-rgb",
    tasks=("zero-shot",),
    classes=tuple(
        "airport airport_hangar airport_terminal amusement_park aquaculture archaeological_site barn border_checkpoint "
        "burial_site car_dealership construction_site crop_field dam debris_or_rubble educational_institution "
        "electric_substation factory_or_powerplant fire_station flooded_road fountain gas_station golf_course "
        "ground_transportation_station helipad hospital impoverished_settlement interchange lake_or_pond lighthouse "
        "military_facility multi-unit_residential nuclear_powerplant office_building oil_or_gas_facility park "
        "parking_lot_or_garage place_of_worship police_station port prison race_track railway_bridge recreational_facility "
        "road_bridge runway shipyard shopping_mall single-unit_residential smokestack solar_farm space_facility stadium "
        "storage_tank surface_mine swimming_pool toll_booth tower tunnel_opening waste_disposal water_treatment_facility "
        "wind_farm zoo".split()
    ),
    splits=(OfficialSplit("val", None), OfficialSplit("train", None)),
    folders=("fMoW-rgb", "fmow"),
    layouts=(LabelTable({"val": "fmow_img_txt_pairs_val.csv"}), ClassFolders(level=2, ending="_rgb.jpg")),
    home="https://github.com/fMoW/dataset",
    licence="Functional Map of the World Challenge Public License",
    citation="Christie et al., CVPR 2018, arXiv:1711.07846",
    notes="SkyScript and FarSLIP measure on val. Layout val/CLASS/CLASS_1/CLASS_1_0_rgb.jpg (inferred from the class names "
    "and file names in use; no list seen). Whole images: the challenge itself classifies the box in the .json beside "
    "each image, which is another task. _msrgb.jpg show the same places once more and are passed over. RS5M was made of "
    "fMoW's train.",
)

MILLION_AID = DatasetEntry(
    name="millionaid",
    title="Million-AID",
    tasks=("zero-shot",),
    classes=tuple(
        "apartment apron bare_land baseball_field basketball_court beach bridge cemetery church commercial_area dam desert "
        "detached_house dry_field forest golf_course greenhouse ground_track_field helipad ice_land intersection island lake "
        "meadow mine mobile_home_park oil_field orchard paddy_field parking_lot pier quarry railway river road rock_land "
        "roundabout runway solar_power_plant sparse_shrub_land stadium storage_tank substation swimming_pool tennis_court "
        "terraced_field train_station viaduct wastewater_plant wind_turbine works".split()
    ),
    aliases={"bapsketball_court": "basketball_court"},
    splits=(OfficialSplit("train", 10_000),),
    folders=("Million-AID", "MillionAID"),
    layouts=(LabelTable({"train": "img_txt_pairs_train.csv"}), ClassFolders()),
    home="https://captain-whu.github.io/DiRS/",
    licence="CC BY-NC-ND 4.0 (as the terms of its competition are quoted on the Hub)",
    citation="Long et al., IEEE JSTARS 2021, https://ieeexplore.ieee.org/document/9393553",
    notes="Labels of the test images (990,848) are not public; everybody measures on train, 10,000 images: train/KIND/CLASS/ "
    "or train/KIND/KIND/CLASS/. torchgeo spells one class bapsketball_court; both spellings are read. RS5M was made of "
    "the test images.",
)

SKYSCRIPT_CLS = DatasetEntry(
    name="skyscript-cls",
    title="SkyScript classification",
    tasks=("zero-shot",),
    num_classes=70,
    splits=(OfficialSplit("val", None),),
    folders=("SkyScript_cls",),
    layouts=(LabelTable({"val": "img_txt_pairs_val.csv"}),),
    home="https://opendatasharing.s3.us-west-2.amazonaws.com/SkyScript/benchmark/SkyScript_cls.zip",
    licence="not stated (the code is MIT)",
    citation="Wang et al., AAAI 2024, arXiv:2312.12856",
    notes="In-domain for SkyCLIP. The 70 classes and their order are those of classnames.txt in the archive.",
)

RSSCN7 = DatasetEntry(
    name="rsscn7",
    title="RSSCN7",
    tasks=("zero-shot",),
    classes=("Grass", "Field", "Industry", "RiverLake", "Forest", "Resident", "Parking"),
    aliases={
        "aGrass": "Grass",
        "bField": "Field",
        "cIndustry": "Industry",
        "dRiverLake": "RiverLake",
        "eForest": "Forest",
        "fResident": "Resident",
        "gParking": "Parking",
    },
    splits=(OfficialSplit("all", 2_800, "af54ce0cdcdc9e033d782d9d45c9a51589d6ae1f7204c775dd3ecfed5d75bc0d"),),
    folders=("RSSCN7",),
    layouts=(ClassFolders(),),
    home="https://github.com/palewithout/RSSCN7",
    licence="not stated",
    citation="Zou et al., IEEE GRSL 2015",
    notes=f"{_OURS} 400 images a class. The letter before each folder (aGrass) sorts it and is left out of the class name.",
)

OPTIMAL_31 = DatasetEntry(
    name="optimal-31",
    title="OPTIMAL-31",
    tasks=("zero-shot",),
    classes=tuple(
        "airplane airport baseball_diamond basketball_court beach bridge chaparral church circular_farmland commercial_area "
        "dense_residential desert forest freeway golf_course ground_track_field harbor industrial_area intersection island "
        "lake meadow medium_residential mobile_home_park mountain overpass parking_lot railway rectangular_farmland "
        "roundabout runway".split()
    ),
    splits=(OfficialSplit("all", 1_860, "0136b76c680eb28e9e45e070e7f91e726e881f497817d6a2fcf3b6d7c32b7401"),),
    folders=("OPTIMAL-31", "OPTIMAL31"),
    layouts=(ClassFolders(),),
    home="https://www.kaggle.com/datasets/brajrajnagar/optimal-31",
    licence="not stated",
    citation="Wang et al., IEEE TGRS 2019, doi:10.1109/TGRS.2018.2864987",
    notes=f"{_OURS} 60 images a class. The home is a copy; layout Images/CLASS/CLASS(1).jpg, as the copy has it (inferred for "
    "the original).",
)

SCENE_SETS = (
    AID,
    RESISC45,
    EUROSAT,
    UCM,
    WHU_RS19,
    PATTERNNET,
    RSICB256,
    FMOW,
    MILLION_AID,
    SKYSCRIPT_CLS,
    RSSCN7,
    OPTIMAL_31,
)
