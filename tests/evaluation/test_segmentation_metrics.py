import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.bootstrap import intervals
from evaluation.metrics.boundary import boundary_counts, boundary_f1, csurka_tolerance_px
from evaluation.metrics.segmentation import (
    SegmentationCounts,
    f1,
    frequency_weighted_iou,
    geoseg_metrics,
    iou,
    mean_over_classes,
    measures,
    mmseg_metrics,
    over_images,
    pixel_accuracy,
    pixel_confusion,
    precision,
    recall,
)


def maps(seed=0, size=(9, 14), classes=4):
    """Labels with some 255 and predictions without."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, size).astype(np.uint8)
    labels[generator.random(size) < 0.2] = 255
    return labels, generator.integers(0, classes, size).astype(np.uint8)


def golden(shared, name):
    path = shared / "fixtures/evaluation"
    return json.loads((path / f"segmentation_{name}.json").read_text()), path / f"segmentation_{name}.npz"


def numbers(values):
    return [float(value) for value in values]


@pytest.mark.parametrize("case", ["plain", "absent"])
def test_mmseg_golden(shared, case):
    file, arrays = golden(shared, "mmseg")
    case_of, data = file["cases"][case], np.load(arrays)
    counted = SegmentationCounts(file["num_classes"], file["ignore_index"])
    for image in range(case_of["images"]):
        assert counted.add(data[f"{case}_label_{image}"], data[f"{case}_pred_{image}"])
    counts = counted.total()
    assert counts.tolist() == case_of["confusion_matrix_rows_label_cols_pred"]
    ours = {"IoU": iou, "Acc": recall, "Dice": f1, "Precision": precision, "Recall": recall}
    for name, of in ours.items():
        assert of(counts) == pytest.approx(numbers(case_of["official_unrounded"][name]), abs=1e-6, nan_ok=True), name
    means = mmseg_metrics(counts)
    assert means.pop("aAcc") == pytest.approx(case_of["official_unrounded"]["aAcc"], abs=1e-6)
    for name, value in means.items():
        assert value == pytest.approx(case_of["official_unrounded_means"][name.removeprefix("m")], abs=1e-6), name
    assert f1(counts) == pytest.approx(numbers(case_of["mathematical_F1"]["per_class"]), abs=1e-12, nan_ok=True)
    assert measures()["mf1"](counts) == pytest.approx(case_of["mathematical_F1"]["mean_over_present"], abs=1e-12)


@pytest.mark.parametrize("case", ["all_present", "absent_class", "never_predicted", "zero_tp"])
def test_geoseg_golden(shared, case):
    file, _ = golden(shared, "geoseg")
    case_of = file["cases"][case]
    counts = np.array(case_of["confusion_matrix_rows_label_cols_pred"])
    theirs = geoseg_metrics(counts)
    for name, key in {"mIoU_without_clutter": None, "mF1_without_clutter": None, "OA_with_clutter": "OA", "FWIoU": None}.items():
        assert theirs[name] == pytest.approx(case_of[key or name], abs=1e-9), name
    for name, of in {"IoU": iou, "Precision": precision, "Recall": recall, "Dice": f1}.items():
        assert of(counts) == pytest.approx(numbers(case_of[name]), abs=1e-9, nan_ok=True), name
    right = case_of["mathematical"]
    assert f1(counts) == pytest.approx(numbers(right["F1"]), abs=1e-9, nan_ok=True)
    assert measures(range(len(counts) - 1))["mf1"](counts) == pytest.approx(right["mF1_without_clutter"], abs=1e-9)
    assert measures()["mf1"](counts) == pytest.approx(right["mF1_all"], abs=1e-9)
    assert pixel_accuracy(counts) == pytest.approx(right["OA_all"], abs=1e-9)
    assert theirs["OA_clutter_dropped"] == pytest.approx(right["OA_clutter_row_and_column_dropped"], abs=1e-9)
    assert theirs["OA_clutter_labels_dropped"] == pytest.approx(right["OA_clutter_label_pixels_dropped"], abs=1e-9)


@given(st.integers(0, 1000), st.integers(1, 6))
def test_equals_counting_one_pixel_at_a_time(seed, classes):
    labels, predicted = maps(seed, classes=classes)
    slow = np.zeros((classes, classes), int)
    for true, found in zip(labels.ravel().tolist(), predicted.ravel().tolist()):
        if true != 255:
            slow[true, found] += 1
    assert (pixel_confusion(labels, predicted, classes) == slow).all()


def test_by_hand():
    labels = np.array([[0, 0, 1], [1, 1, 9]])
    predicted = np.array([[0, 1, 1], [1, 2, 7]])
    counts = pixel_confusion(labels, predicted, 4, ignore_index=9)
    assert iou(counts) == pytest.approx([1 / 2, 2 / 4, 0, np.nan], nan_ok=True)
    assert f1(counts) == pytest.approx([2 / 3, 4 / 6, 0, np.nan], nan_ok=True)
    assert recall(counts) == pytest.approx([1 / 2, 2 / 3, np.nan, np.nan], nan_ok=True)
    assert precision(counts) == pytest.approx([1, 2 / 3, 0, np.nan], nan_ok=True)
    assert pixel_accuracy(counts) == 3 / 5
    assert frequency_weighted_iou(counts) == pytest.approx(1 / 2)
    of = {name: float(measure(counts)) for name, measure in measures().items()}
    assert of["miou"] == pytest.approx(1 / 3)
    assert of["macc"] == pytest.approx(7 / 12)
    assert of["mprecision"] == pytest.approx(5 / 9)
    assert measures([0, 1])["miou"](counts) == 1 / 2


def test_perfect_prediction():
    labels, _ = maps()
    counts = pixel_confusion(labels, np.where(labels == 255, 0, labels), 4)
    assert {name: float(measure(counts)) for name, measure in measures().items()} == dict.fromkeys(measures(), 1.0)


@given(st.integers(0, 1000), st.permutations(range(4)))
def test_names_of_classes_do_not_matter(seed, order):
    labels, predicted = maps(seed)
    renamed = np.array([*order, *[0] * 251, 255], np.uint8)
    counts = pixel_confusion(labels, predicted, 4)
    again = pixel_confusion(renamed[labels], renamed[predicted], 4)
    assert iou(again)[list(order)] == pytest.approx(iou(counts), nan_ok=True)
    assert measures()["miou"](again) == pytest.approx(measures()["miou"](counts))


@given(st.integers(0, 1000), st.integers(0, 255))
def test_ignored_pixels_change_nothing(seed, there):
    labels, predicted = maps(seed)
    other = np.where(labels == 255, np.uint8(there), predicted)
    assert (pixel_confusion(labels, predicted, 4) == pixel_confusion(labels, other, 4)).all()
    assert (boundary_counts(labels, predicted, 4, 1) == boundary_counts(labels, other, 4, 1)).all()


def test_how_images_are_cut_does_not_matter():
    labels, predicted = maps()
    parts = SegmentationCounts(4)
    for rows in (np.s_[:3], np.s_[3:4], np.s_[4:]):
        parts.add(labels[rows], predicted[rows])
    assert (parts.total() == pixel_confusion(labels, predicted, 4)).all()


def test_255_classes_fit():
    labels = np.arange(255, dtype=np.uint8).reshape(15, 17)
    assert (pixel_confusion(labels, labels, 255) == np.eye(255)).all()
    assert pixel_confusion(np.full((2, 2), 299), np.full((2, 2), 298), 300)[299, 298] == 4


def test_an_image_of_ignored_pixels_is_counted_apart():
    counted = SegmentationCounts(4)
    assert not counted.add(np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"no pixel to score: 1 images, all of their pixels ignored \(id 255\)"):
        counted.total()
    labels, predicted = maps()
    assert counted.add(labels, predicted)
    assert (len(counted.per_image), counted.num_without_labels) == (1, 1)


@pytest.mark.parametrize(
    ("labels", "predicted", "text"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), "prediction is 2 x 3 pixels, label 3 x 2 pixels"),
        (np.full((2, 2), 7), np.zeros((2, 2), int), "label ids 7 at 4 pixels; with 4 classes 0 to 3"),
        (np.zeros((2, 2), int), np.array([[0, 4], [-1, 255]]), "prediction ids -1, 4, 255 at 3 pixels"),
    ],
)
def test_refused(labels, predicted, text):
    with pytest.raises(ValueError, match=text):
        pixel_confusion(labels, predicted, 4)


def test_without_an_ignored_id_all_pixels_count():
    labels = np.array([[0, 1, 255]])
    with pytest.raises(ValueError, match="label ids 255"):
        pixel_confusion(labels, labels, 2, ignore_index=None)
    assert pixel_confusion(labels[:, :2], labels[:, :2], 2, ignore_index=None).sum() == 2


def test_interval_over_images():
    right, wrong = np.array([[8, 0], [0, 2]]), np.array([[0, 3], [1, 0]])
    per_image = np.stack([right] * 5 + [wrong] * 5)
    found = intervals({"miou": over_images(measures()["miou"], per_image)}, 10, seed=1)["miou"]
    assert found.value == pytest.approx(measures()["miou"](per_image.sum(0)))
    assert 0.2 < found.low < found.value < found.high < 1
    same = intervals({"miou": over_images(measures()["miou"], np.stack([right] * 5))}, 5)["miou"]
    assert same.low < same.high == 1


@pytest.mark.parametrize(("name", "value"), [("miou", 0.5 / 4), ("macc", 1 / 4), ("mf1", 2 / 3 / 4), ("mprecision", 0.5)])
def test_a_class_on_no_drawn_image_stays_in_the_mean(name, value):
    """All is called class 0, which is half of each image; the other half is one of three classes, the last on one image only. With the
    classes of each resample instead, the mean would be over fewer and could only rise."""
    per_image = np.zeros((7, 4, 4), int)
    per_image[:, 0, 0] = 10
    per_image[np.arange(7), [1, 1, 1, 2, 2, 2, 3], 0] = 10
    statistic = over_images(measures()[name], per_image)
    drawn = np.array([[7.0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 7]])
    np.testing.assert_allclose(statistic(drawn), [value, value], atol=1e-6)


def test_mean_of_no_class():
    assert np.isnan(mean_over_classes(np.array([np.nan, 0.5]), [0]))


def square(at, size=20, side=8):
    ids = np.zeros((size, size), np.uint8)
    ids[at : at + side, at : at + side] = 1
    return ids


def slow_boundary(ids, counted, index):
    height, width = ids.shape
    found = []
    for y, x in np.argwhere(counted & (ids == index)).tolist():
        around = [(y + dy, x + dx) for dy, dx in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        inside = [(v, u) for v, u in around if 0 <= v < height and 0 <= u < width]
        if any(counted[at] and ids[at] != index for at in inside):
            found.append((y, x))
    return np.array(found).reshape(-1, 2)


@pytest.mark.parametrize("tolerance_px", [1, 1.5, 3])
def test_boundary_counts_equal_a_slow_version(tolerance_px):
    labels, predicted = square(4), square(6)
    labels[:3, :9] = 255
    predicted[14, 3:9] = 2
    ours = boundary_counts(labels, predicted, 3, tolerance_px)
    for index in range(3):
        true, found = (slow_boundary(ids, labels != 255, index) for ids in (labels, predicted))
        apart = np.linalg.norm(true[:, None] - found[None], axis=-1) <= tolerance_px
        expected = [len(true), apart.any(1).sum() if apart.size else 0, len(found), apart.any(0).sum() if apart.size else 0]
        assert ours[index].tolist() == expected


def test_boundary_tolerance_decides():
    scores = [boundary_f1(boundary_counts(square(4), square(5), 2, px))[1] for px in (0, 1, 1.5, 2)]
    assert scores == sorted(scores)
    assert scores[0] < 0.5
    assert scores[-1] == 1


def test_boundary_of_nothing_and_of_something_missed():
    nothing = np.zeros((20, 20), np.uint8)
    assert np.isnan(boundary_f1(boundary_counts(nothing, nothing, 2, 2))).all()
    assert boundary_f1(boundary_counts(square(4), nothing, 2, 2)).tolist() == [0, 0]
    assert boundary_f1(boundary_counts(square(4), square(4), 3, 0)) == pytest.approx([1, 1, np.nan], nan_ok=True)


def test_edges_of_the_image_and_of_ignored_pixels_are_no_boundary():
    labels = np.zeros((6, 6), np.uint8)
    labels[:, 3:] = 255
    assert not boundary_counts(labels, np.zeros((6, 6), np.uint8), 2, 1).any()


def test_boundary_sizes_must_agree():
    with pytest.raises(ValueError, match="differ in size"):
        boundary_counts(np.zeros((2, 3), int), np.zeros((3, 2), int), 2, 1)


def test_tolerance_of_csurka():
    assert csurka_tolerance_px(1024, 1024) == 11
    assert csurka_tolerance_px(30, 40) == 1
