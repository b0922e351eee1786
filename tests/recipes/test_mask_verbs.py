"""`rsvl eval segmentation`, `referring`, `quality` from files to a result, in two small sets written by the test."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from evaluation.result import Result
from evaluation.wording import HEADLINE
from recipes.cli import main


def png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    out = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(out, "PNG")
    path.write_bytes(out.getvalue())


IMAGE = np.zeros((8, 8, 3))
STORED = np.repeat([[1, 2, 0, 7]], 8, 0).repeat(2, 1)  # background, building, no data, agricultural
RIGHT = np.where(STORED == 0, 3, STORED - 1)  # what is predicted where nothing is known does not matter
HALF_WRONG = RIGHT.copy()
HALF_WRONG[:4, :2] = 6


@pytest.fixture
def loveda(tmp_path):
    """Three images: scored, scored, without a label. Predictions: right, half wrong, right."""
    for key, mask, predicted in ((1, STORED, RIGHT), (2, STORED, HALF_WRONG), (3, np.zeros((8, 8)), RIGHT)):
        add_tile(tmp_path, key, mask, predicted)
    return tmp_path


def add_tile(folder, key, mask, predicted):
    png(folder / f"data/LoveDA/Val/Urban/images_png/{key}.png", IMAGE)
    png(folder / f"data/LoveDA/Val/Urban/masks_png/{key}.png", mask)
    png(folder / f"model/{key}.png", predicted)


def scored(folder, *more, verb="segmentation", dataset="loveda", predicted="model"):
    out = folder / "result.json"
    words = ["--predicted", folder / predicted, "--dataset", dataset, "--root", folder / "data", "--out", out, *more]
    assert main(["eval", verb, *map(str, words)]) == 0
    return Result.load(out)


def failed(capsys, folder, *more, **which):
    with pytest.raises(AssertionError):
        scored(folder, *more, **which)
    return capsys.readouterr().err.replace("\n", " ")


def test_segmentation(loveda, capsys):
    result = scored(loveda)
    assert (result.task, result.dataset, result.split, result.n) == ("segmentation", "loveda", "val", 2)
    assert result.data["without_labels"] == 1 and "as published" in result.data["note"]
    background, agricultural = 24 / 32, 32 / 40
    assert result.per_class == pytest.approx({"background": background, "building": 1, "agricultural": agricultural})
    assert result.metrics["miou"].value == pytest.approx((background + 1 + agricultural) / 3)
    assert result.metrics["aacc"].value == pytest.approx(88 / 96)
    assert result.metrics["miou"].chance == pytest.approx(32 / 96 / 3)  # one of three classes that occur, everywhere
    assert result.metrics["miou"].low is None  # two images are too few
    assert np.sum(result.details["confusion"]["counts"]) == 96
    assert "result.json" in capsys.readouterr().out
    assert result.model["name"] == "model" and len(result.model["sha256"]) == 64


def test_every_option_of_segmentation(loveda):
    plain = scored(loveda)
    assert scored(loveda, "--leave-out", "background", "building").metrics["miou"].value == pytest.approx(32 / 40)
    assert set(scored(loveda, "--protocol", "mmseg").metrics) > {"mIoU", "mFscore", "aAcc"}
    assert "OA_with_clutter" in scored(loveda, "--protocol", "geoseg").metrics
    loose, strict = (scored(loveda, "--boundary-px", px).metrics["boundary_f1"].value for px in (4, 0))
    assert strict < loose <= 1 and "boundary_f1" not in plain.metrics
    assert plain.metrics == scored(loveda, "--split", "val").metrics
    for key in range(4, 9):
        add_tile(loveda, key, STORED, HALF_WRONG if key % 2 else RIGHT)
    lows = {scored(loveda, "--seed", s, "--num-bootstrap", 3).metrics["miou"].low for s in range(6)}
    assert len(lows) > 1 and None not in lows


def test_segmentation_that_cannot_be_scored(loveda, capsys):
    assert "has no split 'train'" in failed(capsys, loveda, "--split", "train")
    assert "leave_out is sea; give some of background" in failed(capsys, loveda, "--leave-out", "sea")
    png(loveda / "model/2.png", np.full((8, 8), 7))
    assert "model/2.png: prediction ids 7 at 48 pixels" in failed(capsys, loveda)
    png(loveda / "model/2.png", np.zeros((4, 8)))
    assert "model/2.png: the mask is 8 x 4, its picture 8 x 8" in failed(capsys, loveda)
    png(loveda / "model/2.png", IMAGE)
    assert "holds colours or fractions" in failed(capsys, loveda)
    (loveda / "model/2.png").unlink()
    assert "lacks predictions for 1 of 3 items, such as 2" in failed(capsys, loveda)
    for key in (1, 2):
        png(loveda / f"data/LoveDA/Val/Urban/masks_png/{key}.png", np.zeros((8, 8)))
    png(loveda / "model/2.png", RIGHT)
    assert "no pixel to score in 3 images, all are ignored" in failed(capsys, loveda)


TARGET = np.zeros((4, 5), int)
TARGET[1:3, 1:4] = 1


@pytest.fixture
def risbench(tmp_path):
    """Three phrases over two images; the last means nothing. Predictions: right, half, nothing."""
    half = TARGET * (np.arange(4) < 2)[:, None]
    lines = []
    for number, (stem, target, predicted) in enumerate(
        ((("1_1"), TARGET, TARGET), ("1_2", TARGET, half), ("2_1", TARGET * 0, TARGET * 0)), 1
    ):
        png(tmp_path / f"data/RISBench/img_rgb/{stem[0]}.png", np.zeros((4, 5, 3)))
        png(tmp_path / f"data/RISBench/mask/{stem}.png", target * 255)
        png(tmp_path / f"model/{stem}_{number}.png", predicted * 255)
        lines.append(f"{stem}.png the dam")
    (tmp_path / "data/RISBench/output_phrase_test.txt").write_text("\n".join(lines))
    return tmp_path


def test_referring(risbench):
    result = scored(risbench, verb="referring", dataset="risbench")
    assert (result.task, result.n, result.data["empty_targets"]) == ("referring", 3, 1)
    assert {name: metric.value for name, metric in result.metrics.items()} == pytest.approx(
        {"ciou": 9 / 12, "giou": 2.5 / 3, "precision@0.5": 1} | {f"precision@0.{k}": 2 / 3 for k in range(6, 10)}
    )
    assert {name for task, name in HEADLINE if task == "referring"} <= set(result.metrics)
    assert scored(risbench, "--protocol", "rmsin", verb="referring", dataset="risbench").metrics["giou"].value == pytest.approx(
        0.5
    )


def test_referring_from_run_lengths(risbench):
    full, half, none = ([5, 2, 2, 2, 2, 2, 5], [5, 1, 3, 1, 3, 1, 6], [20])
    runs = {key: {"size": [4, 5], "counts": counts} for key, counts in {"1_1_1": full, "1_2_2": half, "2_1_3": none}.items()}
    (risbench / "masks.json").write_text(json.dumps(runs))
    ours = scored(risbench, verb="referring", dataset="risbench", predicted="masks.json")
    assert ours.metrics == scored(risbench, verb="referring", dataset="risbench").metrics
    assert ours.model["name"] == "masks.json"


def test_referring_that_cannot_be_scored(risbench, capsys):
    which = {"verb": "referring", "dataset": "risbench"}
    assert "under rsrefseg2 the mean IoU is then nan" in failed(capsys, risbench, "--protocol", "rsrefseg2", **which)
    png(risbench / "model/1_1_1.png", np.arange(20).reshape(4, 5))
    assert "holds 20 values; expected 0 and one other" in failed(capsys, risbench, **which)
    (risbench / "masks.json").write_text('{"1_1_1": 3, "1_2_2": 3, "2_1_3": 3}')
    assert "masks.json, 1_1_1: [3] is neither run lengths" in failed(capsys, risbench, predicted="masks.json", **which)
    assert "is neither a folder of predictions nor a JSON file" in failed(capsys, risbench, predicted="no.json", **which)


def quality(folder, text, *more):
    (folder / "scores.csv").write_text(text)
    out = folder / "quality.json"
    assert main(["eval", "quality", "--scores", str(folder / "scores.csv"), "--out", str(out), *map(str, more)]) == 0
    return Result.load(out)


def test_quality(tmp_path, shared):
    golden = json.loads((shared / "fixtures/evaluation/quality_correlation.json").read_text())
    case = golden["method_recommendation"]
    rows = [
        f"{image},{method},{p},{t}"
        for image, (predicted, true) in enumerate(zip(case["prediction"], case["oa"]))
        for method, (p, t) in enumerate(zip(predicted, true))
    ]
    result = quality(tmp_path, "\n".join(["image,method,predicted,true", *sorted(rows)]), "--num-bootstrap", 50)
    values = {name: metric.value for name, metric in result.metrics.items()}
    assert values["srocc"] == pytest.approx(case["SROCC_pooled"], abs=1e-9)
    assert values["top1_hit_rate"] == case["top1_hit_rate"] and values["regret"] == pytest.approx(case["regret"])
    assert [result.per_class[str(m)] for m in range(8)] == pytest.approx(case["SROCC_per_method"], abs=1e-9)
    assert values["mean_method_srocc"] == pytest.approx(np.mean(case["SROCC_per_method"]))
    assert result.metrics["srocc"].low < values["srocc"] < result.metrics["srocc"].high
    assert not result.metrics["rmse"].higher_is_better and not result.metrics["regret"].higher_is_better
    assert result.data["undefined"] == []


def test_quality_of_a_constant_is_undefined(tmp_path):
    result = quality(tmp_path, "predicted,true\n0.5,0.1\n0.5,0.4\n0.5,0.2\n")
    assert set(result.metrics) == {"rmse", "mae"}
    assert result.data["undefined"] == ["krocc", "plcc", "plcc_fitted", "rmse_fitted", "srocc"]


def test_the_bootstrap_of_quality(tmp_path):
    text = "predicted,true\n" + "\n".join(f"{x},{(x * 7) % 5}" for x in range(12))
    seeds = {quality(tmp_path, text, "--seed", s, "--num-bootstrap", 20).metrics["plcc"].low for s in (1, 2)}
    assert len(seeds) == 2
    assert quality(tmp_path, text, "--num-bootstrap", 40).metrics["plcc"].low not in seeds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has columns a, b; expected predicted and true"),
        ("predicted,true\n1,2\nx,2\n", "row 2, predicted: 'x' is not a finite number"),
        ("predicted,true\n1,2\n1,nan\n", "row 2, true: 'nan' is not a finite number"),
        ("predicted,true\n1,2\n", "has 1 rows; a correlation needs at least two"),
    ],
)
def test_tables_of_scores_that_cannot_be_used(tmp_path, capsys, text, message):
    with pytest.raises(AssertionError):
        quality(tmp_path, text)
    assert message in capsys.readouterr().err
