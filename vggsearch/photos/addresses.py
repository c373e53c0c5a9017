"""Addresses of photos that are not files of a folder: `s3://bucket/prefix`, `gs://bucket/prefix`, `tar:FOLDER`.

An address takes the place of a photo folder, as a Path: Path("s3://bucket/prefix"), which has one slash in place of
two. `address_of` returns it as it is written.
"""

import re
from pathlib import Path, PurePosixPath

from vggsearch.errors import OptionError
from vggsearch.system.places import from_home

TAR = "tar:"
STARTS = ("s3:/", "gs:/", TAR)
_SLASHES = re.compile(r"^((?:tar:)?(?:s3|gs)):/+")


def is_address(root: Path) -> bool:
    """Return whether a photo folder is an address."""
    text = root.as_posix()
    return text.startswith(STARTS) or text in ("s3:", "gs:")


def is_available(root: Path | None) -> bool:
    """Return whether photos can be read there: a folder that exists, or an address, which reading will tell."""
    return root is not None and (is_address(root) or root.is_dir())


def address_of(path: Path) -> str:
    """Return an address, or the path of a photo below one, as it is written; any other path as it is.

    >>> address_of(Path("s3://bucket/prefix") / "a.jpg")
    's3://bucket/prefix/a.jpg'
    """
    return _SLASHES.sub(r"\1://", path.as_posix()) if is_address(path) else str(path)


def settled(root: Path) -> Path:
    """Return a photo folder as an index records it: of `tar:FOLDER`, the folder is made absolute.

    Raises OptionError for an address that names no bucket, or holds a password, which would be recorded, too.
    """
    text = root.as_posix()
    if not is_address(root):
        return root
    inner = Path(text.removeprefix(TAR))
    if not is_address(inner):
        return Path(f"{TAR}{from_home(inner).resolve().as_posix()}")
    bucket = inner.parts[1] if len(inner.parts) > 1 else ""
    if "@" in bucket:
        raise OptionError(
            "The address of a bucket must hold no key or password, since the index records it: set AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )
    if not bucket or inner.as_posix().startswith(TAR):
        raise OptionError(f"{address_of(root)} names no bucket: an address is like s3://bucket/folder.")
    return root


def split(photo: Path) -> tuple[Path, str]:
    """Return the bucket of a photo's address, or the folder of its tar file, and the path of the photo there.

    >>> split(Path("s3://bucket/2019/a.jpg"))[1], split(Path("tar:/photos/1.tar/a.jpg"))[1]
    ('2019/a.jpg', '1.tar/a.jpg')

    Raises OptionError for an address that names no bucket, or holds a password.
    """
    photo = settled(photo)
    parts = photo.parts
    count = 2  # s3: and the bucket
    if photo.as_posix().startswith(TAR):
        count = next((at for at, part in enumerate(parts) if part.endswith(".tar")), len(parts) - 1)
    return Path(*parts[:count]), "/".join(parts[count:])


def name_problem(path: str) -> str | None:
    """Return why a path below an address cannot be that of a photo in an index, None if it can."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "its path is not valid UTF-8"
    if "\0" in path or PurePosixPath(path).as_posix() != path or {".", ".."} & set(path.split("/")):
        return "its path is absolute, leads up or has empty parts"
    return "its path is absolute, leads up or has empty parts" if path.startswith("/") else None


def escaped_name(path: str) -> str:
    """Return a path that has a `name_problem` as one name that has none, to report it by."""
    from urllib.parse import quote  # not above: decoder processes do without

    name = quote(path, safe="", errors="surrogateescape")
    return name if name.strip(".") else "%2E" * len(name) or "%"
