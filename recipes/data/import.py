"""What the field publishes and what lies on people's disks -> image-text shards.

rsvl run data/import --source MY_IMAGES --out DATASET

`--format` names what it is; `auto` finds out. docs/formats.md lists what is read. A table of URLs is downloaded first, into a folder of its
own (`--downloads`); `rsvl run data/download` asks again for what failed.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from recipes._source import SourceOptions
from recipes.config import save_config
from rsvl_data.downloading.download import describe, download, is_downloaded
from rsvl_data.downloading.fetch_many import DownloadOptions
from rsvl_data.errors import OptionError
from rsvl_data.executor import start_importing
from rsvl_data.geo_facts import add_geo_facts
from rsvl_data.pipeline import BuildOptions, build
from rsvl_data.shards import Dataset
from rsvl_data.sources.url_table import UrlTable


@dataclass(frozen=True, kw_only=True)
class Options(SourceOptions, BuildOptions):
    download: DownloadOptions = field(default_factory=DownloadOptions)
    downloads: Path | None = None
    """folder for the images of a table of URLs, outside of --out; left out, that of --out with .downloads behind its name"""

    def facts(self) -> dict[str, Any]:
        """How the images came here is no matter: what came is in the plan."""
        return {name: value for name, value in super().facts().items() if name not in ("download", "downloads")}


def run(options: Options) -> Dataset | None:
    if options.workers > 1 and not options.dry_run:
        start_importing("rsvl_data.sources", "rsvl_data.geo_facts")
    source = options.open({"url-table": {"fetch": partial(_fetch, options)}})
    if options.dry_run and isinstance(source, UrlTable):
        return None
    dataset = build(source, [add_geo_facts(options.geo)], options, recipe="data/import", image_suffix=options.image.suffix)
    if dataset is not None:
        save_config(options.out, "data/import", options)
    return dataset


def _fetch(options: Options, table: Path) -> Path | None:
    """The folder of its download, which a dry run only describes."""
    out = options.out.resolve()
    folder = options.downloads or out.with_name(out.name + ".downloads")
    if folder.resolve().is_relative_to(out):
        raise OptionError(f"--downloads {folder} lies inside of --out {options.out}; give a folder beside it")
    if is_downloaded(table, folder, options.download):
        return folder
    if options.dry_run:
        print(describe(table, options.download))
        return None
    download(table, folder, options.download)
    return folder


def smoke(folder: Path) -> Options:
    """Twelve flat-coloured images in three class folders."""
    for index in range(12):
        path = folder / "source" / ("forest", "river", "beach")[index % 3] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (20 * index, 80, 255 - 20 * index)).save(path)
    return Options(source=str(folder / "source"), out=folder / "dataset", val=0.2, test=0.2)
