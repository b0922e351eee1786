"""Names of splits: ours are train, val and test."""

from rsvl_data.errors import DataError

_SPLIT_NAMES = {"train": "train", "restval": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def split_of_name(name: str) -> str | None:
    """Our name of a split for the names in use (train, restval, val, valid, validation, test), None for any other word."""
    return _SPLIT_NAMES.get(name.strip().lower())


def given_split(name: str | None, where: str) -> str | None:
    """The same for a field that must hold a split or nothing. Raises DataError that says `where`."""
    if not name:
        return None
    split = split_of_name(name)
    if split is None:
        raise DataError(f"{where} has split {name!r}; allowed are {', '.join(_SPLIT_NAMES)}")
    return split
