"""docs/ablations.md, every number of it from the result files of the ablation."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.ablation.summary import BASELINE, verdict

Found = dict[str, Any]  # a result file

_TITLES = {"scenes": "Procedural scenes", "real": "Real images"}
_TASKS = {"zero_shot": "zero-shot", "objects": "objects", "retrieval": "retrieval", "open_vocabulary": "mIoU"}
_DATA = {"ucm": "UCM", "eurosat": "EuroSAT", "ucm-captions": "UCM", "ucm-vhr10 es": "UCM in Spanish", "vhr10 objects": "VHR-10"}
_DATA |= {"scenes objects": "scenes", "nwpu-vhr10": "VHR-10", "loveda": "LoveDA", "isaid": "iSAID"}
_TASKS_EXPLAINED = (
    "*zero-shot* is top-1 accuracy of scene classes; *objects* that of annotated objects cut out of test images, which is what regions "
    "with cls train for; *retrieval* the mean of recall at 1, 5 and 10 in both directions; *mIoU* that of masks from words (`segearth` "
    "head, protocol `rsvl`, no threshold)."
)

_SCALE_EXPLAINED = {
    "cpu": "So small a model, trained for so short a time, says which way an objective pulls, not how far it takes a model of use.",
    "gpu": "The model is one that people use, trained from fresh weights on far fewer images than they would take.",
}

_CELLS_EXPLAINED = (
    "A cell has the mean over seeds in percent (lowest–highest seed), and below it the difference to CLIP only in points, with the 95 % "
    "interval of a paired bootstrap over test items of all seeds together. **Bold**: the interval leaves out 0, every seed has the "
    "same sign, and one of the two is better than *guessing*: the better of a uniform guess and one class for "
    "every object or pixel. The intervals speak of other images, not of other seeds, and none is corrected for the number of "
    "comparisons: one in twenty leaves out 0 by chance. Where values lie near guessing, differences mean little. A difference is one to "
    "CLIP only; other arms are not compared with each other. Forty steps are few for a teacher that follows slowly: at a momentum of 0.99 "
    "two thirds of the `ema` teacher are still the start, as the whole of the `frozen` one is."
)


def page(folder: Path) -> str | None:
    """None where nothing was measured."""
    if not (folder / "grid.json").exists():
        return None
    grid = json.loads((folder / "grid.json").read_text())
    blind = json.loads((folder / "blind.json").read_text())["worlds"]
    worlds = {world: _read(folder / world, grid["arms"]) for world in _TITLES}
    for world, found in worlds.items():
        raise_guessing(found, blind[world])
    parts = [
        "# Ablations",
        "Of the two tables one is measured on procedural scenes, not real imagery; the other on a few hundred real images.",
        _about(worlds["scenes"][0], grid),
        _on_both(worlds),
        *(part for world, found in worlds.items() for part in section(world, found, blind[world])),
        _rates(grid["tried"]),
    ]
    return "\n\n".join(parts) + "\n"


def _read(folder: Path, arms: Sequence[str]) -> list[Found]:
    """In the order of the arms; not all of them are measured on all data."""
    return [json.loads(path.read_text()) for name in arms if (path := folder / f"{name}.json").exists()]


def raise_guessing(found: Sequence[Found], blind: Mapping[str, Found]) -> None:
    """Where one class is the better guess."""
    for each in found:
        for name, facts in blind.items():
            measured = each["measured_on"][name]
            measured["chance"] = max(measured["chance"], facts["guess"])


def _about(baseline: Found, grid: Found) -> str:
    setting, machine, trained_on = grid["setting"], baseline["machine"], grid["train_images"]
    start, millions = f"{setting['start_steps']} steps of {setting['start_batch_size']}", grid["parameters"] / 1e6
    how = (
        f"One start for all: `{setting['model']}` ({millions:.1f} million parameters), trained for {start} "
        f"on {setting['sizes']['start']:,} scenes of another seed. Every arm then takes "
        f"{setting['steps']} steps of {setting['batch_size']} on {trained_on['scenes']:,} scenes or {trained_on['real']:,} real images, "
        f"with {len(baseline['seeds'])} seeds of order, views and heads; where an arm has two stages, they share the steps. Crops are "
        f"{setting['crop_px']} px wide. The learning rate is chosen on val, for each family of arms and kind of data. "
        f"{_SCALE_EXPLAINED[setting['name']]}\n\n"
        f"Everything runs again with `python -m benchmarks.ablation --scale {setting['name']}` "
        f"({machine['cores']} cores of {machine['cpu']}; code {baseline['code']}; written by `python -m benchmarks.tables`)."
    )
    return f"{how}\n\n{_TASKS_EXPLAINED} {_CELLS_EXPLAINED}"


def _on_both(worlds: Mapping[str, Sequence[Found]]) -> str:
    """Of each task the arms whose difference is told apart in both worlds, and nowhere with the other sign."""
    names = {each["arm"]: each["words"] for found in worlds.values() for each in found if each["arm"] != BASELINE}
    parts = []
    for task, words in _TASKS.items():
        signs = {name: [_signs(found, name, task) for found in worlds.values()] for name in names}
        for sign, side in ((1, "higher"), (-1, "lower")):
            if same := [names[name] for name, sets in signs.items() if all(sign in each and -sign not in each for each in sets)]:
                parts.append(f"- {words}: {side} with {', '.join(same)}")
    about = "Told apart from CLIP only on scenes and on a real set, and on none with the other sign:"
    return "## What holds on both kinds of data\n\n" + "\n".join([about, "", *(parts or ["- nothing"])])


def _signs(found: Sequence[Found], arm: str, task: str) -> set[int]:
    """Verdicts on all data of a task; none for an arm that was not measured there."""
    measured = next((each["measured_on"] for each in found if each["arm"] == arm), {})
    return {verdict(each) for name, each in measured.items() if name.partition(" ")[0] == task}


def section(world: str, found: Sequence[Found], blind: Mapping[str, Found]) -> list[str]:
    baseline = next(each for each in found if each["arm"] == BASELINE)
    names = list(baseline["measured_on"])
    heads = [f"{_TASKS[task]}, {_DATA.get(data, data)}" for task, _, data in (name.partition(" ") for name in names)]
    about = [f"{baseline['measured_on'][name]['n']}" for name in names]
    chances = [_percent(chance) if (chance := baseline["measured_on"][name]["chance"]) is not None else "" for name in names]
    rows = [_row("arm", *heads), _row("---", *["---:"] * len(names)), _row("test items", *about), _row("guessing", *chances)]
    for each in found:
        rows.append(_row(each["words"], *(_cell(each["measured_on"][name], each["arm"] == BASELINE) for name in names)))
    few = [
        f"The {blind[name]['items']} objects of {head.partition(', ')[2]} lie in {blind[name]['images']} images, and the intervals "
        "take them for separate."
        for name, head in zip(names, heads)
        if name in blind and "items" in blind[name]
    ]
    return [f"## {_TITLES[world]}", "\n".join(rows), *few, _findings(found, names, heads)]


def _cell(measured: Found, is_baseline: bool) -> str:
    values = [seed["value"] for seed in measured["per_seed"]]
    value = f"{_percent(measured['mean']['value'])} ({_percent(min(values))}–{_percent(max(values))})"
    if is_baseline:
        return value
    difference = measured["difference"]
    text = f"{_points(difference['value'])} [{_points(difference['low'])}, {_points(difference['high'])}]"
    return f"{value}<br>{f'**{text}**' if verdict(measured) else text}"


def _findings(found: Sequence[Found], names: Sequence[str], heads: Sequence[str]) -> str:
    others = [each for each in found if each["arm"] != BASELINE]
    lines, told_apart = [], 0
    for name, head in zip(names, heads):
        sides = {}
        for sign, word in ((1, "higher with"), (-1, "lower with")):
            arms_of_sign = [each for each in others if verdict(each["measured_on"][name]) == sign]
            arms_of_sign.sort(key=lambda each: -abs(each["measured_on"][name]["difference"]["value"]))
            told_apart += len(arms_of_sign)
            if arms_of_sign:
                sides[word] = ", ".join(
                    f"{each['words']} ({_points(each['measured_on'][name]['difference']['value'])})" for each in arms_of_sign
                )
        lines.append(f"- {head}: " + ("; ".join(f"{word} {listed}" for word, listed in sides.items()) or "nothing is told apart"))
    start = f"Of {len(others) * len(names)} differences to CLIP only, {told_apart} are told apart:"
    return "\n".join([start, "", *lines])


def _rates(tried: Sequence[Found]) -> str:
    rows = [
        _row("data", "family", "arm", "peak rate", *_TASKS.values(), "mean"),
        _row(*["---"] * 3, *["---:"] * (len(_TASKS) + 2)),
    ]
    best: dict[tuple[str, str], float] = {}
    for each in tried:
        family = each["world"], each["family"]
        best[family] = max(best.get(family, 0.0), mean(each["val"].values()))
    for each in tried:
        score = mean(each["val"].values())
        chosen = score == best[each["world"], each["family"]]
        cells = [_percent(each["val"][task]) for task in _TASKS]
        rate = f"{each['lr']:g}"
        rows.append(_row(each["world"], each["family"], each["arm"], f"**{rate}**" if chosen else rate, *cells, _percent(score)))
    about = (
        "On val, one seed, in percent; of a task the mean over its data sets. **Bold** is what the tables above are measured with. A rate "
        "is chosen by the mean over tasks, so a family that gains much on one may take a rate at which it loses on another: rows of equal "
        "rates compare the families without that."
    )
    return f"## Learning rates\n\n{about}\n\n" + "\n".join(rows)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.1f}".replace("-", "−")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
