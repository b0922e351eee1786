"""Sets of images with captions: what retrieval is measured on.

Where the facts come from. Splits: counts as the papers of RS5M and RS-M-CLIP quote them; file names (`files_sha256`) of RSICD, RSITMD,
UCM-Captions, Sydney-Captions from https://github.com/albertofrizzera/VT-RSBS/tree/ded5390c69e227a2d424e7f077ffe312cfa5b771/metadata, made
of the JSON files of the authors (for RSITMD, train there is split again; the two parts together are the authors' train). Layouts: RSICD and
the captions of UCM and Sydney as torchrs reads them (https://github.com/isaaccorley/torchrs), RSITMD from
https://github.com/xiaoyuan1996/AMFMN/tree/master/RSITMD, NWPU-Captions as its users read it, the tables of SkyScript and GeoRSCLIP from
their evaluation code. "Inferred" marks what nobody states.

All captions of an image count, repeated ones too; who merges them (SkyScript does) is the protocol's business.
"""

from evaluation.datasets.entry import DatasetEntry, OfficialSplit
from evaluation.datasets.gaia_records import GaiaRecords
from evaluation.datasets.karpathy import KarpathyJson, NwpuJson
from evaluation.datasets.tables import PairTable

_QU = "Qu et al., CITS 2016"
_RSICD_HOME = "https://github.com/201528014227051/RSICD_optimal"

RSICD = DatasetEntry(
    name="rsicd",
    title="RSICD",
    tasks=("retrieval",),
    splits=(
        OfficialSplit("test", 1_093, "b9b7556608dd11319e1094bca5999c6241d5796d01f40734198c6e3605b304a7"),
        OfficialSplit("val", 1_094, "05bb4609fe1fdb27a1b9854b766aa4e844d22cde54387112c312ec012938ea62"),
        OfficialSplit("train", 8_734, "3d21b11d4a69c6704e2e9c1536c4d1c366ae6875c8b43abf4042f87b0e5ed692"),
    ),
    folders=("RSICD", "RSICD_optimal", "RSICD_optimal-master"),
    layouts=(
        KarpathyJson(("dataset_rsicd.json",), ("RSICD_images", "images", ".")),
        PairTable({"test": "RSICD_img_txt_pairs_test.csv"}),
        PairTable({"test": "rsicd_test.csv"}, image="filename", images=("RSICD_images", "images")),
    ),
    home=_RSICD_HOME,
    licence="not stated",
    citation="Lu et al., IEEE TGRS 2017, arXiv:1712.07835",
    notes="Five captions an image, of 54,605 some 18,190 different. RSITMD took images of it: a model trained on RSITMD may "
    "have seen some of this test.",
)

RSITMD = DatasetEntry(
    name="rsitmd",
    title="RSITMD",
    tasks=("retrieval",),
    splits=(
        OfficialSplit("test", 452, "d2b83ad8a1f9b7a707f1cdbd4699ffb18fa5578ebca44f0c4c2b11624c48af9f"),
        OfficialSplit("train", 4_291, "90a97cb703f8e33c4539387c4068f04a0c52fef67784329a9df69a479ac589c6"),
    ),
    folders=("RSITMD",),
    layouts=(
        KarpathyJson(("dataset_RSITMD.json", "dataset_rsitmd.json"), ("images", ".")),
        PairTable({"test": "RSITMD_img_txt_pairs_test.csv"}),
        PairTable({"test": "rsitmd_test.csv"}, image="filename", images=("images",)),
    ),
    home="https://github.com/xiaoyuan1996/AMFMN/tree/master/RSITMD",
    licence="not stated",
    citation="Yuan et al., IEEE TGRS 2021, doi:10.1109/TGRS.2021.3078451",
    notes="Five captions an image; about 2,100 of the 2,260 of test are different. No official val: choose on a part of "
    "train. Four captions that were blank were filled in on 2021-10-28; blank ones are left out and counted.",
)

UCM_CAPTIONS = DatasetEntry(
    name="ucm-captions",
    title="UCM-Captions",
    tasks=("retrieval",),
    splits=(
        OfficialSplit("test", 210, "688f909488fd9c5e1cdd85f459de49a40adab96063b19cc071d8766b4e9808ce"),
        OfficialSplit("val", 210, "bbd86b795a467861a1ef4cb2adea76fac392028e5b67ed70e6fe005f3cd59220"),
        OfficialSplit("train", 1_680, "4404f707a656d0d370c88d679b79881656895ba82757ff61dd7a66e2966f1e23"),
    ),
    folders=("UCM_captions", "UCM-Captions", "ucmcaptions", "UCM"),
    layouts=(
        KarpathyJson(("dataset.json", "dataset_ucm.json"), ("imgs", "images", ".")),
        PairTable({"test": "ucmcaptions_img_txt_pairs_test.csv"}),
    ),
    home=_RSICD_HOME,
    licence="not stated; imagery of the USGS, public domain",
    citation=_QU,
    notes="The archive is linked from its home. Five captions an image, of 10,500 some 2,032 different: recall has a ceiling "
    "below 1. Images are those of UC Merced, called 1.tif to 2100.tif. Some sentences belong to other images by "
    "mistake; `raw` and `tokens` may differ.",
)

SYDNEY_CAPTIONS = DatasetEntry(
    name="sydney-captions",
    title="Sydney-Captions",
    tasks=("retrieval",),
    splits=(
        OfficialSplit("test", 58, "c5a582caf4bc588000e824207ca1c1a9a50ae89dc0ac56586fcbd1e17d941b0b"),
        OfficialSplit("val", 58, "26d2e08a39c687396fbb13711e3aaad84b263b2f75b8e0df0ab941ab4387e360"),
        OfficialSplit("train", 497, "bf95fb8c5adc387d67a7d55d9d297c436532280cff5a4d026bb98a0c9d63e038"),
    ),
    folders=("Sydney_captions", "Sydney-Captions", "Sydney"),
    layouts=(KarpathyJson(("dataset.json", "dataset_sydney.json"), ("imgs", "images", ".")),),
    home=_RSICD_HOME,
    licence="not stated",
    citation=_QU,
    notes="The archive is linked from its home. Seven kinds of scenes of one city, five captions an image, 1,109 of 3,065 "
    "different. With 58 images an interval is wide.",
)

NWPU_CAPTIONS = DatasetEntry(
    name="nwpu-captions",
    title="NWPU-Captions",
    tasks=("retrieval",),
    splits=(OfficialSplit("test", 3_150), OfficialSplit("val", 3_150), OfficialSplit("train", 25_200)),
    folders=("NWPU-Captions", "NWPU_Captions"),
    layouts=(NwpuJson("dataset_nwpu.json", ("NWPU_images", "images", ".")),),
    home="https://github.com/HaiyanHuang98/NWPU-Captions",
    licence="not stated",
    citation="Cheng et al., IEEE TGRS 2022",
    notes="The images of NWPU-RESISC45, five captions each (raw, raw_1 to raw_4). Counts of the splits are inferred (80/10/10 "
    "of 31,500). Some users leave out airplane_111.jpg of train; why is not said.",
)

GAIA = DatasetEntry(
    name="gaia",
    title="GAIA",
    tasks=("retrieval",),
    splits=(OfficialSplit("test", None), OfficialSplit("val", None), OfficialSplit("train", None)),
    folders=("GAIA",),
    layouts=(GaiaRecords(),),
    home="https://huggingface.co/datasets/azavras/GAIA",
    licence="records not stated; each image belongs to its site (credits)",
    citation="Zavras et al., 2025, arXiv:2502.09598",
    notes="Records only; images by URL. Five GPT-4o captions an image, split 70/20/10. Sizes differ between versions (40,201 "
    "or 41,030 in all), so the note of a result counts what was there. Most captions are longer than 77 tokens "
    "(inferred).",
)

SKYSCRIPT = DatasetEntry(
    name="skyscript",
    title="SkyScript retrieval",
    tasks=("retrieval",),
    splits=(
        OfficialSplit("test", None),
        OfficialSplit("val", None),
        OfficialSplit("test_laion_rs", None),
        OfficialSplit("val_laion_rs", None),
    ),
    folders=("SkyScript",),
    layouts=(
        PairTable(
            {
                "test": "SkyScript_test_30K_filtered_by_CLIP_openai.csv",
                "val": "SkyScript_val_5K_filtered_by_CLIP_openai.csv",
                "test_laion_rs": "SkyScript_test_30K_filtered_by_CLIP_laion_RS.csv",
                "val_laion_rs": "SkyScript_val_5K_filtered_by_CLIP_laion_RS.csv",
            },
            caption="title_multi_objects",
            images=(".", ".."),
        ),
    ),
    home="https://github.com/wangzhecheng/SkyScript",
    licence="not stated (the code is MIT); images of the collections that image_sources.py names",
    citation="Wang et al., AAAI 2024, arXiv:2312.12856",
    notes="Tables dataframe/*.csv, images images2.zip to images7.zip. 30K and 5K pairs, one caption an image made by rule "
    "from OpenStreetMap: title_multi_objects, as SkyScript and FarSLIP retrieve. test and val are filtered by OpenAI's "
    "CLIP, *_laion_rs by CLIP-laion-RS. md5 of the two tables as torchgeo has them: 0135d9b49ce6751360912a4353e809dc "
    "(test), c8d278fd29b754361989d5e7a6608f69 (val).",
)

CAPTION_SETS = (RSICD, RSITMD, UCM_CAPTIONS, SYDNEY_CAPTIONS, NWPU_CAPTIONS, GAIA, SKYSCRIPT)
