"""The suffixes of RAW formats, which cameras write beside a JPEG or instead of one."""

from pathlib import PurePosixPath

RAW_FORMAT = "RAW"  # of a file that is RAW by its content, instead of Pillow's name of the format

RAW_MAKERS = {
    ".3fr": "Hasselblad",
    ".arw": "Sony",
    ".cr2": "Canon",
    ".cr3": "Canon",
    ".crw": "Canon",
    ".dcr": "Kodak",
    ".dng": "Adobe; also Leica, Pentax, Ricoh, phones",
    ".erf": "Epson",
    ".iiq": "Phase One",
    ".kdc": "Kodak",
    ".mef": "Mamiya",
    ".mos": "Leaf",
    ".mrw": "Minolta",
    ".nef": "Nikon",
    ".nrw": "Nikon",
    ".orf": "Olympus",
    ".pef": "Pentax",
    ".raf": "Fujifilm",
    ".raw": "Panasonic, Leica",
    ".rw2": "Panasonic",
    ".rwl": "Leica",
    ".sr2": "Sony",
    ".srf": "Sony",
    ".srw": "Samsung",
    ".x3f": "Sigma",
}


def is_raw(name: str) -> bool:
    """Return whether a file is RAW by its suffix, in upper or lower case."""
    return PurePosixPath(name).suffix.casefold() in RAW_MAKERS
