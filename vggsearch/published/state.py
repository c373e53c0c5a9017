"""What is published beside the photos: the spec, the whitening, and which rows of which parts."""

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from vggsearch.errors import OptionError, PublishError
from vggsearch.knn.whitening import Whitening
from vggsearch.model.spec import EmbeddingSpec, spec_from_json

FORMAT = 1


@dataclass(frozen=True)
class Stamp:
    """Which photos are published: the `generation` of their table, its `version`, and a fingerprint of the rows."""

    generation: int
    version: int
    fingerprint: str


@dataclass(frozen=True)
class Record:
    """The state as it is stored: one row. `parts` is only needed to publish again."""

    stamp: Stamp
    rows: int
    header: str
    whitening: bytes
    parts: bytes


@dataclass(frozen=True)
class PublishedPart:
    """A part whose live rows are published: its hash, and which of its rows were live, bool (rows,)."""

    sha256: str
    live: NDArray[np.bool_]


@dataclass(frozen=True)
class State:
    """What the published vectors are: of `rows` photos, with `dim` dimensions, made by `spec` and `whitening`."""

    spec: EmbeddingSpec
    whitening: Whitening | None
    fingerprint: str
    rows: int
    dim: int
    parts: Mapping[str, PublishedPart]

    def is_on_one_scale_with(self, other: "State") -> bool:
        """Whether vectors of both can stand in one table."""
        mine, others = _bytes_of(self.whitening), _bytes_of(other.whitening)
        return (self.spec, self.dim, mine) == (other.spec, other.dim, others)

    def record(self, generation: int, version: int) -> Record:
        """Return it as it is stored, for photos in the table of a generation."""
        facts = {"format": FORMAT, "embedding": asdict(self.spec), "dim": self.dim}
        parts = {
            name: [part.sha256, len(part.live), b64encode(np.packbits(part.live).tobytes()).decode()]
            for name, part in self.parts.items()
        }
        stamp = Stamp(generation, version, self.fingerprint)
        packed = zlib.compress(json.dumps(parts).encode())
        return Record(stamp, self.rows, json.dumps(facts), _bytes_of(self.whitening), packed)

    @classmethod
    def of(cls, record: Record, where: str, *, with_parts: bool = False) -> "State":
        """Return the state that is stored at `where`. Raises PublishError if it cannot be read."""
        try:
            facts = json.loads(record.header)
            if facts["format"] > FORMAT:
                raise PublishError(
                    f"{where} was published by a newer version of vggsearch (format {facts['format']}, this one "
                    f"reads {FORMAT}). Upgrade vggsearch."
                )
            spec, dim = spec_from_json(facts["embedding"]), int(facts["dim"])
            parts = _parts_of(record.parts) if with_parts else {}
            whitening = _whitening_of(record.whitening, spec.dim, dim)
        except (KeyError, TypeError, ValueError, OptionError, zlib.error) as error:
            raise PublishError(
                f"The state in {where} cannot be read ({error}). Publish the index again."
            ) from error
        return cls(spec, whitening, record.stamp.fingerprint, record.rows, dim, parts)


def _bytes_of(whitening: Whitening | None) -> bytes:
    return b"" if whitening is None else whitening.matrix.tobytes() + whitening.bias.tobytes()


def _whitening_of(data: bytes, dim: int, size: int) -> Whitening | None:
    """Return the whitening of embeddings of `dim` dimensions to `size`. Raises ValueError for other bytes."""
    if not data:
        return None
    values = np.frombuffer(data, np.float32)
    return Whitening(values[: dim * size].reshape(size, dim), values[dim * size :].reshape(size))


def _parts_of(data: bytes) -> dict[str, PublishedPart]:
    found = json.loads(zlib.decompress(data))
    return {
        name: PublishedPart(
            sha256, np.unpackbits(np.frombuffer(b64decode(live), np.uint8), count=rows).astype(bool)
        )
        for name, (sha256, rows, live) in found.items()
    }
