"""Publish to LanceDB: tables in a bucket or a folder, without a server."""

import math
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from secrets import token_hex
from threading import Event, RLock, Thread
from typing import Any, cast

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.expr import col, lit
from lancedb.index import IvfSq
from numpy.typing import NDArray

from vggsearch.errors import OptionError, PublishError
from vggsearch.published.rows import FACTS, facts_schema, schema, vectors_in
from vggsearch.published.sql import WILD, Condition, Sql, condition
from vggsearch.published.state import Record, Stamp, State
from vggsearch.published.table import EXACT_ROWS, Found, Wanted, check_name
from vggsearch.query.filters import Dialect

LEASE_S = 60.0  # after which a publish that was killed no longer keeps others out
RENEW_S = 15.0
AT_ONCE = 1000  # paths that are named in one condition
PROBED = 1 / 8  # of the lists of an index
REFINED = 4  # times as many candidates as wanted, whose vectors are read
EPOCH = datetime(1970, 1, 1)
LANCE = Sql(
    expressions=Dialect(WILD, "(?:.*/)?", lambda inside: f"[[{inside}]&&[^/]]"),
    matches="regexp_like(folded, %s)",
    taken="cast(taken as bigint)",
    time=lambda moment: (moment - EPOCH) // timedelta(milliseconds=1),
)
STATES = pa.schema(
    [
        *(pa.field(name, pa.string()) for name in ("name", "owner", "fingerprint", "header")),
        *(pa.field(name, pa.int64()) for name in ("generation", "version", "photos")),
        *(pa.field(name, pa.binary()) for name in ("whitening", "parts")),
        pa.field("lease", pa.float64()),
    ]
)
STAMP = ["generation", "version", "fingerprint"]
FIND = ["path", "perceptual_hash", "vector"]
MESSAGE = re.compile(r'<Message>(.*?)</Message>|message: "(.*?)"', re.DOTALL)


class LanceTable:
    """Photos in LanceDB. The last part of the URL names them: lance+s3://BUCKET/NAME, lance+file:///FOLDER/NAME.

    Photos of generation 3 are in the table NAME_3, of which readers see the version that the only row of the table
    NAME_published names.
    """

    def __init__(self, url: str) -> None:
        place, _, name = url.removeprefix("lance+").rpartition("/")
        scheme, mark, rest = place.partition("://")
        if not mark or not rest or scheme not in ("s3", "gs", "az", "file") or "@" in rest:
            raise OptionError(
                "A place in LanceDB is lance+s3://BUCKET/NAME, lance+gs://BUCKET/NAME or "
                "lance+file:///FOLDER/NAME. Keys, region and endpoint are those of your environment."
            )
        self.name, self._place = check_name(name), rest if scheme == "file" else place
        self.shown = f"lance+{place}/{name}"
        self._database: Any = None
        self._opened: dict[Stamp, Any] = {}
        self._using = RLock()

    def close(self) -> None:
        """Forget the tables."""
        with self._using:
            self._database = None
            self._opened.clear()

    @contextmanager
    def writing(self) -> Iterator["LanceWriter"]:
        """Start to publish. Raises PublishError while another process publishes here."""
        with self._telling():
            states = self._states(create=True)
            lease = _Lease(states)
            if not lease.begin():
                raise PublishError(
                    f"Another process publishes to {self.shown}, or was killed less than {LEASE_S:.0f} s ago. "
                    "Run this again when it is done."
                )
        try:
            with self._telling():
                writer = LanceWriter(self, lease)
            yield writer
        finally:
            lease.end()

    def stamp(self) -> Stamp | None:
        """Return which photos are published now, None if none are."""
        with self._telling():
            row = self._state(STAMP)
        return None if row is None else Stamp(**row)

    def record(self) -> Record | None:
        """Return the state, None if nothing is published."""
        with self._telling():
            row = self._state([*STAMP, "photos", "header", "whitening", "parts"])
        if row is None:
            return None
        stamp = Stamp(row["generation"], row["version"], row["fingerprint"])
        return Record(stamp, row["photos"], row["header"], row["whitening"], row["parts"])

    def counts(self, stamp: Stamp, wanted: Wanted) -> tuple[int, int]:
        """Return how many photos are wanted, and how many of them are not blank."""
        text = _sql(condition(wanted, LANCE))
        with self._telling():
            table = self._at(stamp)
            return table.count_rows(text), table.count_rows(f"NOT is_blank AND {text}")

    def nearest(
        self, stamp: Stamp, vector: NDArray[np.float32], count: int, wanted: Wanted, *, exactly: bool
    ) -> Found:
        """Return the `count` wanted photos nearest to a vector, by the index or `exactly`."""
        with self._telling():
            table = self._at(stamp)
            query = _near(table, vector, wanted).limit(count)
            if exactly:
                return _found(query.bypass_vector_index())
            lists = int(math.sqrt(table.count_rows()))
            return _found(query.nprobes(max(32, int(PROBED * lists))).refine_factor(REFINED))

    def above(self, stamp: Stamp, vector: NDArray[np.float32], floor: float, wanted: Wanted) -> Found:
        """Return all wanted photos whose similarity to a vector is `floor` or more, but for blank ones."""
        with self._telling():
            table = self._at(stamp)
            query = _near(table, vector, wanted).distance_range(upper_bound=1 - floor)
            return _found(query.bypass_vector_index().limit(max(1, table.count_rows())))

    def at(self, stamp: Stamp, path: str, wanted: Wanted) -> Found:
        """Return the photo of this path if it is wanted."""
        text, values = condition(wanted, LANCE)
        where = _sql((f"path = %s AND {text}", [path, *values]))
        with self._telling():
            return _found(self._at(stamp).search().where(where).select(FIND))

    def facts(self, stamp: Stamp, paths: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield rows.FACTS of the photos of these paths, or of all."""
        for some in [None] if paths is None else (paths[at : at + AT_ONCE] for at in range(0, len(paths), AT_ONCE)):
            with self._telling():
                table = self._at(stamp)
                query = table.search().select([*FACTS]).limit(max(1, table.count_rows()))
                if some is not None:
                    query = query.where(col("path").isin([lit(path) for path in some]))
                found = query.to_arrow()
            yield found.select(FACTS).cast(facts_schema())

    def _at(self, stamp: Stamp) -> Any:
        """Return the table as it was when it was published."""
        if stamp not in self._opened:
            table = self.database.open_table(f"{self.name}_{stamp.generation}")
            table.checkout(stamp.version)
            self._opened = {stamp: table}
        return self._opened[stamp]

    @property
    def database(self) -> Any:
        """The connection."""
        if self._database is None:
            # What an endpoint says, in the environment, is what the user wants; LanceDB would refuse http.
            options = {} if self._place.startswith("/") else {"allow_http": "true"}
            self._database = lancedb.connect(self._place, storage_options=options)
        return self._database

    def _states(self, *, create: bool = False) -> Any:
        name = f"{self.name}_published"
        if create and not self._has(name):
            empty = {"name": self.name, "owner": "", "generation": 0, "version": 0, "photos": 0, "lease": 0.0}
            rows = pa.Table.from_pylist([empty], schema=STATES)
            try:
                return self.database.create_table(name, rows)
            except ValueError:  # another process was faster
                pass
        return self.database.open_table(name)

    def _has(self, name: str) -> bool:
        try:
            self.database.open_table(name)
        except ValueError as error:
            if "not found" not in str(error):
                raise
            return False
        return True

    def _state(self, columns: list[str]) -> dict[str, Any] | None:
        """Return these columns of the state, None if nothing is published."""
        if not self._has(f"{self.name}_published"):
            return None
        rows = self._states().search().select(columns).to_arrow().to_pylist()
        return rows[0] if rows and rows[0]["generation"] else None

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turn an error of LanceDB into one line that says what to do."""
        with self._using:
            try:
                yield
            except (ValueError, RuntimeError, OSError) as error:
                raise PublishError(
                    f"{self.shown} cannot be used ({_reason(error)}). Check the URL, and keys, region and endpoint "
                    "in your environment."
                ) from error


class _Lease:
    """The right to publish: a time in the state until which others wait. A thread renews it until `end`."""

    def __init__(self, states: Any) -> None:
        self.states, self.owner = states, token_hex(8)
        self._ended = Event()
        self._renewing = Thread(target=self._renew, daemon=True)

    def begin(self) -> bool:
        """Return whether the right was given."""
        taken = self._set(f"lease < {time.time()}", {"owner": self.owner, "lease": time.time() + LEASE_S})
        if taken:
            self._renewing.start()
        return taken

    def end(self) -> None:
        """Give the right back."""
        self._ended.set()
        self._renewing.join()
        self._set(f"owner = '{self.owner}'", {"lease": 0.0})

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_S):
            self._set(f"owner = '{self.owner}'", {"lease": time.time() + LEASE_S})

    def _set(self, where: str, values: dict[str, object]) -> bool:
        self.states.checkout_latest()
        return bool(self.states.update(where=where, values=values).rows_updated)


class LanceWriter:
    """One publish, in versions of a table that no state names yet."""

    def __init__(self, place: LanceTable, lease: _Lease) -> None:
        self._place, self._lease = place, lease
        self.record = place.record()
        stamp = self.record.stamp if self.record is not None else Stamp(0, 0, "")
        self._generation = stamp.generation
        self._is_new = False
        self._table: Any = None
        if stamp.generation:
            self._table = self._open(stamp.generation)
            if self._table.version != stamp.version:  # a publish was interrupted
                self._table.checkout(stamp.version)
                self._table.restore()
            place.database.drop_table(f"{place.name}_{stamp.generation - 1}", ignore_missing=True)

    def begin(self, dim: int) -> None:
        """Begin a new table for vectors of `dim` dimensions."""
        self._generation += 1
        self._is_new = True
        name = f"{self._place.name}_{self._generation}"
        with self._place._telling():
            self._table = self._place.database.create_table(name, schema=schema(dim), mode="overwrite")

    def add(self, photos: Iterable[pa.Table]) -> int:
        """Add photos, or replace those that differ from what is there; return how many."""
        added = 0
        for block in photos:
            with self._place._telling():
                changed = block if self._is_new else self._changed(block)
                added += len(changed)
                if self._is_new:
                    self._table.add(changed)
                elif len(changed):
                    merge = self._table.merge_insert("path").when_matched_update_all()
                    merge.when_not_matched_insert_all().execute(changed)
        return added

    def remove(self, paths: Sequence[str]) -> int:
        """Remove photos; return how many were there."""
        removed = 0
        for at in range(0, len(paths), AT_ONCE):
            with self._place._telling():
                some = [lit(path) for path in paths[at : at + AT_ONCE]]
                removed += self._table.delete(col("path").isin(some)).num_deleted_rows
        return removed

    def keep_only(self, paths: Iterable[Sequence[str]]) -> int:
        """Remove all photos but these, which are named in blocks; return how many."""
        kept = pa.chunked_array([pa.array(block, pa.string()) for block in paths], pa.string())
        return self.remove(_others(self._paths(self._table), kept))

    def count(self) -> int:
        """Return the number of photos."""
        with self._place._telling():
            return int(self._table.count_rows())

    def lost(self) -> int:
        """Return how many photos of the last table are not in the new one."""
        if self.record is None:
            return 0
        with self._place._telling():
            before = self._open(self.record.stamp.generation)
            before.checkout(self.record.stamp.version)
            return len(_others(self._paths(before), self._paths(self._table)))

    def commit(self, state: State) -> None:
        """Make the state and the photos visible to readers, at once. Raises PublishError if the lease was lost."""
        with self._place._telling():
            indexed = bool(self._table.list_indices())
            if not indexed and state.rows > EXACT_ROWS:
                self._table.create_index("vector", config=IvfSq(distance_type="cosine"))
            self._table.optimize()
            record = state.record(self._generation, self._table.version)
            row = {
                "name": self._place.name,
                "owner": self._lease.owner,
                "lease": time.time() + LEASE_S,
                **{name: getattr(record.stamp, name) for name in STAMP},
                "photos": record.rows,
                "header": record.header,
                "whitening": record.whitening,
                "parts": record.parts,
            }
            states = self._lease.states
            states.checkout_latest()
            merge = states.merge_insert("name").when_matched_update_all(where="target.owner = source.owner")
            done = merge.execute(pa.Table.from_pylist([row], schema=STATES))
        if not done.num_updated_rows:
            raise PublishError(f"Another process has published to {self._place.shown} meanwhile. Run this again.")

    def _open(self, generation: int) -> Any:
        return self._place.database.open_table(f"{self._place.name}_{generation}")

    def _changed(self, block: pa.Table) -> pa.Table:
        """Return the photos of a block that are not in the table as they are."""
        held: dict[str, dict[str, object]] = {}
        paths = block.column("path").to_pylist()
        for at in range(0, len(paths), AT_ONCE):
            where = col("path").isin([lit(path) for path in paths[at : at + AT_ONCE]])
            found = self._table.search().where(where).limit(AT_ONCE).to_arrow()
            held.update(
                zip(found.column("path").to_pylist(), _values(found.select(block.column_names)), strict=True)
            )
        differs = [held.get(path) != row for path, row in zip(paths, _values(block), strict=True)]
        return block.filter(pa.array(differs, pa.bool_()))

    def _paths(self, table: Any) -> pa.ChunkedArray:
        count = max(1, table.count_rows())
        return cast("pa.ChunkedArray", table.search().select(["path"]).limit(count).to_arrow().column("path"))


def _values(photos: pa.Table) -> list[dict[str, object]]:
    """Return the values of each photo, with the bytes of its vector, so that two can be compared."""
    rows: list[dict[str, object]] = photos.drop_columns(["vector"]).to_pylist()
    for row, vector in zip(rows, vectors_in(photos), strict=True):
        row["vector"] = vector.tobytes()
    return rows


def _others(paths: pa.ChunkedArray, without: pa.ChunkedArray) -> list[str]:
    others: list[str] = paths.filter(pc.invert(pc.is_in(paths, value_set=without.combine_chunks()))).to_pylist()
    return others


def _near(table: Any, vector: NDArray[np.float32], wanted: Wanted) -> Any:
    where = f"NOT is_blank AND {_sql(condition(wanted, LANCE))}"
    query = table.search(vector, vector_column_name="vector").distance_type("cosine")
    return query.where(where, prefilter=True).select([*FIND, "_distance"])


def _found(query: Any) -> Found:
    rows = query.to_arrow()
    return Found(rows.column("path").to_pylist(), rows.column("perceptual_hash").to_pylist(), vectors_in(rows))


def _sql(given: Condition) -> str:
    """Return a condition with its values as SQL literals: LanceDB takes no parameters."""
    text, values = given
    left = iter(values)
    return re.sub("%s", lambda _: _literal(next(left)), text)


def _literal(value: object) -> str:
    return str(value) if isinstance(value, int) else "'{}'".format(str(value).replace("'", "''"))


def _reason(error: Exception) -> str:
    """Return what is wrong, out of the long text of LanceDB."""
    text = str(error)
    found = [one or other for one, other in MESSAGE.findall(text)]
    return (found[-1] if found else text.splitlines()[0] if text else type(error).__name__)[:200]
