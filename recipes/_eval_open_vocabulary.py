"""`rsvl eval open-vocabulary`: masks from words against the masks of a dataset."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.progress import Progress

from evaluation.benchmarks.chosen_threshold import ChosenThreshold
from evaluation.benchmarks.open_vocabulary import DEFAULT_THRESHOLDS, Setting, choose_threshold, open_vocabulary
from evaluation.contamination import contamination_of, training_data_of
from evaluation.datasets.segmentation import open_segmentation
from evaluation.datasets.segmentation.masked_files import SegmentationSet
from evaluation.embed import EvalPrecision
from evaluation.shard_masks import ShardMasks, ThinnedMasks
from evaluation.wording import summary_table
from rsvl_data.errors import OptionError
from rsvl_data.shards import Dataset
from rsvl_pretrain.dense import DenseHead
from rsvl_pretrain.model import DualEncoder
from rsvl_segment.protocols import Protocol, Upsampling


@dataclass(frozen=True, kw_only=True)
class OpenVocabulary:
    model: str
    """run folder, export folder, hf-hub:org/name, ARCHITECTURE,TAG"""
    data: Path
    """dataset folder with masks; with --dataset the folder of a public set as its authors publish it"""
    out: Path
    """result file to write, .json; with --choose-threshold the file that --threshold-from reads"""
    dataset: str | None = None
    """name of a public set, such as loveda (`rsvl eval ls`); left out, --data is a dataset of ours"""
    split: str = "test"
    """split to measure on; choose on val, report on test"""
    protocol: Protocol = "rsvl"
    """ours, or farslip or segearth_ov as released: prompts, windows and post-processing; numbers under different ones do not compare"""
    head: DenseHead | None = None
    """patch tokens, under our protocol; left out: segearth"""
    scale: float | None = None
    """factor by which images are resized, under our protocol; left out: 1"""
    window: int | None = None
    """side of a window in pixels, under our protocol; left out: the size the encoder was trained at"""
    stride: int | None = None
    """pixels from one window to the next, under our protocol; left out: half a window"""
    upsample: Upsampling | None = None
    """from patches to pixels, under our protocol; left out: bilinear"""
    threshold: float | None = None
    """pixels whose best class has a lower probability become background; left out: that of the protocol"""
    background: str | None = None
    """class that pixels below the threshold get"""
    threshold_from: Path | None = None
    """file with a threshold and its background that --choose-threshold wrote under these options, on other images"""
    choose_threshold: bool = False
    """choose a threshold on this split, val or train, and write it to --out instead of a result"""
    thresholds: tuple[float, ...] = DEFAULT_THRESHOLDS
    """what is tried by --choose-threshold"""
    batch_size: int = 16
    """windows encoded at once"""
    precision: EvalPrecision = "fp32"
    """of the image tower"""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """where the model runs"""
    limit: int | None = None
    """only so many images, spread over the split; the result says so"""
    trained_on: tuple[str, ...] = ()
    """datasets the model was trained on, where its folder does not say; looked up in known overlaps"""
    seed: int = 0
    """of the bootstrap, and of the weights where --model names an architecture without any"""
    num_bootstrap: int = 1000
    """resamples behind the 95 % intervals"""

    def refuse_two_thresholds(self) -> None:
        if (self.threshold_from is not None) + (self.threshold is not None) + self.choose_threshold > 1:
            raise OptionError(
                "--threshold-from, --threshold and --choose-threshold are three ways to one number; give one of them"
            )
        if self.threshold_from is not None and self.background is not None:
            raise OptionError("--threshold-from brings the background it was chosen for; leave out --background")

    def open(self) -> SegmentationSet:
        data: SegmentationSet
        if self.dataset is None:
            data = ShardMasks(Dataset.open(self.data), self.split)
        else:
            data = open_segmentation(self.dataset, self.data, self.split)
        return data if self.limit is None else ThinnedMasks(data, self.limit)

    def setting(self, data: SegmentationSet) -> Setting:
        asked: dict[str, Any] = {
            "head": self.head, "scale": self.scale, "window_px": self.window, "stride_px": self.stride, "upsample": self.upsample,
        }  # fmt: skip
        changes = {name: value for name, value in asked.items() if value is not None}
        return Setting.of(
            self.protocol,
            data,
            background=self.background,
            threshold=self.threshold,
            choosing=self.choose_threshold,
            **changes,
        )


def open_vocabulary_verb(options: tyro.conf.OmitArgPrefixes[OpenVocabulary]) -> int:
    """Open-vocabulary segmentation of a dataset with masks: mIoU, per-class IoU, accuracy, F1, boundary F1."""
    options.refuse_two_thresholds()
    data = options.open()
    setting = options.setting(data)
    chosen = None if options.threshold_from is None else ChosenThreshold.load(options.threshold_from)
    torch.manual_seed(options.seed)
    encoder = DualEncoder.load(options.model, options.device)
    with Progress(transient=True) as bar:
        task = bar.add_task("segmenting images", total=len(data.items))
        common: dict[str, Any] = {
            "batch_size": options.batch_size,
            "precision": options.precision,
            "progress": lambda done, total: bar.update(task, completed=done, total=total),
        }
        if options.choose_threshold:
            found = choose_threshold(encoder, data, setting, thresholds=options.thresholds, **common)
        else:
            result = open_vocabulary(
                encoder, data, setting, chosen=chosen, seed=options.seed, num_bootstrap=options.num_bootstrap, **common
            )
    if options.choose_threshold:
        found.save(options.out)
        print(f"threshold {found.threshold} on {found.split}: mIoU {max(found.miou.values()):.1%}\nchosen: {options.out}")
        return 0
    names = ("dataset", "limit", "batch_size", "precision", "num_bootstrap")
    kept = {**{name: getattr(options, name) for name in names}, "trained_on": list(options.trained_on)}
    seen = contamination_of(data, training_data_of(options.model, options.trained_on))
    result = replace(result, contamination=seen, options={**kept, **result.options})
    result.save(options.out)
    print(summary_table([result]))
    print(f"result: {options.out}")
    return 0
