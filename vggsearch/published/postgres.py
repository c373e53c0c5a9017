"""Publish to PostgreSQL with pgvector: half-precision vectors, an HNSW index, filters as columns."""

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import RLock
from typing import Any, LiteralString
from uuid import UUID

import numpy as np
import psycopg
import pyarrow as pa
from numpy.typing import NDArray
from pgvector import HalfVector
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from vggsearch.errors import OptionError, PublishError
from vggsearch.published.rows import BLOCK_ROWS, FACTS, facts_schema, schema, vectors_in
from vggsearch.published.sql import WILD, Sql, condition
from vggsearch.published.state import Record, Stamp, State
from vggsearch.published.table import Found, Wanted, check_name
from vggsearch.query.filters import Dialect

STATE = sql.Identifier("vggsearch_published")
CONNECT_S = 10
AGAIN_S = (
    2.0  # after a failure, until which others that want to connect fail at once: each would wait for CONNECT_S
)
ALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 30_000}
MOST_DIMENSIONS = 4000  # of halfvec in an HNSW index
LEAST_VERSION = (0, 8)  # of pgvector: the first that goes on until a filter has let enough pass
LEAST_EF, MOST_EF = 200, 1000  # recall@10 at 50,000 vectors: 0.996 with 200
SCANNED = 2**31 - 1  # the largest max_scan_tuples: a filter must not shorten an answer
POSTGRES = Sql(
    expressions=Dialect(WILD, "(?:.*/)?", lambda inside: f"(?!/)[{inside}]"),
    matches="folded ~ %s",
    taken="taken",
    time=lambda moment: moment,
)
COLUMNS: LiteralString = """
    id uuid NOT NULL, path text NOT NULL, folder text NOT NULL, folded text COLLATE "C" NOT NULL,
    bytes bigint NOT NULL, sha256 text NOT NULL, width integer NOT NULL, height integer NOT NULL,
    format text NOT NULL, taken timestamp, camera text, is_blank boolean NOT NULL, perceptual_hash bytea,
    vector halfvec({dim}) NOT NULL
"""
TYPES = [
    *("uuid", "text", "text", "text", "int8", "text", "int4", "int4", "text", "timestamp", "text", "bool", "bytea"),
    "halfvec",
]


class PostgresTable:
    """Photos in PostgreSQL, by default those called photos; a URL ends with the name of others: #NAME.

    Photos of generation 3 are the rows of the table vggsearch_NAME_3, and states those of vggsearch_published.
    """

    def __init__(self, url: str) -> None:
        place, _, name = url.partition("#")
        self.name, self._options = check_name(name or "photos"), _options_of(place)
        self.shown = _shown(self._options, self.name)
        self._connection: psycopg.Connection[Any] | None = None
        self._failed: tuple[float, psycopg.OperationalError] | None = None
        self._using = RLock()

    def close(self) -> None:
        """Close the connection."""
        with self._using:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    @contextmanager
    def writing(self) -> Iterator["PostgresWriter"]:
        """Start to publish, in one transaction. Raises PublishError while another process publishes here."""
        with self._telling():
            connection = self._connected()
            _prepare(connection, self.shown)
            register_vector(connection)
            with connection.transaction():
                lock = "SELECT pg_try_advisory_xact_lock(hashtext('vggsearch'), hashtext(%s))"
                if not _first(connection, lock, [self.name])[0]:
                    raise PublishError(
                        f"Another process publishes to {self.shown}. Run this again when it is done."
                    )
                yield PostgresWriter(connection, self.name, self._read_record(connection), self.shown)

    def stamp(self) -> Stamp | None:
        """Return which photos are published now, None if none are; on a new connection if the server closed it."""
        with self._using, suppress(psycopg.OperationalError):
            if self._connection is not None:
                self._connection.execute("SELECT 1")
        with self._telling():
            connection = self._connected()
            if not _has_state(connection):
                return None
            query = sql.SQL("SELECT generation, version, fingerprint FROM {} WHERE name = %s").format(STATE)
            row = connection.execute(query, [self.name]).fetchone()
        return None if row is None else Stamp(*row)

    def record(self) -> Record | None:
        """Return the state, None if nothing is published."""
        with self._telling():
            connection = self._connected()
            return self._read_record(connection) if _has_state(connection) else None

    def counts(self, stamp: Stamp, wanted: Wanted) -> tuple[int, int]:
        """Return how many photos are wanted, and how many of them are not blank."""
        text, values = condition(wanted, POSTGRES)
        query = f"{COUNT} WHERE {text}"
        with self._telling():
            found = self._connected().execute(self._query(query, stamp), values).fetchone()
        return (0, 0) if found is None else (found[0], found[1])

    def nearest(
        self, stamp: Stamp, vector: NDArray[np.float32], count: int, wanted: Wanted, *, exactly: bool
    ) -> Found:
        """Return the `count` wanted photos nearest to a vector, by the HNSW index or `exactly`."""
        text, values = condition(wanted, POSTGRES)
        query = f"{FIND} WHERE NOT is_blank AND {text} ORDER BY vector <=> %s LIMIT %s"
        settings = {"enable_indexscan": "off"} if exactly else _hnsw_settings(count)
        return self._found(stamp, query, [*values, HalfVector(vector), count], settings)

    def above(self, stamp: Stamp, vector: NDArray[np.float32], floor: float, wanted: Wanted) -> Found:
        """Return all wanted photos whose similarity to a vector is `floor` or more, but for blank ones."""
        text, values = condition(wanted, POSTGRES)
        query = f"{FIND} WHERE NOT is_blank AND {text} AND vector <=> %s <= %s"
        return self._found(stamp, query, [*values, HalfVector(vector), 1 - floor], {})

    def at(self, stamp: Stamp, path: str, wanted: Wanted) -> Found:
        """Return the photo of this path if it is wanted."""
        text, values = condition(wanted, POSTGRES)
        return self._found(stamp, f"{FIND} WHERE id = %s AND {text}", [_id(path), *values], {})

    def facts(self, stamp: Stamp, paths: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield rows.FACTS of the photos of these paths, or of all: other threads use the connection in between."""
        if paths is not None:
            yield _facts_in(self._rows(stamp, f"{LIST} WHERE id = ANY(%s)", [[*map(_id, paths)]]))
            return
        last = UUID(int=0)
        while rows := self._rows(stamp, f"{LIST} WHERE id > %s ORDER BY id LIMIT %s", [last, BLOCK_ROWS]):
            yield _facts_in(rows)
            last = rows[-1][-1]

    def _rows(self, stamp: Stamp, query: str, values: list[object]) -> list[tuple[Any, ...]]:
        with self._telling():
            return self._connected().execute(self._query(query, stamp), values, binary=True).fetchall()

    def _found(self, stamp: Stamp, query: str, values: list[object], settings: dict[str, str]) -> Found:
        with self._telling():
            connection = self._connected()
            register_vector(connection)
            with connection.transaction():
                for name, value in settings.items():
                    connection.execute("SELECT set_config(%s, %s, true)", [name, value])
                rows = connection.execute(self._query(query, stamp), values, binary=True).fetchall()
        vectors = [vector.to_numpy() for _, _, vector in rows]
        return Found([row[0] for row in rows], [row[1] for row in rows], np.array(vectors, np.float16))

    def _query(self, text: str, stamp: Stamp) -> sql.Composed:
        return sql.SQL(text).format(_table(self.name, stamp.generation))

    def _read_record(self, connection: "psycopg.Connection[Any]") -> Record | None:
        query = sql.SQL(
            "SELECT generation, version, fingerprint, photos, header, whitening, parts FROM {} WHERE name = %s"
        ).format(STATE)
        row = connection.execute(query, [self.name]).fetchone()
        return None if row is None else Record(Stamp(*row[:3]), *row[3:])

    def _connected(self) -> "psycopg.Connection[Any]":
        if self._connection is None or self._connection.closed:
            if self._failed is not None and time.monotonic() - self._failed[0] < AGAIN_S:
                raise self._failed[1]
            options: dict[str, Any] = {
                "connect_timeout": CONNECT_S,
                "application_name": "vggsearch",
                **ALIVE,  # a server that is cut off is noticed within a minute
                **self._options,
            }
            try:
                # Nothing is prepared on the server, so that a pooler of connections may stand in between.
                self._connection = psycopg.connect(**options, autocommit=True, prepare_threshold=None)
            except psycopg.OperationalError as error:
                self._failed = time.monotonic(), error
                raise
        return self._connection

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turn an error of the server into one line that says what to do, and holds no password."""
        with self._using:
            try:
                yield
            except psycopg.Error as error:
                raise PublishError(self._told(error)) from None

    def _told(self, error: psycopg.Error) -> str:
        lines = (error.diag.message_primary or str(error) or type(error).__name__).strip().splitlines()
        reason = lines[0]
        if password := self._options.get("password"):
            reason = reason.replace(str(password), "***")
        if isinstance(error, psycopg.errors.UndefinedTable):
            return f"The photos in {self.shown} were published anew meanwhile. Run the same command again."
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            return f"{self.shown}: {reason}. Use an account that may do this, or have it granted."
        if isinstance(error, psycopg.OperationalError):
            return (
                f"{self.shown} cannot be reached ({reason}). Check that the server runs, and the URL; the password "
                "can be in ~/.pgpass or PGPASSWORD."
            )
        return f"{self.shown} reports: {reason}"


COUNT = "SELECT count(*), count(*) FILTER (WHERE NOT is_blank) FROM {}"
FIND = "SELECT path, perceptual_hash, vector FROM {}"
LIST: LiteralString = "SELECT path, bytes, sha256, width, height, format, taken, is_blank, id FROM {}"


class PostgresWriter:
    """One publish, in the transaction of a connection."""

    def __init__(self, connection: "psycopg.Connection[Any]", name: str, record: Record | None, shown: str) -> None:
        self.record = record
        self._connection, self._name, self._shown = connection, name, shown
        self._generation = record.stamp.generation if record is not None else 0
        self._dim: int | None = None  # of a new table
        self._drop_older()

    def begin(self, dim: int) -> None:
        """Begin a new table for vectors of `dim` dimensions."""
        if dim > MOST_DIMENSIONS:
            raise PublishError(
                f"The vectors have {dim:,} dimensions, and an index of pgvector takes at most {MOST_DIMENSIONS:,}. "
                "Publish an index with whitened or smaller embeddings, or to LanceDB."
            )
        self._dim = dim
        self._generation += 1
        self._run("DROP TABLE IF EXISTS {}")  # one that is named in no state
        self._run("CREATE TABLE {} (" + COLUMNS.format(dim=dim) + ")")

    def add(self, photos: Iterable[pa.Table]) -> int:
        """Add photos, or replace those that differ from what is there; return how many."""
        if self._dim is not None:
            added = self._copy(photos, self._table)
            self._run("ALTER TABLE {} ADD PRIMARY KEY (id)")
            return added
        stage = sql.Identifier("vggsearch_stage")
        self._run("CREATE TEMPORARY TABLE {stage} (LIKE {}) ON COMMIT DROP", stage=stage)
        self._copy(photos, stage)
        self._run("ANALYZE {stage}", stage=stage)
        self._run(
            "DELETE FROM {} t USING {stage} s WHERE t.id = s.id AND ROW(t.*) IS DISTINCT FROM ROW(s.*)", stage=stage
        )
        return self._run(
            "INSERT INTO {} SELECT * FROM {stage} s WHERE NOT EXISTS (SELECT FROM {} t WHERE t.id = s.id)",
            stage=stage,
        )

    def remove(self, paths: Sequence[str]) -> int:
        """Remove photos; return how many were there."""
        return self._run("DELETE FROM {} WHERE id = ANY(%s)", [[*map(_id, paths)]])

    def keep_only(self, paths: Iterable[Sequence[str]]) -> int:
        """Remove all photos but these, which are named in blocks; return how many."""
        kept = sql.Identifier("vggsearch_kept")
        self._run("CREATE TEMPORARY TABLE {kept} (id uuid) ON COMMIT DROP", kept=kept)
        with self._connection.cursor() as cursor, cursor.copy(_copying(kept)) as copy:
            copy.set_types(["uuid"])
            for path in (path for block in paths for path in block):
                copy.write_row((_id(path),))
        self._run("ANALYZE {kept}", kept=kept)
        return self._run("DELETE FROM {} t WHERE NOT EXISTS (SELECT FROM {kept} k WHERE k.id = t.id)", kept=kept)

    def count(self) -> int:
        """Return the number of photos."""
        return int(self._one("SELECT count(*) FROM {}"))

    def lost(self) -> int:
        """Return how many photos of the last table are not in the new one."""
        if self.record is None:
            return 0
        before = _table(self._name, self.record.stamp.generation)
        if self._one("SELECT to_regclass(%s) IS NULL", [before.as_string()]):
            return 0
        query = "SELECT count(*) FROM {before} b WHERE NOT EXISTS (SELECT FROM {} t WHERE t.id = b.id)"
        return int(self._one(query, before=before))

    def commit(self, state: State) -> None:
        """Make the state and the photos visible to readers, at once, when the transaction ends."""
        if self._dim is not None:
            self._run("CREATE INDEX ON {} USING hnsw (vector halfvec_cosine_ops) WHERE NOT is_blank")
            self._run("CREATE INDEX ON {} (taken)")
            self._run("ANALYZE {}")
        record = state.record(self._generation, 0)
        self._run(
            "INSERT INTO {state} VALUES (%s, %s, %s, %s, %s, %s, %s, %s, now()) ON CONFLICT (name) DO UPDATE SET "
            "(generation, version, fingerprint, photos, header, whitening, parts, published) = "
            "(EXCLUDED.generation, EXCLUDED.version, EXCLUDED.fingerprint, EXCLUDED.photos, EXCLUDED.header, "
            "EXCLUDED.whitening, EXCLUDED.parts, EXCLUDED.published)",
            [
                *(self._name, record.stamp.generation, record.stamp.version, record.stamp.fingerprint),
                *(record.rows, record.header, record.whitening, record.parts),
            ],
            state=STATE,
        )

    @property
    def _table(self) -> sql.Identifier:
        return _table(self._name, self._generation)

    def _drop_older(self) -> None:
        """Drop the tables of earlier generations. The last one is kept until the next publish, for its readers."""
        like = f"^vggsearch_{self._name}_[0-9]+$"
        query = "SELECT relname FROM pg_class WHERE relname ~ %s AND relkind = 'r' AND pg_table_is_visible(oid)"
        for (name,) in self._connection.execute(query, [like]).fetchall():
            if int(name.rpartition("_")[2]) < self._generation:
                self._connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))

    def _copy(self, photos: Iterable[pa.Table], into: sql.Identifier) -> int:
        count = 0
        with self._connection.cursor() as cursor, cursor.copy(_copying(into)) as copy:
            copy.set_types(TYPES)
            for block in photos:
                for row in _rows(block):
                    copy.write_row(row)
                count += len(block)
        return count

    def _run(self, text: str, values: Sequence[object] = (), **names: sql.Identifier) -> int:
        query = sql.SQL(text).format(*[self._table] * text.count("{}"), **names)
        return self._connection.execute(query, values or None).rowcount

    def _one(self, text: str, values: Sequence[object] = (), **names: sql.Identifier) -> Any:
        query = sql.SQL(text).format(*[self._table] * text.count("{}"), **names)
        return _first(self._connection, query, values)[0]


def _prepare(connection: "psycopg.Connection[Any]", shown: str) -> None:
    """Create the extension and the table of states where there is none. Raises PublishError."""
    version = _version(connection)
    if version is None:
        try:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except psycopg.Error as error:
            raise PublishError(
                f"{shown} lacks pgvector ({error.diag.message_primary}). Install it on the server, and have its "
                "administrator run CREATE EXTENSION vector in this database."
            ) from None
        version = _version(connection)
    if version is None or version < LEAST_VERSION:
        needed = ".".join(map(str, LEAST_VERSION))
        raise PublishError(
            f"{shown} has an old pgvector; {needed} or newer is needed: ALTER EXTENSION vector UPDATE."
        )
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext('vggsearch'))")
        columns = (
            "(name text PRIMARY KEY, generation bigint NOT NULL, version bigint NOT NULL, "
            "fingerprint text NOT NULL, photos bigint NOT NULL, header text NOT NULL, whitening bytea NOT NULL, "
            "parts bytea NOT NULL, published timestamptz NOT NULL)"
        )
        if not _has_state(connection):
            connection.execute(sql.SQL("CREATE TABLE {} " + columns).format(STATE))


def _version(connection: "psycopg.Connection[Any]") -> tuple[int, ...] | None:
    row = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    return None if row is None else tuple(int(number) for number in str(row[0]).split(".")[:2])


def _has_state(connection: "psycopg.Connection[Any]") -> bool:
    return bool(_first(connection, "SELECT to_regclass(%s) IS NOT NULL", [STATE.as_string()])[0])


def _first(connection: "psycopg.Connection[Any]", query: Any, values: Sequence[object]) -> Any:
    return connection.execute(query, values or None).fetchone()


def _options_of(place: str) -> dict[str, Any]:
    """Return what a URL says. Raises OptionError, without the URL, also where a password was taken apart."""
    wrong = OptionError(
        "The URL of the server is not valid: postgresql://USER@SERVER:PORT/DATABASE, special characters as "
        "%20. The password is better in ~/.pgpass or PGPASSWORD."
    )
    try:
        options = {key: value for key, value in conninfo_to_dict(place).items() if value is not None}
    except psycopg.Error:  # its message may quote what it takes the password for
        raise wrong from None
    port, names = str(options.get("port", 0)), f"{options.get('host', '')}{options.get('dbname', '')}"
    if not port.replace(",", "").isdecimal() or "@" in names:
        raise wrong
    return options


def _shown(options: Mapping[str, Any], name: str) -> str:
    """Return the URL without user and password; the folder of a socket is an option there."""
    host, port, database = options.get("host"), options.get("port"), options.get("dbname", "")
    is_socket = host is not None and str(host).startswith("/")
    server = "" if is_socket else f"{host or 'localhost'}{f':{port}' if port is not None else ''}"
    return f"postgresql://{server}/{database}{f'?host={host}' if is_socket else ''}#{name}"


def _table(name: str, generation: int) -> sql.Identifier:
    return sql.Identifier(f"vggsearch_{name}_{generation}")


def _copying(into: sql.Identifier) -> sql.Composed:
    return sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(into)


def _facts_in(rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    columns = [[row[at] for row in rows] for at in range(len(FACTS))]
    return pa.table(dict(zip(FACTS, columns, strict=True)), schema=facts_schema())


def _hnsw_settings(count: int) -> dict[str, str]:
    return {
        "hnsw.ef_search": str(min(MOST_EF, max(LEAST_EF, 2 * count))),
        "hnsw.iterative_scan": "relaxed_order",
        "hnsw.max_scan_tuples": str(SCANNED),
    }


def _id(path: str) -> UUID:
    """Return the key of a photo: from the hash of its path, since a path may be longer than PostgreSQL indexes."""
    return UUID(bytes=hashlib.sha256(path.encode()).digest()[:16])


def _rows(block: pa.Table) -> Iterator[tuple[object, ...]]:
    names = schema(1).names[:-1]
    columns = [block.column(name).to_pylist() for name in names]
    for path, row, vector in zip(columns[0], zip(*columns, strict=True), vectors_in(block), strict=True):
        yield (_id(path), *row, HalfVector(vector))
