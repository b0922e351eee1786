"""An encoder on all probes of one split: named Results, whose items a paired comparison can be made of."""

from collections.abc import Mapping
from statistics import mean

from benchmarks.ablation.data import Probes
from benchmarks.ablation.summary import SHOWN
from evaluation.benchmarks.open_vocabulary import Setting, open_vocabulary
from evaluation.benchmarks.retrieval import retrieval
from evaluation.benchmarks.zero_shot import zero_shot
from evaluation.result import Result
from rsvl_pretrain.model import DualEncoder


def measure(encoder: DualEncoder, probes: Probes, *, num_bootstrap: int = 1000) -> dict[str, Result]:
    """By "task data", such as "zero_shot eurosat". Masks come from the `segearth` head under our own protocol, without a threshold."""
    encoder.eval()
    found: dict[str, Result] = {}
    for data in probes.classes:
        found[f"zero_shot {data.name}"] = zero_shot(encoder, data, num_bootstrap=num_bootstrap, workers=1)
    for data in probes.objects:
        found[f"objects {data.name}"] = zero_shot(encoder, data, num_bootstrap=num_bootstrap, workers=1)
    for data, lang in probes.captions:
        found[f"retrieval {data.name}{'' if lang == 'en' else f' {lang}'}"] = retrieval(
            encoder, data, lang=lang, num_bootstrap=num_bootstrap, workers=1
        )
    for masked, scale in probes.dense:
        setting = Setting.of("rsvl", masked, head="segearth", scale=scale)
        found[f"open_vocabulary {masked.name}"] = open_vocabulary(
            encoder, masked, setting, num_bootstrap=num_bootstrap, batch_size=32
        )
    return found


def shown_value(name: str, result: Result) -> float:
    return result.metrics[SHOWN[name.partition(" ")[0]]].value


def scores(results: Mapping[str, Result]) -> dict[str, float]:
    """By task: the mean over its data sets. Settings are chosen by the mean over tasks, on val alone."""
    by_task: dict[str, list[float]] = {}
    for name, result in results.items():
        by_task.setdefault(name.partition(" ")[0], []).append(shown_value(name, result))
    return {task: mean(values) for task, values in by_task.items()}
