"""The sections of benchmarks/README.md about training. Each takes a result file's content and the sentence about its machine."""

from collections.abc import Callable
from typing import Any

Result = dict[str, Any]


def train_step_section(result: Result, machine: str) -> str:
    words = {
        "memory-fp32": "same batches, fp32",
        "memory-bf16": "same batches, bf16 autocast",
        "shards-fp32": "from the same shards, fp32",
    }
    rows = [
        "| | ours / open_clip | range | rounds | losses differ by | ours samples/s | open_clip samples/s | peak memory of both |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in result["cases"]:
        difference = case.get("largest_loss_difference")
        rates = [f"{case[role]['samples_per_s']['median']:.2f}" for role in ("ours", "peer")]
        peaks = " and ".join(f"{case[role]['peak_rss_mib'] / 1024:.1f} GiB" for role in ("ours", "peer"))
        cells = (
            words[case["case"]],
            *ratio_cells(case["ratio"]),
            case["rounds"],
            f"{difference:.0e}" if difference is not None else "",
        )
        rows.append(row(*cells, *rates, peaks))
    setting, versions = result["setting"], result["cases"][0]["peer"]["versions"]
    about = (
        f"{setting['model']}, {setting['batch_size']} samples a step, captions of published lengths, {setting['threads']} threads: "
        f"our `train` and open_clip {versions['open_clip_torch']}'s `train_one_epoch` in turn, the same weights and AdamW settings. "
        f"Shards hold images of {setting['size_px']} px, read by {setting['workers']} workers. {machine}"
    )
    return "\n".join(["## Training step", "", about, "", *rows])


def text_encoding_section(result: Result, machine: str) -> str:
    rows = [
        "| | over `model.encode_text` | range | largest difference | texts/s | peak memory |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        row("open_clip", "", "", "", *_encoding(result["peer"])),
    ]
    for role, words in (("cut", "ours, padding cut"), ("ours", "ours, texts of like lengths together")):
        difference = f"{result['largest_differences'][role]:.0e}"
        rows.append(row(words, *ratio_cells(result["ratios"][role]), difference, *_encoding(result[role])))
    setting = result["setting"]
    about = (
        f"{setting['texts']} captions of {result['mean_tokens']:.1f} tokens on average through the text tower of {setting['model']}, "
        f"{setting['batch_size']} a call, {result['threads']} threads, {result['rounds']} rounds; open_clip "
        f"{result['versions']['open_clip_torch']}. {machine}"
    )
    return "\n".join(["## Text encoding", "", about, "", *rows])


def _encoding(found: Result) -> tuple[str, str]:
    return f"{found['texts_per_s']['median']:.0f}", f"{found['peak_rss_mib']:.0f} MiB"


def resume_time_section(result: Result, machine: str) -> str:
    words = {
        "ours": "ours",
        "peer-stream": "`skip_first_batches`, a stream",
        "peer-map": "`skip_first_batches`, a map",
    }
    starts = list(result["contenders"]["ours"]["seconds"])
    rows = [row("seconds to the first batch after", *starts), row("---", *["---:" for _ in starts])]
    for role, name in words.items():
        seconds = result["contenders"][role]["seconds"]
        rows.append(row(name, *(f"{seconds[start]['median']:.2f}" if start in seconds else "" for start in starts)))
    setting = result["setting"]
    about = (
        f"{setting['shards']} shards of {setting['shard_samples']} images of {setting['size_px']} px, batches of "
        f"{setting['batch_size']}, one worker, {result['rounds']} rounds; accelerate {result['versions']['accelerate']}. At 90 % of an "
        f"epoch the stream takes {result['peer_over_ours_at_the_last']['peer-stream']['median']:.1f} times as long as ours. The next "
        f"100 keys are those of a run that never stopped, with one worker and with two. {machine}"
    )
    return "\n".join(["## Resuming", "", about, "", *rows])


def distributed_loss_section(result: Result, machine: str) -> str:
    rows = [
        "| exchange | time, ours / open_clip | range | memory, ours / open_clip | ours | open_clip |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    theirs = f"{result['peer']['grown_mib']['median']:,.0f} MiB"
    for role in ("gather", "bidir"):
        found = result[role]
        memory = f"{found['memory_ratio']['median']:.2f} x"
        rows.append(row(role, *ratio_cells(found["time_ratio"]), memory, f"{found['grown_mib']['median']:,.0f} MiB", theirs))
    setting = result["setting"]
    about = (
        f"Forward and backward of the CLIP loss on {setting['ranks']} ranks (gloo) of {setting['batch_size']:,} pairs each, "
        f"{setting['dim']} wide, float32, one thread a rank; open_clip {result['versions']['open_clip_torch']} with `local_loss` and "
        f"`gather_with_grad`, {result['rounds']} rounds. Memory is what a rank grew by. Gradients differ by "
        f"{result['largest_gradient_difference']:.0e} of the largest. {machine}"
    )
    return "\n".join(["## Contrastive loss on two ranks", "", about, "", *rows])


def gpu_train_section(result: Result, machine: str) -> str:
    words = {
        "peer": "open_clip",
        "ours": "ours",
        "ours_compiled": "ours, blocks compiled",
        "ours_padded": "ours, padding kept",
        "ours_checkpointed": "ours, activation checkpointing",
        "peer_compiled": "open_clip, compiled",
    }
    rows = [
        "| model and batch | trainer | samples/s | over open_clip | share of the matrix ceiling | peak GPU memory |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for each in sorted(
        result["rows"], key=lambda each: list(dict.fromkeys(r["model"] for r in result["rows"])).index(each["model"])
    ):
        where = f"{each['model']}, {each['batch_size']}"
        if "left_out" in each:
            rows.append(row(where, words[each["variant"]], each["left_out"], "", "", ""))
            continue
        peak = f"{each['peak_gpu_gib']:.1f} GiB" if each["peak_gpu_gib"] is not None else ""
        share = f"{100 * each['share_of_ceiling']:.0f} %"
        rows.append(row(where, words[each["variant"]], f"{each['samples_per_s']:,.0f}", f"{each['ratio']:.2f} x", share, peak))
    about = (
        f"bf16 on one {result['gpu']} (a matrix product reaches {result['matrix_ceiling_tflops']:.0f} TFLOP/s), batches ready in "
        f"memory, {result['steps'] - 4} steps timed, one run; torch {result['versions']['torch']}, open_clip "
        f"{result['versions']['open_clip_torch']}. The share counts what each computes: ours leaves the padding of texts out. {machine}"
    )
    return "\n".join(["## Training on a GPU", "", about, "", *rows])


def gpu_memory_section(result: Result, machine: str) -> str:
    rows = [
        "| model | activation checkpointing | ours | open_clip |",
        "| --- | --- | ---: | ---: |",
    ]
    found = {(each["model"], each["grad_checkpointing"], each["contender"]): each for each in result["rows"]}
    for model, checkpointing, contender in found:
        if contender == "peer" and (model, checkpointing, "ours") in found:
            sizes = [_largest(found[model, checkpointing, role]) for role in ("ours", "peer")]
            rows.append(row(model, "yes" if checkpointing else "no", *sizes))
    about = (
        f"Samples of one training step in bf16 that fit on one {result['gpu']}, to an eighth; no size above {result['cap']:,} was tried. "
        f"{machine}"
    )
    return "\n".join(["## Largest batch on a GPU", "", about, "", *rows])


def _largest(each: Result) -> str:
    return f"{each['batch_size']:,}" if each["fails_at"] else f"{each['batch_size']:,} or more"


def gpu_loss_section(result: Result, machine: str) -> str:
    rows = [
        "| pairs | time, ours / open_clip | memory, ours / open_clip | ours | open_clip |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in result["cases"]:
        memory = case["memory_ratio"]
        peaks = [f"{case[role]['grown_mib']:,.0f} MiB" if memory else "" for role in ("ours", "peer")]
        rows.append(row(f"{case['batch_size']:,}", f"{case['time_ratio']:.2f} x", f"{memory:.2f} x" if memory else "", *peaks))
    worst = max(case["largest_difference"] for case in result["cases"])
    about = (
        f"Forward and backward of the CLIP loss on one {result['gpu']}, {result['dim']} wide, float32; open_clip "
        f"{result['versions']['open_clip_torch']}. Loss and gradients differ by {worst:.0e} of the largest. {machine}"
    )
    return "\n".join(["## Contrastive loss on a GPU", "", about, "", *rows])


def ratio_cells(ratio: dict[str, float]) -> tuple[str, str]:
    return f"{ratio['median']:.2f} x", f"{ratio['low']:.2f}-{ratio['high']:.2f}"


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


SECTIONS: dict[str, Callable[[Result, str], str]] = {
    "distributed_loss.json": distributed_loss_section,
    "text_encoding.json": text_encoding_section,
    "train_step.json": train_step_section,
    "resume_time.json": resume_time_section,
    "gpu_train.json": gpu_train_section,
    "gpu_memory.json": gpu_memory_section,
    "gpu_loss.json": gpu_loss_section,
}
