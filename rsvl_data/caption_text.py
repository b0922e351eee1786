"""Text as it comes from files and web pages, made safe to keep: which encoding the bytes are in, and what of a caption is caption.

Easy to get wrong: text that only looks broken. A zero-width non-joiner is Persian spelling, a joiner holds an emoji together, right-to-left
text needs no mark to be right, "Null Island" is a place, and `x < y` is no tag. What changes nothing a reader sees (NFC, white space)
is changed always, so that equal captions are equal strings.
"""

import codecs
import html
import re
import unicodedata
from dataclasses import dataclass

MAX_CHARS = 5_000  # a page of a talkative model; web "captions" above it are articles
MAX_RAW_CHARS = 4 * MAX_CHARS  # mark-up may be longer than what it shows; also keeps every pattern below far from a second

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HIGH_BYTES = re.compile(rb"[\x80-\xff]+")
_CP1252_MARKS = frozenset("€‚ƒ„…†‡‰‹‘’“”•–—™› «»°±²³´µ·¹º¼½¾¿¡©®§")


@dataclass(frozen=True)
class BadCaption:
    """`reason` is a word for counting: caption_empty, caption_no_words, caption_encoding, caption_markup, caption_placeholder,
    caption_is_file_name, caption_is_url, caption_repetitive, caption_too_long."""

    reason: str


def decode_text(content: bytes) -> str:
    """The text of a file in an encoding that has to be found out. Raises UnicodeDecodeError, which names the byte."""
    return content.decode(detect_encoding(content))


def detect_encoding(content: bytes) -> str:
    """A Python codec name: by byte order mark, else UTF-8, else GB18030 or Windows-1252 where the text looks like one.

    GB18030 needs runs of high bytes that are mostly everyday Chinese characters; Windows-1252 (Latin-1) single accented letters among
    ASCII. Everything else, and UTF-8 that is cut, raises UnicodeDecodeError of the attempt as UTF-8: a wrong guess would be text.
    Korean in EUC-KR cannot be told from Chinese this way.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if content.startswith(mark):
            content.decode(encoding)
            return encoding
    try:
        content.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError as error:
        is_cut_utf8 = error.reason == "unexpected end of data" and any(byte >= 0x80 for byte in content[: error.start])
        if not is_cut_utf8 and _looks_chinese(content):
            return "gb18030"
        if not is_cut_utf8 and _looks_western(content):
            return "cp1252"
        raise


def _looks_chinese(content: bytes) -> bool:
    runs = _HIGH_BYTES.findall(content)
    in_pairs = sum(len(run) for run in runs if len(run) > 1)
    try:
        text = content.decode("gb18030")
    except UnicodeDecodeError:
        return False
    if any("\ue000" <= character <= "\uf8ff" for character in text):
        return False  # private use: where bytes of other East Asian encodings land
    hanzi = [character for character in text if "一" <= character <= "鿿"]
    everyday = sum(0xB0 <= character.encode("gb18030")[0] <= 0xD7 for character in hanzi)  # level 1 of GB 2312: 3,755 characters
    return len(hanzi) > 0 and 2 * in_pairs >= sum(map(len, runs)) and everyday >= 0.8 * len(hanzi)


def _looks_western(content: bytes) -> bool:
    try:
        text = content.decode("cp1252")
    except UnicodeDecodeError:
        return False
    foreign = [character for character in text if character >= "\x80"]
    known = all(character.isalpha() or character in _CP1252_MARKS for character in foreign)
    return known and len(foreign) <= 0.5 * len(text) and not re.search("[À-ÿ]{3}", text)  # three in a row: Cyrillic, Greek, ...


_INLINE = "a|abbr|b|big|cite|code|em|font|i|kbd|mark|q|s|small|span|strong|sub|sup|tt|u|wbr"
_BLOCK = (
    "address|article|aside|audio|blockquote|body|br|button|canvas|caption|center|dd|div|dl|dt|embed|fieldset|figcaption|figure|footer|form|"
    "h[1-6]|head|header|hr|html|iframe|img|input|label|li|link|main|meta|nav|object|ol|option|p|picture|pre|script|section|select|source|"
    "style|svg|table|tbody|td|textarea|tfoot|th|thead|title|tr|ul|video"
)
_HIDDEN = tuple(
    (re.compile(start, re.IGNORECASE), re.compile(end, re.IGNORECASE))
    for start, end in ((r"<script\b", r"</script\s*>"), (r"<style\b", r"</style\s*>"), ("<!--", "-->"))
)
_INLINE_TAG = re.compile(rf"</?(?:{_INLINE})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_BLOCK_TAG = re.compile(rf"</?(?:{_BLOCK})(?:\s[^<>]*)?/?>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")  # with its semicolon: "R&D" is no entity

_ESCAPE_SEQUENCE = re.compile(r"(?:\x1b\[|(?<![\x80-\uffff])\x9b)[0-?]*[ -/]*[@-~]|\x1b[@-_]?")  # 9b after a letter: mojibake
_VARIATION = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_INVISIBLE = re.compile(
    "(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{2,6}\U000e007f)"  # kept: the flags of England, Scotland, Wales
    "|[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]"  # control characters that are not white space
    "|[\u00ad\u180e\u200b\u2060-\u2065\ufeff\ufff9-\ufffb]"  # soft hyphen, zero width, byte order mark, annotations
    "|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f]"  # bidirectional marks, embeddings, overrides, isolates
    "|[\U000e0000-\U000e007f]"  # tag characters: hidden text
    f"|(?<=[{_VARIATION}])[{_VARIATION}]+"  # one variation selector chooses a form, more are hidden text
)
_NEEDLESS_JOINER = re.compile(
    "(?<![^\x00-\x7f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])|(?<=[\u200c\u200d])[\u200c\u200d]+"
)

_IMAGE_ENDINGS = "jpe?g|png|gif|bmp|tiff?|webp|jp2|avif|svg|heic|raw|dng"
_FILE_NAME = re.compile(
    rf"\S+\.(?:{_IMAGE_ENDINGS})|(?:img|dsc[nf]?|dji|pxl|gopr|dcim|pict)[-_ ]?\d[\d_ -]*(?:\.\w+)?", re.IGNORECASE
)
_URL = re.compile(r"(?:https?://|ftp://|www\.)\S+", re.IGNORECASE)
_PLACEHOLDERS = frozenset(
    "null|none|nan|nil|n/a|na|undefined|unknown|untitled|unnamed|no caption|no description|no title|no text|no alt text|"
    "no description available|image|img|photo|picture|caption|description|alt text|image description|todo|tbd|lorem ipsum".split(
        "|"
    )
)


def clean_caption(text: str) -> str | BadCaption:
    """What a reader sees of the caption, in one line and in NFC, or why it is none.

    Repaired: mojibake (UTF-8 read as another encoding), HTML tags removed and entities decoded once, terminal sequences, control,
    bidirectional and invisible characters removed, halves of surrogate pairs removed. Nothing is cut: what is longer than
    `MAX_CHARS` is dropped. HTML that was escaped twice is decoded once.
    """
    if len(text) > MAX_RAW_CHARS:
        return BadCaption("caption_too_long")
    if not _is_plain(text):
        text = _repaired(text)
    text = " ".join(text.split())
    reason = _fault(text)
    return BadCaption(reason) if reason else text


def _is_plain(text: str) -> bool:
    """Whether there is nothing to repair, as in most captions; a twentieth of the time that it takes to look for it all."""
    return text.isascii() and text.isprintable() and "<" not in text and "&" not in text


def _repaired(text: str) -> str:
    import ftfy  # here: not every process that reads tables or captions meets such a text

    if any("\ud800" <= character <= "\udfff" for character in text):  # join pairs, drop halves
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")
    text = ftfy.fix_encoding(_ESCAPE_SEQUENCE.sub("", text))  # ftfy would make letters of terminal controls
    text = _without_tags(_visible(text))
    text = _without_tags(_visible(_ENTITY.sub(lambda match: html.unescape(match[0]), text)))
    return unicodedata.normalize("NFC", text)


def _visible(text: str) -> str:
    text = _INVISIBLE.sub(lambda match: match[1] or "", _ESCAPE_SEQUENCE.sub("", text))
    return _NEEDLESS_JOINER.sub("", text)


def _without_tags(text: str) -> str:
    if "<" not in text:
        return text
    for start, end in _HIDDEN:
        text = _without_hidden(text, start, end)
    return _BLOCK_TAG.sub(" ", _INLINE_TAG.sub("", text))


def _without_hidden(text: str, start: re.Pattern[str], end: re.Pattern[str]) -> str:
    """Without what stands from a start to the next end, or to the end of the text, as browsers read it; in linear time."""
    pieces, position = [], 0
    while begin := start.search(text, position):
        pieces.append(text[position : begin.start()])
        finish = end.search(text, begin.end())
        position = finish.end() if finish else len(text)
    return " ".join([*pieces, text[position:]])


def _fault(text: str) -> str | None:
    if not text:
        return "caption_empty"
    if "\ufffd" in text:
        return "caption_encoding"  # a decoder before us lost letters
    if len(text) > MAX_CHARS:
        return "caption_too_long"
    if _INLINE_TAG.search(text) or _BLOCK_TAG.search(text):
        return "caption_markup"  # tags inside tags
    if not any(character.isalnum() for character in text):
        return "caption_no_words"
    if text.casefold().strip(" .,:;!?-_()[]<>\"'") in _PLACEHOLDERS:
        return "caption_placeholder"
    if _URL.fullmatch(text):
        return "caption_is_url"
    if _FILE_NAME.fullmatch(text):
        return "caption_is_file_name"
    words = text.casefold().split()
    if len(words) >= 20 and len(set(words)) <= 0.1 * len(words):
        return "caption_repetitive"
    return None
