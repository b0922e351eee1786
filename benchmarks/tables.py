"""Writes the numbers of the documents from the result files: benchmarks/README.md, docs/ablations.md, the quickstart's block of the README.

python -m benchmarks.tables           # write them
python -m benchmarks.tables --check   # exit status 1 when one is out of date (a test calls this)
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import dense_tables, farslip_tables, training_tables
from benchmarks.ablation.page import page as ablation_page
from evaluation.result import Result
from evaluation.wording import interval_text, metric_words, value_text

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_BEGIN, _END = "<!-- quickstart: written by benchmarks/tables.py from benchmarks/results/quickstart -->\n", "<!-- end -->"
_QUICKSTARTS = {"scenes": "procedural scenes", "ucm": "UC Merced, 1,050 images", "eurosat_rgb": "EuroSAT, 2,000 images"}
_OF_RESULT = {**training_tables.SECTIONS, **farslip_tables.SECTIONS, **dense_tables.SECTIONS}
_SHOWN = ("acc1", "image_retrieval_recall@5", "mean_recall")


def load(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / name).read_text())


def quickstart_block() -> str:
    """One line a metric, from the Result files of three quickstarts."""
    facts = load("quickstart/facts.json")
    lines = [
        f"Measured on the test splits by the tiny model of the quickstart ({facts['machine']}; code {facts['code']}):",
        "",
        "| data | metric | value | 95 % interval | chance | n | whole run |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, words in _QUICKSTARTS.items():
        for task in ("zero_shot", "retrieval"):
            path = RESULTS / "quickstart" / name / f"{task}.json"
            if not path.exists():  # no retrieval where captions only repeat the labels
                continue
            result = Result.load(path)
            for metric_name in _SHOWN:
                if metric := result.metrics.get(metric_name):
                    cells = (
                        words,
                        metric_words(metric_name).name,
                        value_text(metric_name, metric.value),
                        interval_text(metric_name, metric),
                        value_text(metric_name, metric.chance),
                        str(result.n),
                        f"{facts['seconds'][name]:.0f} s",
                    )
                    lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "The scenes are procedural: their numbers say that the chain works, not how good a model is.", ""]
    return "\n".join(lines)


def loader_section() -> str:
    result = load("loader.json")
    rows = [
        "| image side | ours / open_clip, wall clock | range | CPU time | ours images/s | open_clip images/s |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in result["cases"]:
        ratio, cpu = case["ratio"], case["cpu_ratio"]
        rows.append(
            f"| {case['image_px']} px | {ratio['median']:.2f} x | {ratio['low']:.2f}-{ratio['high']:.2f} | {cpu['median']:.2f} x "
            f"| {case['ours']['images_per_s']['median']:.0f} | {case['peer']['images_per_s']['median']:.0f} |"
        )
    setting, ours, peer = result["setting"], result["cases"][0]["ours"], result["cases"][0]["peer"]
    return "\n".join(
        [
            "## Loader",
            "",
            f"Shards to batches of {setting['batch_size']} at 224 px with {setting['workers']} workers, training crop, tokens; "
            f"open_clip {peer['versions']['open_clip_torch']} (webdataset {peer['versions']['webdataset']}) and ours "
            f"(webdataset {ours['versions']['webdataset']}) in turn on the same {setting['images']} images, "
            f"{result['cases'][0]['rounds']} rounds. {machine(result)}",
            "",
            *rows,
            "",
            "Score parity of the fast decoder against open_clip's own pixels:",
            "",
            "```json",
            json.dumps(result["parity"], indent=1),
            "```",
        ]
    )


def shard_read_section() -> str:
    result = load("shard_read.json")
    rows = [
        "| each member | ours / webdataset | range | ours samples/s | webdataset samples/s |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    words = {"read": "read", "touched": "read, a byte of each page added up"}
    for case in result["cases"]:
        ratio, rates = case["ratio"], [case[role]["samples_per_s"]["median"] for role in ("ours", "peer")]
        rows.append(
            f"| {words[case['look']]} | {ratio['median']:.2f} x | {ratio['low']:.2f}-{ratio['high']:.2f} "
            f"| {rates[0]:,.0f} | {rates[1]:,.0f} |"
        )
    setting, case = result["setting"], result["cases"][0]
    kilobytes = setting["tar_bytes"] / setting["shards"] / setting["shard_samples"] / 1000
    peaks = [f"{case[role]['peak_rss_mib']:.0f} MiB" for role in ("ours", "peer")]
    about = (
        f"{setting['shards']} tars of {setting['shard_samples']} samples of {kilobytes:.0f} KB from the page cache, nothing decoded, one "
        f"process on one core; webdataset {result['versions']['webdataset']} and ours in turn, {case['rounds']} rounds, the same bytes. "
        f"Peak memory {peaks[0]} (ours) and {peaks[1]}. {machine(result)}"
    )
    return "\n".join(["## Reading shards", "", about, "", *rows])


def ingest_section() -> str:
    result = load("ingest.json")
    rows = ["| | ours / img2dataset | range | ours | img2dataset |", "| --- | ---: | ---: | ---: | ---: |"]
    words = {
        "images_per_s": "images/s, from process start to end",
        "steady_images_per_s": "images/s, starting left out",
        "images_per_cpu_s": "images per CPU second",
    }
    for name, meaning in words.items():
        ratio, rates = result["ratios"][name], [result[role][name]["median"] for role in ("ours", "peer")]
        rows.append(
            f"| {meaning} | {ratio['median']:.2f} x | {ratio['low']:.2f}-{ratio['high']:.2f} | {rates[0]:.0f} | {rates[1]:.0f} |"
        )
    setting, agreement, killed = result["setting"], result["agreement"], result["killed"]
    peaks = [f"{result[role]['peak_pss_mib']['median']:.0f} MiB" for role in ("ours", "peer")]
    about = (
        f"A list of {setting['images']} URLs to shards of {setting['size_px']} px ({setting['resize']}, quality {setting['quality']}); "
        f"img2dataset {result['versions']['peer']['img2dataset']} and ours in turn, {result['rounds']} rounds, {setting['processes']} "
        f"processes each. Both kept the same {agreement['images']} images; their pixels differ by "
        f"{agreement['grey_levels_off']['mean']:.2f} grey levels on average. "
        f"Peak memory of all processes {peaks[0]} (ours) and {peaks[1]}. "
        f"The server alone gave {result['server_answers_per_s']:.0f} answers/s. {machine(result)}"
    )
    after = [
        f"After {killed[role]['kills']} SIGKILLs {name} left {killed[role]['cut_tars']} cut tars under their real names."
        for role, name in (("ours", "ours"), ("peer", "img2dataset"))
        if role in killed
    ]
    return "\n".join(["## Download and build", "", about, "", *rows, *(["", " ".join(after)] if after else [])])


def contrastive_loss_section() -> str:
    result = load("contrastive_loss.json")
    rows = [
        "| pairs | time, ours / open_clip | range | memory, ours / open_clip | ours | open_clip |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in result["cases"]:
        time, memory = case["time_ratio"], case["memory_ratio"]
        peaks = [f"{case[role]['grown_mib']['median']:,.0f} MiB" for role in ("ours", "peer")]
        rows.append(
            f"| {case['batch_size']:,} | {time['median']:.2f} x | {time['low']:.2f}-{time['high']:.2f} | {memory['median']:.2f} x "
            f"| {peaks[0]} | {peaks[1]} |"
        )
    setting, case = result["setting"], result["cases"][0]
    worst = max(case["largest_gradient_difference"] for case in result["cases"])
    rounds = ", ".join(dict.fromkeys(str(case["rounds"]) for case in result["cases"]))
    about = (
        f"Forward and backward of the CLIP loss, {setting['dim']} wide, float32, {setting['threads']} threads; open_clip "
        f"{case['peer']['versions']['open_clip_torch']} and ours in turn, {rounds} rounds. Memory is what the process grew by. "
        f"Gradients differ by {worst:.0e} of the largest. {machine(result)}"
    )
    return "\n".join(["## Contrastive loss", "", about, "", *rows])


def captioning_section() -> str:
    result = load("captioning.json")
    ratio, settings = result["wall_over_slowest"], result["settings"]
    about = (
        f"Captions of {settings['images']} images by an engine that sleeps: wall clock over the slowest part alone (preparing images, or "
        f"waiting for answers) {ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f}); 1 is perfect overlap. A restart repeated "
        f"{result['requests_of_a_restart']} requests. {machine(result)}"
    )
    return "\n".join(["## Captioning", "", about])


def captions_by_rule_section() -> str:
    result = load("captions_by_rule.json")
    rows = ["| kind | captions/s |", "| --- | ---: |"]
    rows += [f"| {kind} | {value['captions_per_s']:,.0f} |" for kind, value in result["values"].items()]
    return "\n".join(["## Captions by rule", "", f"On one core; `grammar` is all kinds together. {machine(result)}", "", *rows])


def scenes_section() -> str:
    result = load("scenes.json")
    rows = ["| size and processes | scenes/s | CPU ms a scene |", "| --- | ---: | ---: |"]
    for name, value in result["values"].items():
        rows.append(f"| {name.replace('_', ' ')} | {value['scenes_per_s']:.0f} | {value['cpu_ms_per_scene']:.1f} |")
    return "\n".join(["## Procedural scenes", "", f"All types, captions and masks included. {machine(result)}", "", *rows])


def of_result(name: str) -> str:
    """The section of a result file that a table module of its own knows."""
    result = load(name)
    return _OF_RESULT[name](result, machine(result))


def retrieval_metric_section() -> str:
    result = load("retrieval_metric.json")
    rows = [
        "| images x texts | speed, ours / CLIP_benchmark | range | memory, ours / CLIP_benchmark | ours | CLIP_benchmark |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in result["cases"]:
        speed = case["speed_ratio"]
        sides = [
            f"{case[role]['seconds']['median']:.2f} s, {case[role]['grown_mib']['median']:,.0f} MiB" for role in ("ours", "peer")
        ]
        rows.append(
            f"| {case['images']:,} x {case['texts']:,} | {speed['median']:.1f} x | {speed['low']:.1f}-{speed['high']:.1f} "
            f"| {case['memory_ratio']['median']:.3f} x | {sides[0]} | {sides[1]} |"
        )
    case = result["cases"][0]
    about = (
        f"Recall at {', '.join(map(str, result['setting']['ks']))} in both directions, {result['setting']['dim']} wide, float32, "
        f"{case['threads']} threads; CLIP_benchmark {case['peer']['versions']['clip-benchmark']} and ours in turn, "
        f"{case['rounds']} rounds, equal recalls. Memory is what the process grew by. {machine(result)}"
    )
    lines = ["## Retrieval metric", "", about, "", *rows]
    if million := result.get("million"):
        lines += [
            "",
            f"{million['queries']:,} queries in {million['rows']:,} half-precision rows of a memory map: {million['seconds']:.0f} s, "
            f"peak memory of the process {million['peak_rss_mib']['process']:,.0f} MiB, the pages of the map included.",
        ]
    return "\n".join(lines)


def zero_shot_eval_section() -> str:
    result = load("zero_shot_eval.json")
    words = {
        "zeroshot_classification": "classification, 45 classes x 18 templates",
        "zeroshot_retrieval": "retrieval, five captions",
    }
    rows = [
        "| task | speed, ours / CLIP_benchmark | range | CPU time | ours | CLIP_benchmark | largest difference of a number |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in result["cases"]:
        speed, seconds = case["seconds_ratio"], [case[role]["seconds"]["median"] for role in ("ours", "peer")]
        rows.append(
            f"| {words[case['task']]}, {case['images']:,} images, {case['rounds']} rounds "
            f"| {speed['median']:.2f} x | {speed['low']:.2f}-{speed['high']:.2f} "
            f"| {case['cpu_seconds_ratio']['median']:.2f} x | {seconds[0]:.1f} s | {seconds[1]:.1f} s | {case['largest_difference']:.0e} |"
        )
    setting = result["setting"]
    about = (
        f"`clip_benchmark eval` and ours in turn from start to end of the process: one webdataset a task, {setting['model']} with random "
        f"weights, float32, {setting['workers']} workers. {machine(result)}"
    )
    return "\n".join(["## Evaluation, end to end", "", about, "", *rows])


def bootstrap_section() -> str:
    result = load("bootstrap.json")
    setting = result["setting"]
    rows = ["| statistic | seconds | range |", "| --- | ---: | ---: |"]
    rows += [
        f"| {name.replace('_', ' ')} | {found['median']:.2f} | {found['low']:.2f}-{found['high']:.2f} |"
        for name, found in result["seconds"].items()
    ]
    about = (
        f"{setting['resamples']:,} resamples of {setting['items']:,} images, {setting['rounds']} processes; peak memory "
        f"{result['peak_mib']:.0f} MiB. {machine(result)}"
    )
    return "\n".join(["## Bootstrap", "", about, "", *rows])


_OPTIONAL: dict[str, Callable[[], str]] = {
    "shard_read.json": shard_read_section,
    "ingest.json": ingest_section,
    "contrastive_loss.json": contrastive_loss_section,
    **{name: partial(of_result, name) for name in _OF_RESULT},
    "captioning.json": captioning_section,
    "captions_by_rule.json": captions_by_rule_section,
    "retrieval_metric.json": retrieval_metric_section,
    "zero_shot_eval.json": zero_shot_eval_section,
    "bootstrap.json": bootstrap_section,
}


def machine(result: dict[str, Any]) -> str:
    about = result["machine"]
    return f"Measured {result['measured'][:10]} on {about['cores']} cores of {about['cpu']}, Python {about['python']}."


def documents() -> dict[Path, str]:
    readme = (ROOT / "README.md").read_text()
    before, rest = readme.split(_BEGIN)
    _, after = rest.split(_END, 1)
    page = "\n\n".join(
        [
            "# Benchmarks",
            "Written by `python -m benchmarks.tables` from `benchmarks/results`; each benchmark's docstring says how it is run. "
            "Ratios are taken within a round, ours over the peer's; absolute rates depend on the machine.",
            loader_section(),
            *(section() for name, section in _OPTIONAL.items() if (RESULTS / name).exists()),
            scenes_section(),
        ]
    )
    ablations = {
        f"{folder.replace('ablation', 'ablations')}.md": ablation_page(RESULTS / folder)
        for folder in ("ablation", "ablation_gpu")
    }
    return {
        **{ROOT / "docs" / name: text for name, text in ablations.items() if text},
        ROOT / "README.md": before + _BEGIN + quickstart_block() + _END + after,
        ROOT / "benchmarks" / "README.md": page + "\n",
    }


def main() -> int:
    stale = {path: text for path, text in documents().items() if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        if "--check" in sys.argv:
            print(f"{path.relative_to(ROOT)} is not what the result files say; run python -m benchmarks.tables")
        else:
            path.write_text(text)
            print(f"written: {path.relative_to(ROOT)}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
