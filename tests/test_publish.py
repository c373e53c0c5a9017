"""What is published in a real PostgreSQL is found there as in the index itself, and never half changed."""

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.fakes import FakeEngine, picture
from tests.helpers.object_storage import s3_server
from tests.helpers.postgres import postgres_server
from tests.helpers.published import FILTERS, change, path_of, photo, view
from tests.helpers.waiting import wait_until
from tests.make_golden_index import SMALL_SPEC
from vggsearch.cli import cli
from vggsearch.errors import OptionError, PublishError, SpecMismatch, Stopped
from vggsearch.image_index import ImageIndex
from vggsearch.published import postgres, searcher
from vggsearch.published.index import PublishedIndex
from vggsearch.published.publish import PublishReport
from vggsearch.published.table import Wanted, open_table
from vggsearch.query.filters import parse_filter
from vggsearch.query.options import QueryResult
from vggsearch.store.store import Store

psycopg = pytest.importorskip("psycopg")
register_vector = pytest.importorskip("pgvector.psycopg").register_vector
names = count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.fixture
def on_server(server: str) -> str:
    """A name in PostgreSQL that nothing is published under yet."""
    return f"{server}#t{next(names)}"


@pytest.fixture(params=["PostgreSQL", "LanceDB"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place where nothing is published yet."""
    if request.param == "PostgreSQL":
        return str(request.getfixturevalue("on_server"))
    pytest.importorskip("lancedb")
    return f"lance+file://{tmp_path}/lance/photos"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageIndex]:
    """An index of 2,000 pictures."""
    directory = tmp_path_factory.mktemp("published") / "large"
    change(directory, [photo(seed) for seed in range(2000)])
    with ImageIndex.open(directory, engine=FakeEngine()) as index:
        yield index


@pytest.fixture(scope="module", params=["PostgreSQL", "LanceDB"])
def large_place(request: pytest.FixtureRequest, large: ImageIndex, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where it is published, with an index, although it is small for one."""
    if request.param == "PostgreSQL":
        url = f"{request.getfixturevalue('server')}#large"
    else:
        lance = pytest.importorskip("vggsearch.published.lance")
        url = f"lance+file://{tmp_path_factory.mktemp('lance')}/large"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lance, "EXACT_ROWS", 0)
            large.publish(url)
    large.publish(url)
    return url


@pytest.fixture(params=["exactly", "by an index"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the server finds candidates: 2,000 are few enough to compare all, and the planner would do so."""
    if request.param != "exactly":
        settings = postgres._hnsw_settings
        monkeypatch.setattr(searcher, "EXACT_ROWS", 0)
        monkeypatch.setattr(
            postgres,
            "_hnsw_settings",
            lambda count: {**settings(count), "enable_seqscan": "off", "enable_sort": "off"},
        )
    return str(request.param)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An index of 120 pictures in two parts, so whitened."""
    change(tmp_path / "index", [photo(seed) for seed in range(80)])
    change(tmp_path / "index", [photo(seed) for seed in range(80, 120)])
    return tmp_path / "index"


def published(directory: Path, place: str, *, replace: bool = False) -> PublishReport:
    with ImageIndex.open(directory, engine=FakeEngine()) as index:
        return index.publish(place, replace=replace)


def opened(place: str) -> PublishedIndex:
    return ImageIndex.at(place, engine=FakeEngine())


def assert_equal(directory: Path, place: str, seeds: Sequence[int] = tuple(range(0, 200, 9))) -> None:
    """Assert that an index answers queries here as where it is published."""
    with ImageIndex.open(directory, engine=FakeEngine()) as index, opened(place) as at:
        assert len(at) == len(index)
        for seed in seeds:
            assert at.query(view(seed)) == index.query(view(seed), rerank=False)


@pytest.mark.cluster
@pytest.mark.usefixtures("way")
def test_two_hundred_queries_are_answered_as_by_the_index(large: ImageIndex, large_place: str) -> None:
    queries = [view(seed) for seed in range(0, 2000, 10)]
    with opened(large_place) as at:
        answers = [each for each in at.query_many(queries) if isinstance(each, QueryResult)]
        assert answers == list(large.query_many(queries, rerank=False))
        assert {answer.matches[0].similarity for answer in answers} == {1.0}
        assert at.query(view(1), count=1500) == large.query(view(1), count=1500, rerank=False)
        assert at.query(view(1), min_similarity=0.2) == large.query(view(1), min_similarity=0.2, rerank=False)
        several = [view(1), view(2)]
        assert at.query(several, minus=view(4)) == large.query(several, minus=view(4))


@pytest.mark.cluster
@pytest.mark.usefixtures("way")
def test_a_filter_means_the_same_and_shortens_no_answer(large: ImageIndex, large_place: str) -> None:
    with opened(large_place) as at:
        for filters in (*FILTERS, (FILTERS[0], "taken:2001-03", "size:700..1500")):
            for seed in (0, 5, 77):
                expected = large.query(view(seed), rerank=False, filters=filters)
                assert at.query(view(seed), filters=filters) == expected, filters
            assert expected.matches, filters


@pytest.mark.cluster
def test_the_hnsw_index_is_used_where_it_should(
    server: str, large: ImageIndex, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    large.publish(f"{server}#large")
    asked: list[tuple[str, list[object], dict[str, str]]] = []
    monkeypatch.setattr(postgres.PostgresTable, "_found", lambda _self, _stamp, *each: asked.append(each))
    with closing(postgres.PostgresTable(f"{server}#large")) as table, psycopg.connect(server) as here:
        stamp = table.stamp()
        assert stamp is not None
        for wanted in (Wanted(), Wanted((parse_filter("2001/**"),))):
            table.nearest(stamp, np.ones(384, np.float32), 26, wanted, exactly=way == "exactly")
        register_vector(here)
        for query, values, settings in asked:
            for name, value in settings.items():
                here.execute("SELECT set_config(%s, %s, true)", [name, value])
            plan = str(here.execute(table._query(f"EXPLAIN {query}", stamp), values).fetchall())
            assert ("vector_idx" in plan) == (way != "exactly"), plan


@pytest.mark.cluster
def test_a_photo_below_the_root_ranks_before_its_copies_and_finds_itself_at_1(
    index: ImageIndex, photos: Path, place: str
) -> None:
    (photos / "a copy.jpg").write_bytes((photos / "summer" / "0.jpg").read_bytes())
    index.update()
    index.publish(place)
    file = photos / "summer" / "0.jpg"
    with ImageIndex.at(place, engine=FakeEngine(), root=photos) as at:
        for options in ({}, {"exclude_same_folder": True}, {"crop": (0, 0, 200, 100)}):
            assert at.query(file, **options) == index.query(file, rerank=False, **options)
        assert at.query(file).matches[0].path == "summer/0.jpg"
        assert at.query(file).matches[0].similarity == 1.0
    with opened(place) as at:
        assert [match.similarity for match in at.query(file).matches[:2]] == [1.0, 1.0]


@pytest.mark.cluster
def test_only_what_changed_is_sent(directory: Path, place: str) -> None:
    first = published(directory, place)
    assert (first.photos, first.added, first.removed, first.is_new) == (120, 120, 0, True)
    again = published(directory, place)
    assert (again.added, again.removed, again.is_new) == (0, 0, False)
    hostile = "'; DROP TABLE vggsearch_published; -- {} %s \" \\ \n.jpg"
    change(directory, [photo(1, hostile), photo(300)], [path_of(0), path_of(1), path_of(100)])
    changed = published(directory, place)
    assert (changed.added, changed.removed, changed.is_new) == (2, 3, False)
    assert_equal(directory, place)
    with opened(place) as at:
        assert hostile in [match.path for match in at.query(view(1)).matches]
    change(directory, [], [path_of(5), hostile], compact=True)  # the parts that are merged have other names
    merged = published(directory, place)
    assert (merged.added, merged.removed, merged.is_new) == (0, 2, False)
    change(directory, [photo(7, path_of(8))])  # another photo of the same path
    replaced = published(directory, place)
    assert (replaced.added, replaced.removed, replaced.photos) == (1, 1, 117)
    assert_equal(directory, place)


@pytest.mark.cluster
def test_a_new_whitening_is_published_whole_while_readers_go_on(directory: Path, place: str) -> None:
    published(directory, place)
    with opened(place) as at:
        before, stamp = at.query(view(3)), at._published.now()
        change(directory, [photo(seed) for seed in range(200, 300)])  # more than half as many again
        assert published(directory, place).is_new
        assert stamp.state.rows == 120
        vector = np.ones(stamp.state.dim, np.float32)
        assert len(at._published.table.nearest(stamp.stamp, vector, 5, Wanted(), exactly=True).paths) == 5
        assert at.query(view(3)) != before
    assert_equal(directory, place)
    assert not published(directory, place).is_new  # and drops what was there before
    assert tables_at(place) == [2]


def tables_at(place: str) -> list[int]:
    """Return the generations whose photos are there."""
    if place.startswith("lance"):
        folder = Path(place.removeprefix("lance+file://")).parent
        found = [path.stem for path in folder.glob("photos_[0-9].lance")]
    else:
        url, _, name = place.partition("#")
        with psycopg.connect(url) as connection:
            query = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE %s"
            found = [name for (name,) in connection.execute(query, [f"vggsearch_{name}_%"]).fetchall()]
    return sorted(int(name.rpartition("_")[2]) for name in found)


@pytest.mark.cluster
def test_a_publish_that_is_stopped_or_killed_changes_nothing(directory: Path, place: str) -> None:
    published(directory, place)
    with opened(place) as at:
        before = at.query(view(3))
        change(directory, [photo(seed) for seed in range(200, 240)], [path_of(3)])
        with ImageIndex.open(directory, engine=FakeEngine()) as index, pytest.raises(Stopped, match="as it was"):
            index.publish(place, stop=lambda: True)
        assert at.query(view(3)) == before
        program = textwrap.dedent(
            """
            import os, signal, sys
            from vggsearch.image_index import ImageIndex

            if sys.argv[2].startswith("lance"):
                from vggsearch.published import lance
                lance.LEASE_S = 5

            def die(progress):
                if progress.stage == "building the index there":
                    os.kill(os.getpid(), signal.SIGKILL)

            ImageIndex.open(sys.argv[1]).publish(sys.argv[2], progress=die)
            """
        )
        done = subprocess.run([sys.executable, "-c", program, directory, place], check=False)
        assert done.returncode == -signal.SIGKILL
        assert at.query(view(3)) == before
    reports = []

    def is_done() -> bool:
        with suppress(PublishError):  # in LanceDB, nobody knows for a while whether the other still lives
            reports.append(published(directory, place))
        return bool(reports)

    wait_until(is_done)
    assert (reports[0].added, reports[0].photos) == (40, 159)
    assert_equal(directory, place)


@pytest.mark.cluster
def test_a_publish_whose_connection_is_cut_changes_nothing(directory: Path, on_server: str) -> None:
    published(directory, on_server)
    url = on_server.partition("#")[0]
    change(directory, [photo(seed) for seed in range(200, 240)], [path_of(3)])

    def cut(_: object) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'vggsearch' "
                "AND xact_start IS NOT NULL"
            )

    with opened(on_server) as at:
        before = at.query(view(3))
        with (
            ImageIndex.open(directory, engine=FakeEngine()) as index,
            pytest.raises(PublishError, match="cannot be reached"),
        ):
            index.publish(on_server, progress=cut)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'vggsearch'"
            )
        assert at.query(view(3)) == before  # on a new connection
    assert published(directory, on_server).added == 40


@pytest.mark.cluster
def test_two_cannot_publish_at_once(directory: Path, place: str) -> None:
    failed = []

    def another(_: object) -> None:
        with pytest.raises(PublishError, match="Another process publishes"):
            published(directory, place)
        failed.append(True)

    with ImageIndex.open(directory, engine=FakeEngine()) as index:
        index.publish(place, progress=another)
    assert failed
    assert_equal(directory, place, (3,))


@pytest.mark.cluster
def test_another_index_replaces_what_is_published_only_if_asked(
    directory: Path, place: str, tmp_path: Path
) -> None:
    published(directory, place)
    for number, (seeds, offset) in enumerate([(range(500, 560), 0), (range(500, 640), 0)]):
        other = tmp_path / f"other{number}"
        change(other, [photo(seed + offset) for seed in seeds])
        with pytest.raises(PublishError, match=r"120 of the 120 photos .* are not in the index"):
            published(other, place)
        assert_equal(directory, place, (3,))
    assert published(other, place, replace=True).removed == 120
    assert_equal(other, place)
    Store.create(tmp_path / "small", SMALL_SPEC)
    with ImageIndex.open(tmp_path / "small", engine=FakeEngine(SMALL_SPEC.dim)) as small:
        with pytest.raises(SpecMismatch, match="Publish to another name"):
            small.publish(place)
        with opened(place) as at:
            small.publish(place, replace=True)
            with pytest.raises(SpecMismatch, match="Open it again"):
                at.query(view(3))
    with ImageIndex.at(place, engine=FakeEngine(SMALL_SPEC.dim)) as at:
        assert at.query(picture(3)).matches == ()


@pytest.mark.cluster
def test_a_table_that_others_changed_is_published_anew(directory: Path, place: str) -> None:
    published(directory, place)
    if place.startswith("lance"):
        lancedb = pytest.importorskip("lancedb")
        folder, _, name = place.removeprefix("lance+file://").rpartition("/")
        with closing(open_table(place)) as table:
            stamp = table.stamp()
        assert stamp is not None
        rows = lancedb.connect(folder).open_table(f"{name}_1")
        rows.delete("width < 410")
        states = lancedb.connect(folder).open_table(f"{name}_published")
        states.update(values={"version": rows.version})
    else:
        url, _, name = place.partition("#")
        with psycopg.connect(url) as connection:
            connection.execute(f"DELETE FROM vggsearch_{name}_1 WHERE width < 410")  # noqa: S608 - of this test
    assert published(directory, place).is_new
    assert_equal(directory, place)


@pytest.mark.cluster
def test_errors_say_what_to_do(server: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PublishError, match="Nothing is published"):
        opened(f"{server}#nothing")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("CREATE DATABASE bare")
        connection.execute("CREATE ROLE guest LOGIN")
    bare = server.replace("/postgres?", "/bare?")
    with pytest.raises(PublishError, match="Nothing is published"):
        opened(bare)
    with pytest.raises(PublishError, match="CREATE EXTENSION vector"):
        published(directory, bare.replace("postgres:@", "guest@"))
    monkeypatch.setattr(postgres, "LEAST_VERSION", (99, 0))
    with pytest.raises(PublishError, match="ALTER EXTENSION vector UPDATE"):
        published(directory, bare)
    monkeypatch.undo()
    published(directory, f"{server}#other")
    reader = server.replace("postgres:@", "guest@") + "#other"
    with pytest.raises(PublishError, match=r"permission denied .* account that may"):
        opened(reader)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest")
    with opened(reader) as at:  # which needs no more
        assert at.query(view(0), filters="2001/**").matches
    with pytest.raises(PublishError, match=r"permission denied .* account that may"):
        published(directory, server.replace("postgres:@", "guest@") + "#guest")
    with pytest.raises(PublishError, match=r"cannot be reached .*bogus"):
        opened(server.replace("/postgres?", "/bogus?"))


@pytest.mark.cluster
def test_no_password_is_stored_or_shown(server: str, directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = server.replace("postgres:@", "postgres:s3cr%23t@") + "#secret"
    report = published(directory, url)
    with opened(url) as at:
        shown = f"{report}{at.place}{vars(at._published.table)['shown']}{caplog.text}"
    with psycopg.connect(server) as connection:
        rows = connection.execute("SELECT t::text FROM vggsearch_published t").fetchall()
    assert "s3cr" not in f"{shown}{rows}"


def test_no_error_shows_a_password(directory: Path) -> None:
    for url, kind in (
        ("postgresql://me:s3cret@127.0.0.1:1/photos", PublishError),
        ("postgresql://me:s3cret#x@127.0.0.1/photos", OptionError),
        ("postgresql://me:s3c/ret@127.0.0.1:1/photos", OptionError),
        ("postgresql://me:s3c@ret@127.0.0.1:1/photos", OptionError),
        ("postgresql://me:s3cret@127.0.0.1:x/photos", OptionError),
        ("postgresql://127.0.0.1:1/photos?password=s3cret", PublishError),
        ("postgresql://me:s3cret@127.0.0.1:1/photos#Not A Name", OptionError),
        ("mysql://me:s3cret@127.0.0.1/photos", OptionError),
    ):
        done = CliRunner().invoke(cli, ["query", "x.jpg", "--at", url])
        assert done.exit_code in (1, 2)
        assert "s3c" not in done.output
        assert done.output.startswith(("Error: ", "Usage: "))
        with pytest.raises(kind):
            ImageIndex.at(url)


def test_a_command_that_needs_the_index_is_refused_with_at() -> None:
    for words in (["--index", "x"], ["--containing"], ["--rerank"], ["--html", "x.html"], ["--seed", "1"]):
        done = CliRunner().invoke(cli, ["query", "x.jpg", "--at", "postgresql://127.0.0.1/photos", *words])
        assert done.exit_code == 2
        assert "--at" in done.output or "--seed" in done.output


@pytest.mark.cluster
def test_the_commands_publish_and_query(
    index: ImageIndex, photos: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggsearch.query.session.load_engine", lambda *_: FakeEngine())
    done = CliRunner().invoke(cli, ["publish", place, "--index", str(index.directory)])
    assert done.exit_code == 0, done.output
    assert "6 added in" in done.output
    assert f"6 photos in {place.partition('://')[0]}://" in done.output
    words = ["query", str(photos / "summer" / "1.jpg"), "--format", "json"]
    here = CliRunner().invoke(cli, [*words, "--index", str(index.directory), "--no-rerank"])
    there = CliRunner().invoke(cli, [*words, "--at", place, "--root", str(photos)])
    assert there.exit_code == 0, there.output
    assert there.stdout == here.stdout
    listed = CliRunner().invoke(cli, ["query", words[1], "--at", place, "--format", "paths", "--root", str(photos)])
    assert listed.stdout.splitlines()[0] == words[1]


@pytest.mark.cluster
def test_an_index_is_published_in_a_bucket(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lancedb")
    with s3_server(tmp_path) as storage:
        for name, value in storage.environment().items():
            monkeypatch.setenv(name, value)
        storage.file_system().create_dir("bucket")
        place = "lance+s3://bucket/indexes/photos"
        with pytest.raises(PublishError, match="Nothing is published"):
            opened(place)
        assert published(directory, place).added == 120
        change(directory, [photo(300)], [path_of(0)])
        report = published(directory, place)
        assert (report.added, report.removed, report.is_new) == (1, 1, False)
        assert_equal(directory, place)
        with pytest.raises(PublishError, match="bucket does not exist"):
            opened("lance+s3://another/photos")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
        with pytest.raises(PublishError, match="signature") as error:
            opened(place)
        assert "s3cret" not in str(error.value)


def test_a_place_in_lancedb_without_anything_says_so(directory: Path, tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    for url in ("lance+s3://key:s3cret@bucket/photos", "lance+ftp://host/photos", "lance+file://", "lance+s3://"):
        with pytest.raises(OptionError, match=r"lance\+s3://BUCKET/NAME|name at the end") as error:
            ImageIndex.at(url)
        assert "s3cret" not in str(error.value)
    with pytest.raises(PublishError, match="Nothing is published"):
        opened(f"lance+file://{tmp_path}/photos")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(PublishError, match="cannot be used"):
        published(directory, f"lance+file://{tmp_path}/file/photos")
