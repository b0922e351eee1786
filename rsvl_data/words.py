"""Class labels as people write them in folder names, turned into words a text encoder knows."""

import re

# Names that give no sign of where their words part: the UC Merced folders, http://weegee.vision.ucmerced.edu/datasets/landuse.html
_RUN_TOGETHER = {
    "baseballdiamond": "baseball diamond",
    "denseresidential": "dense residential",
    "golfcourse": "golf course",
    "mediumresidential": "medium residential",
    "mobilehomepark": "mobile home park",
    "parkinglot": "parking lot",
    "sparseresidential": "sparse residential",
    "storagetanks": "storage tanks",
    "tenniscourt": "tennis court",
}

_SEPARATORS = re.compile(r"[\s_/-]+")
_CAMEL_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def words_of_label(label: str) -> str:
    """Lower-case words with single spaces: "AnnualCrop" -> "annual crop", "rail-way-station" -> "rail way station".

    Underscore, hyphen, slash, white space and CamelCase part words; runs of capitals stay together ("RSCrop" -> "rs crop").
    A few run-together names are known ("golfcourse" -> "golf course").
    Raises ValueError for a label without a word.
    """
    pieces = [piece for piece in _SEPARATORS.split(label) if piece]
    if not pieces:
        raise ValueError(f"the label {label!r} holds no word; expected a class name such as 'golf_course' or 'AnnualCrop'")
    return " ".join(_RUN_TOGETHER.get(piece.lower()) or _CAMEL_HUMP.sub(" ", piece).lower() for piece in pieces)


def words_of_folder(label: str) -> str:
    """As GeoRSCLIP makes them of folder names: underscore and slash part words, capitals do not ("AnnualCrop" -> "annualcrop").

    Raises ValueError for a label without a word.
    """
    words = " ".join(re.sub("[_/]", " ", label).lower().split())
    if not words:
        raise ValueError(f"the label {label!r} holds no word; expected a class name such as 'golf_course' or 'AnnualCrop'")
    return words
