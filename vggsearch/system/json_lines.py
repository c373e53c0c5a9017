"""Lines of JSON that hold a checksum of their values, so that a changed letter is noticed."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

CHECK = "check"  # the last field of a line; a line without it was written by hand or by an older version


def encoded(values: Mapping[str, object]) -> bytes:
    """Return values as a line, without a newline, with their checksum.

    >>> encoded({"a": "é"}).decode()
    '{"a": "é", "check": "1bb044a0"}'
    """
    line = json.dumps({**values, CHECK: _checksum(values)}, ensure_ascii=False)
    return line.encode("utf-8", "surrogateescape")


def decoded(line: bytes) -> dict[str, Any]:
    """Return the values in a line, without their checksum, if it has one.

    Raises ValueError, TypeError or RecursionError for a line that is no JSON object, or has been changed.
    """
    values = json.loads(line.decode("utf-8", "surrogateescape"))
    if not isinstance(values, dict):
        raise TypeError(f"not an object, but {type(values).__name__}")
    check = values.pop(CHECK, None)
    if check is not None and check != _checksum(values):
        raise ValueError(f'its checksum is wrong; if you changed it yourself, delete its "{CHECK}", too')
    return values


def _checksum(values: Mapping[str, object]) -> str:
    """Return eight hexadecimal digits that do not depend on the order of fields and on spaces."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("ascii")).hexdigest()[:8]
