"""A dataset whose captions are there in a second language, for measurements of multilingual training.

python -m benchmarks.translated_captions --source DATASET --out NEW

Spanish by Apertium (`apt-get install apertium apertium-eng-spa`): rules without a model, which know few words of remote sensing and take a
plane for a level. Unknown words stay English. It shows that training on several languages works, not how good translations help.
"""

import argparse
import logging
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from rsvl_data.errors import DataError, OptionError
from rsvl_data.image_form import ImageForm
from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.sample import Caption, Sample, TextSource
from rsvl_data.shards import Dataset
from rsvl_data.sources import rsvl_dataset
from rsvl_data.stage import Stage

Translate = Callable[[list[str]], list[str]]
_SAMPLES_AT_A_TIME = 500  # starting Apertium takes longer than to translate a hundred sentences
_BETWEEN = "\n\n"  # Apertium ends a sentence there, so that none reaches into the next


def with_translations(source: Path, out: Path, lang: str, translate: Translate, engine: TextSource) -> Dataset:
    """Build `out`: the samples of `source` with each English caption also in `lang`, as kind `translation` after all others.

    Each distinct sentence is translated once in a process. A build that was killed goes on.
    """
    opened = Dataset.open(source)
    suffix = opened.manifest["image"]
    records = rsvl_dataset.open(source, opened.name, ImageForm(suffix))
    stages = [translation(lang, translate, engine)]
    options = BuildOptions(out=out, workers=1)
    dataset = build(records, stages, options, recipe="benchmarks/translated_captions", image_suffix=suffix)
    assert dataset is not None  # that would be a dry run
    return dataset


def translation(lang: str, translate: Translate, engine: TextSource) -> Stage:
    known: dict[str, str] = {}

    def run(samples: Iterable[Sample]) -> Iterator[Sample]:
        remaining = iter(samples)
        while some := list(islice(remaining, _SAMPLES_AT_A_TIME)):
            new = dict.fromkeys(c.text for sample in some for c in sample.captions if c.lang == "en" and c.text not in known)
            if new:
                known.update(zip(new, translate(list(new)), strict=True))
            for sample in some:
                yield sample.model_copy(update={"captions": [*sample.captions, *_translated(sample, lang, known, engine)]})

    return Stage("translate", run)


def _translated(sample: Sample, lang: str, known: dict[str, str], engine: TextSource) -> Iterator[Caption]:
    for place, caption in enumerate(sample.captions):
        if caption.lang == "en":
            yield Caption(text=known[caption.text], lang=lang, kind="translation", source=engine, parent=place)


def apertium(texts: list[str], pair: str = "eng-spa") -> list[str]:
    """Each text translated. Raises OptionError where Apertium or the pair is not installed."""
    if shutil.which("apertium") is None:
        raise OptionError(f"apertium is not installed: apt-get install apertium apertium-{pair}")
    flat = [" ".join(text.split()) for text in texts]
    done = subprocess.run(["apertium", "-u", pair], input=_BETWEEN.join(flat), capture_output=True, text=True)
    if done.returncode:
        raise OptionError(f"apertium {pair} failed: {(done.stderr or done.stdout).strip()}. apt-get install apertium-{pair}")
    translated = [text.strip() for text in done.stdout.strip("\n").split(_BETWEEN)]
    if len(translated) != len(texts) or not all(translated):
        raise DataError(f"apertium answered {len(translated)} sentences, or empty ones, to {len(texts)}")
    return translated


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with_translations(arguments.source, arguments.out, "es", apertium, TextSource(engine="apertium", model="eng-spa"))
