"""Captions, their encodings, and tables of them: python -m tests.fuzz.text --seconds 60"""

import contextlib
import unicodedata

from rsvl_data.caption_text import MAX_CHARS, BadCaption, clean_caption, decode_text
from rsvl_data.sources import Format
from tests.fuzz.engine import BrokenRule, fuzz, read_everything, scratch_folder, shared_fixtures

FOLDER = scratch_folder()
PLACES: tuple[tuple[str, Format], ...] = (
    ("table.csv", "table"),
    ("table.tsv", "table"),
    ("table.jsonl", "table"),
    ("rs3_train.csv", "rs5m"),
    ("sky.csv", "skyscript"),
)
SEEDS = [
    "a river <b>and</b> &lt;script&gt; x &amp;amp; y",
    "image,caption,lat,lon,split\na.png,a river,1.5,2.5,train\nb.png,again,x,,\n",
    'image;caption\na.png;"a ""long"" river\nand more"\n',
    '{"image": "a.png", "caption": ["a", "b"], "lat": 5, "label": "sea", "lang": "de", "gsd_m": 0.3}\n',
    "filepath,title,title_multi_objects\na.png,a river,a river and a road\n",
    "\x1b[31mred\x1b[0m \u202eolleh\u202c \u200b \U000e0041",
    "âœ” l’Ã©tÃ©",
]


def target(content: bytes) -> None:
    with contextlib.suppress(UnicodeDecodeError):
        check_caption(decode_text(content))
    check_caption(content.decode("utf-8", "surrogateescape"))
    check_caption(content.decode("utf-16-le", "surrogatepass" if len(content) % 2 == 0 else "ignore"))
    for name, format in PLACES:
        path = FOLDER / name.replace(".", "_") / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        try:
            read_everything(path.parent, format)
        except ValueError as error:
            if "holds nothing that can be imported" not in str(error):
                raise


def check_caption(text: str) -> None:
    cleaned = clean_caption(text)
    if isinstance(cleaned, BadCaption):
        return
    cleaned.encode()
    if not 0 < len(cleaned) <= MAX_CHARS or unicodedata.normalize("NFC", cleaned) != cleaned:
        raise BrokenRule("a caption that is empty, too long or not in NFC")
    if any(unicodedata.category(c) == "Cc" or unicodedata.bidirectional(c) in BIDI for c in cleaned):
        raise BrokenRule("a control or bidirectional character is left")


BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}

if __name__ == "__main__":
    fuzz(
        target, [*(seed.encode() for seed in SEEDS), *shared_fixtures("bad/captions/*", "bad/tables/*.csv", "bad/tables/*.jsonl")]
    )
