"""keypoints.parquet: the coded keypoints of photos, stored because detecting them means decoding each photo.

Keyed by content. The file is derived: losing it only costs time. A photo takes at most 12 kB, and there are photos
only of a folder that is small enough to compare the keypoints of all, see defaults.VoteDefaults.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vggsearch.defaults import VOTES
from vggsearch.errors import IndexDamaged
from vggsearch.store.contents import KEYPOINT_CODES
from vggsearch.store.files import write_atomically
from vggsearch.store.keypoint_matches import MADE_BY, read_table
from vggsearch.store.manifest import CHECKSUM
from vggsearch.store.parts import METADATA

DETECT_AGAIN = "Delete this file: the keypoints are then detected again."
CODE_SCHEMA = pa.schema(
    [pa.field("sha256", pa.string(), nullable=False), pa.field("keypoints", pa.binary(), nullable=False)]
)
KEYPOINT = np.dtype([("code", np.uint8, VOTES.bytes), ("angle", "<f4"), ("size", "<f4")])

Codes = NDArray[np.void]  # of dtype KEYPOINT, (n,): the keypoints of a photo, see knn.keypoint_votes.CodedKeypoints


def write_keypoint_codes(directory: Path, codes: Mapping[str, Codes], made_by: str) -> None:
    """Write the keypoints of photos, by SHA-256. `made_by` identifies the method. Raises IndexNotWritable."""
    values = [each.tobytes() for each in codes.values()]
    facts = json.dumps({MADE_BY: made_by, CHECKSUM: _checksum(made_by, codes, values)})
    columns = [pa.array(list(codes), pa.string()), pa.array(values, pa.binary())]
    table = pa.table(columns, CODE_SCHEMA.with_metadata({METADATA: facts.encode("ascii")}))
    write_atomically(
        directory / KEYPOINT_CODES,
        lambda path: pq.write_table(
            table, path, compression="none", use_dictionary=False, write_page_checksum=True
        ),
    )


def read_keypoint_codes(directory: Path, made_by: str) -> dict[str, Codes]:
    """Return the stored keypoints made by `made_by`, possibly none. Raises IndexDamaged and IndexNotReadable."""
    path = directory / KEYPOINT_CODES
    if not path.exists():
        return {}
    codes, facts = _read(path)
    return codes if facts[MADE_BY] == made_by else {}


def check_keypoint_codes(path: Path) -> None:
    """Raise IndexDamaged if even a single bit of the file has changed, IndexNotReadable if it cannot be read."""
    _read(path)


def _read(path: Path) -> tuple[dict[str, Codes], dict[str, str]]:
    """Return all keypoints and what made them. Raises IndexDamaged and IndexNotReadable."""
    table, facts = read_table(path, DETECT_AGAIN)
    try:
        if not table.schema.equals(CODE_SCHEMA):
            raise ValueError("other columns")
        keys, values = (table.column(field.name).to_pylist() for field in CODE_SCHEMA)
        if facts[CHECKSUM] != _checksum(facts[MADE_BY], keys, values):
            raise ValueError("wrong checksum")
        return {key: _keypoints(value) for key, value in zip(keys, values, strict=True)}, facts
    except (pa.ArrowException, AttributeError, KeyError, TypeError, ValueError) as error:
        raise IndexDamaged(path, f"is damaged ({str(error).splitlines()[0]})", DETECT_AGAIN) from error


def _keypoints(value: bytes) -> Codes:
    """Return the keypoints of one photo. Raises ValueError for what is never written."""
    found: NDArray[Any] = np.frombuffer(value, KEYPOINT)
    if not (np.isfinite(found["angle"]).all() and np.isfinite(found["size"]).all() and (found["size"] > 0).all()):
        raise ValueError("not the angle and size of a keypoint")
    return found


def _checksum(made_by: str, keys: Iterable[str], values: Iterable[bytes]) -> str:
    """Return a hash of all values and of what computed them."""
    digest = hashlib.sha256(made_by.encode("utf-8"))
    for key, value in zip(keys, values, strict=True):
        digest.update(f"{key} {len(value)} ".encode("ascii"))
        digest.update(value)
    return digest.hexdigest()
