"""The sections of benchmarks/README.md about heat maps and masks. Each takes a result file's content and the sentence about its machine."""

from collections.abc import Callable

from benchmarks.training_tables import Result, ratio_cells, row


def localization_section(result: Result, machine: str) -> str:
    words = {
        "similarity": "windows cut and encoded",
        "map": "similarities to the map",
        "blur": "median blur",
        "total": "scene to the four indicators",
        "cpu": "the same, CPU time",
    }
    rows = ["| | speed, ours / authors' scripts | range | ours | theirs |", "| --- | ---: | ---: | ---: | ---: |"]
    for part, meaning in words.items():
        seconds = [f"{result[role][f'{part}_s']['median']:.3g} s" for role in ("ours", "peer")]
        rows.append(row(meaning, *ratio_cells(result["ratio"][part]), *seconds))
    setting, off, peaks = result["setting"], result["largest_difference"], result["peak_rss_mib"]
    about = (
        f"Semantic localisation in a scene of {setting['width_px']:,} x {setting['height_px']:,} px, {setting['windows']} windows, an "
        f"encoder that costs nothing, {result['rounds']} rounds. From equal similarities the maps are equal; end to end they are at most "
        f"{off['map_levels']:.0f} of 255 levels apart, because the scripts write their windows as JPEG, and the indicators "
        f"{off['indicators']:.0e}. Peak memory {peaks['ours']:,.0f} MiB (ours) and {peaks['peer']:,.0f} MiB. {machine}"
    )
    return "\n".join(["## Semantic localisation", "", about, "", *rows])


def open_vocabulary_section(result: Result, machine: str) -> str:
    rows = ["| | speed, ours / one window a forward | range | ours | theirs |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, ratio, meaning in (("seconds", "ratio", "wall clock"), ("cpu_seconds", "cpu_ratio", "CPU time")):
        seconds = [f"{result[role][name]['median']:.1f} s" for role in ("ours", "peer")]
        rows.append(row(meaning, *ratio_cells(result[ratio]), *seconds))
    setting = result["setting"]
    peaks = [f"{result[role]['peak_rss_mib']['median']:,.0f} MiB" for role in ("ours", "peer")]
    about = (
        f"One image of {setting['size_px']:,} x {setting['size_px']:,} px, {setting['num_classes']} classes, "
        f"{setting['architecture']} with random weights, windows of 224 px every 112, float32, {setting['threads']} threads, "
        f"{result['rounds']} rounds; the peer has the shape of SegEarth-OV's loop. Masks agree in "
        f"{100 * result['agreement']:.3f} % of the pixels. Peak memory {peaks[0]} (ours) and {peaks[1]}. {machine}"
    )
    return "\n".join(["## Open-vocabulary segmentation", "", about, "", *rows])


SECTIONS: dict[str, Callable[[Result, str], str]] = {
    "localization.json": localization_section,
    "open_vocabulary.json": open_vocabulary_section,
}
