"""The section of benchmarks/README.md about a step of FarSLIP."""

from benchmarks.training_tables import Result, ratio_cells, row


def farslip_step_section(result: Result, machine: str) -> str:
    words = {"stage1": "stage 1, crops at random", "stage2": "stage 2, crops of objects", "together": "a step of each"}
    rows = [
        "| | CPU time, released / ours | range | clock | losses differ by | ours, CPU s a step | released | peak memory of both |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in [*result["cases"], result["together"]]:
        seconds = [f"{case[role]['cpu_seconds_a_step']['median']:.1f}" for role in ("ours", "peer")]
        clock, _ = ratio_cells(case["ratio"])
        difference = peaks = ""
        if case is not result["together"]:
            peaks = " and ".join(f"{case[role]['peak_rss_mib'] / 1024:.1f} GiB" for role in ("ours", "peer"))
            difference = f"{case['largest_loss_difference']:.0e}"
        rows.append(row(words[case["stage"]], *ratio_cells(case["cpu_ratio"]), clock, difference, *seconds, peaks))
    setting = result["setting"]
    about = (
        f"{setting['model']}, {setting['batch_size']} pictures a step with {setting['crops_per_image']} crops each, fp32, "
        f"{setting['threads']} threads, {setting['rounds']} rounds in turn: our `train` and FarSLIP's `train_one_epoch`, the same weights, "
        f"batches and AdamW settings; torch {result['versions']['torch']}. {machine}"
    )
    return "\n".join(["## A step of FarSLIP", "", about, "", *rows])


SECTIONS = {"farslip_step.json": farslip_step_section}
