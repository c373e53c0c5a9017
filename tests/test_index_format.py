"""docs/index-format.md documents every file and field of an index: compared with a real one, in both directions."""

import json
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fakes import FakeEngine, picture, save_photo
from tests.helpers.decoders import InProcessDecoder
from tests.helpers.removals import removal, trash_in
from tests.helpers.textures import scene
from tests.make_golden_index import TRANSFORM
from vggsearch.defaults import BUILD, DUPLICATES
from vggsearch.duplicates.removals import new_journal
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.build import set_learned
from vggsearch.indexing.integrity import verify
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.progress import SILENT
from vggsearch.removal.files import rename_exclusively
from vggsearch.removal.perform import perform
from vggsearch.removal.plan import make_plan
from vggsearch.removal.request import Action
from vggsearch.removal.undo import undo
from vggsearch.store.contents import DERIVED_FILES, LOCK, LOCK_HOLDER, TEMPORARY, USER_FILES, foreign_files
from vggsearch.store.manifest import WhiteningInfo
from vggsearch.store.store import Store

PAGE = (Path(__file__).parent.parent / "docs" / "index-format.md").read_text(encoding="utf-8")
SPEC = EmbeddingSpec("vgg16", "pool3", "spoc", (64,), "squash", "0" * 64)
PHOTOS = 170  # enough for a whitening, and for FAISS to train the fewest lists
FEW = replace(DUPLICATES, copied_photos=2, unrelated=10, unrelated_photos=5, block_pairs=20)

Rows = dict[str, str]  # the first column of a table to the second: a field and its type, or a file and its meaning
KEPT = "Files that hold your work"
MADE = ("Files made from the photos", "Derived files")
TRANSIENT = "Files that exist only during a run"


def tables() -> dict[str, Rows]:
    """Return the tables of the page by the heading above each."""
    found: dict[str, Rows] = defaultdict(dict)
    heading = ""
    for line in PAGE.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ").replace("`", "")
        elif row := re.match(r"\| `([^`]+)` \| ([^|]+) \|", line):
            assert row[1] not in found[heading], f"{heading}: {row[1]} is documented twice"
            found[heading][row[1]] = row[2].strip()
    return dict(found)


TABLES = tables()


class Observer:
    """Remembers every file of an index that there was at some time, and the manifests."""

    def __init__(self, index: Path) -> None:
        self.index = index
        self.files: set[str] = set()
        self.manifests: list[dict[str, Any]] = []

    def look(self) -> None:
        self.files |= {pattern(path.relative_to(self.index)) for path in self.index.rglob("*") if path.is_file()}
        if (self.index / "manifest.json").exists():
            self.manifests.append(json.loads((self.index / "manifest.json").read_text("ascii")))


def pattern(path: Path) -> str:
    """Return a path as the page names it, with * for what is numbered."""
    text = path.as_posix()
    if ".tmp" in text:
        return "*.tmp"
    text = re.sub(r"part-\d{6}\.", "part-*.", text)
    text = re.sub(r"dead-[0-9a-f]{64}\.", "dead-*.", text)
    text = re.sub(r"\d{4}-\d{2}-\d{2}-\d{6}\.", "*.", text)
    text = re.sub(r"(index|vectors)-\d+\.", r"\1-*.", text)
    return re.sub(r"/\d{6}/", "/*/", text)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Observer:
    """An index that has been through everything: updates, a build, a removal in place, duplicates, decisions."""
    base = tmp_path_factory.mktemp("format")
    observer = Observer(base / "index")
    replace_file = os.replace

    def watched(source: Path, target: Path) -> None:
        observer.look()
        replace_file(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vggsearch.photos.decoder_pool.DecoderProcess", InProcessDecoder)
        patch.setattr("vggsearch.store.files.os.replace", watched)
        patch.setattr("vggsearch.store.dead_rows.LISTED", 1)
        for module in ("segments", "build"):
            patch.setattr(f"vggsearch.knn.{module}.BUILD", replace(BUILD, whole_rows=20, plain_rows=2))
        for module in ("calibration_pairs", "pairs"):
            patch.setattr(f"vggsearch.duplicates.{module}.DUPLICATES", FEW)
        fill(base / "photos", base / "index")
        remove(base / "photos", base / "index", base)
        set_a_decision_aside(base / "index")
    observer.look()
    return observer


def fill(photos: Path, directory: Path) -> None:
    for seed in range(PHOTOS):
        save_photo(photos / f"{seed:03}.png", seed, size=(64, 48))
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    shutil.copy(photos / "000.png", photos / "copy.png")
    (photos / "copy.xmp").write_text("<x/>")
    Store.create(directory, SPEC, Path("weights.safetensors"))
    with ImageIndex.open(directory, engine=FakeEngine(SPEC.dim)) as index:
        index.update(photos, local_features=True)
        index.build(recipe="ivf-sq8")
        set_learned(index._store, TRANSFORM, WhiteningInfo(rows=4, dim=TRANSFORM.dim, shrinkage=0.5), SILENT)
        (photos / "009.png").unlink()  # one dead row is listed
        index.update(photos)
        for seed in range(10, 15):
            (photos / f"{seed:03}.png").unlink()
        for seed in range(PHOTOS, PHOTOS + 4):
            save_photo(photos / f"{seed:03}.png", seed, size=(64, 48))
        for name, size in (("scene", (320, 240)), ("smaller", (240, 180))):  # duplicates to look at
            scene(1, (320, 240)).resize(size).save(photos / f"{name}.png")
        index.update(photos)
        index.duplicates()
        index.decide("different", ["001.png", "002.png"])
    with (directory / "decisions.jsonl").open("a") as file:
        file.write("{damaged\n")
    verify(directory, repair=True)


def remove(photos: Path, directory: Path, base: Path) -> None:
    """Remove photos in every way that leaves other fields in a journal, and undo one of them."""
    exact, near = (
        removal(photos, path, keeper) for path, keeper in (("copy.png", "000.png"), ("003.png", "004.png"))
    )
    journal = new_journal(directory)
    perform(make_plan(photos, [exact], Action.parse(f"move:{base / 'moved'}")), journal)
    undo(journal)
    later = iter(journal.with_name(f"2027-01-01-00000{number}.jsonl") for number in range(3))
    perform(make_plan(photos, [near], Action.parse("delete")), next(later))
    with trash_in(base / "share"):
        perform(make_plan(photos, [exact], Action.parse("trash")), next(later))
    again = removal(photos, "005.png", "000.png")
    with pytest.MonkeyPatch.context() as patch:
        refusals = iter((OSError("no"),))

        def refuse_once(source: Path, target: Path) -> None:
            for error in refusals:
                raise error
            rename_exclusively(source, target)

        patch.setattr("vggsearch.removal.perform.rename_exclusively", refuse_once)
        report = perform(make_plan(photos, [again], Action.parse(f"move:{base / 'moved'}")), next(later))
    assert len(report.refusals) == 1


def set_a_decision_aside(directory: Path) -> None:
    """Have a repair move a line of decisions.jsonl that cannot be read to a file of its own."""
    with (directory / "decisions.jsonl").open("a", encoding="utf-8") as file:
        file.write("{torn\n")
    verify(directory, repair=True)


def differences(found: Iterable[str], documented: Iterable[str]) -> dict[str, set[str]]:
    found, documented = set(found), set(documented)
    return {"not documented": found - documented, "documented but not found": documented - found}


NONE: dict[str, set[str]] = {"not documented": set(), "documented but not found": set()}


def assert_documented(found: dict[str, set[str]], heading: str) -> None:
    """Compare fields and their types with a table of the page; a type there may end in "or null"."""
    documented = TABLES[heading]
    assert differences(found, documented) == NONE, heading
    for name, types in found.items():
        allowed = set(documented[name].split(" or "))
        assert types <= allowed, f"{heading}: {name} is {types}, documented as {documented[name]}"
        assert allowed - {"null"} <= types, f"{heading}: {name} is documented as {documented[name]}, never so here"


def json_type(value: Any) -> str:
    if isinstance(value, list):
        kinds = {json_type(item) for item in value}
        return f"{kinds.pop() if len(kinds) == 1 else 'number'}s"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object", type(None): "null"}
    return names[type(value)]


def json_fields(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and the type of every field, parts[].name for one of the objects in a list."""
    for name, inner in value.items():
        path = f"{prefix}{name}"
        if inner != []:  # of which kind, an empty list does not say
            yield path, json_type(inner)
        for item in inner if isinstance(inner, list) else [inner]:
            if isinstance(item, dict):
                yield from json_fields(item, f"{path}[]." if isinstance(inner, list) else f"{path}.")


def merged(objects: Iterable[dict[str, Any]]) -> dict[str, set[str]]:
    """Return the types of every field of some objects; a number that happens to be whole is a number."""
    found: dict[str, set[str]] = defaultdict(set)
    for each in objects:
        for path, kind in json_fields(each):
            found[path].add(kind)
    for types in found.values():
        for whole, number in (("integer", "number"), ("integers", "numbers")):
            if number in types:
                types.discard(whole)
    return dict(found)


def arrow_type(field: pa.Field) -> str:
    names = {"float": "float32", "double": "float64", "halffloat": "float16"}
    if pa.types.is_fixed_size_list(field.type):
        inner = str(field.type.value_type)
        size = "dimensions" if field.type.list_size == SPEC.dim else field.type.list_size
        return f"{names.get(inner, inner)}[{size}]"
    return names.get(str(field.type), str(field.type))


def assert_columns(path: Path, heading: str) -> None:
    schema = pq.read_schema(path)
    found = {field.name: arrow_type(field) + (" or null" if field.nullable else "") for field in schema}
    assert list(found.items()) == list(TABLES[heading].items())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_every_file_is_documented(made: Observer) -> None:
    documented = [name for heading in (KEPT, *MADE, TRANSIENT) for name in TABLES[heading]]
    assert differences(made.files, documented) == NONE


def test_the_package_lists_the_same_files_as_the_users_and_as_derived(made: Observer) -> None:
    def names(*headings: str) -> set[str]:
        return {name.split("/")[0] for heading in headings for name in TABLES[heading]}

    assert names(KEPT) == set(USER_FILES)
    assert names(*MADE, TRANSIENT) == {*DERIVED_FILES, LOCK, LOCK_HOLDER, f"*{TEMPORARY}"}
    assert foreign_files(made.index) == []


def test_what_is_there_only_during_a_run_is_gone_after_it(made: Observer) -> None:
    there = {pattern(path.relative_to(made.index)) for path in made.index.rglob("*") if path.is_file()}
    assert there.isdisjoint(TABLES[TRANSIENT])


def test_every_field_of_the_manifest_is_documented(made: Observer) -> None:
    found = merged(made.manifests)
    learned = {
        name.removeprefix("learned."): found.pop(name) for name in list(found) if name.startswith("learned.")
    }
    assert (
        differences(learned, (name.removeprefix("search.") for name in found if name.startswith("search."))) == NONE
    )
    assert_documented(found, "manifest.json")


def test_every_column_of_a_part_is_documented(made: Observer) -> None:
    part, *_ = made.index.glob("embeddings/part-*.parquet")
    assert_columns(part, "embeddings/part-*.parquet")
    metadata = json.loads(pq.read_schema(part).metadata[b"vggsearch"])
    assert metadata.pop("embedding") == json.loads(json.dumps(asdict(SPEC)))
    assert_documented(merged([{**metadata, "embedding": {}}]), "Metadata vggsearch of a part")


def test_every_column_of_the_skipped_files_is_documented(made: Observer) -> None:
    assert_columns(made.index / "skipped.parquet", "skipped.parquet")


@pytest.mark.parametrize("name", ["edges.parquet", "hashes.parquet", "votes.parquet"])
def test_every_column_of_the_edges_is_documented(made: Observer, name: str) -> None:
    assert_columns(made.index / name, "edges.parquet")
    metadata = json.loads(pq.read_schema(made.index / name).metadata[b"vggsearch"])
    assert_documented(merged([metadata]), "Metadata vggsearch of edges")


def test_every_column_of_the_compared_photos_is_documented(made: Observer) -> None:
    assert_columns(made.index / "compared.parquet", "compared.parquet")
    metadata = json.loads(pq.read_schema(made.index / "compared.parquet").metadata[b"vggsearch"])
    assert_documented(merged([metadata]), "Metadata vggsearch of compared photos")


def test_every_column_of_the_keypoint_comparisons_is_documented(made: Observer) -> None:
    assert_columns(made.index / "checks.parquet", "checks.parquet")
    metadata = json.loads(pq.read_schema(made.index / "checks.parquet").metadata[b"vggsearch"])
    assert_documented(merged([metadata]), "Metadata vggsearch of checks")


def test_every_column_of_the_keypoints_is_documented(made: Observer) -> None:
    assert_columns(made.index / "keypoints.parquet", "keypoints.parquet")
    metadata = json.loads(pq.read_schema(made.index / "keypoints.parquet").metadata[b"vggsearch"])
    assert_documented(merged([metadata]), "Metadata vggsearch of keypoints")


def test_every_column_of_what_was_seen_is_documented(made: Observer) -> None:
    assert_columns(made.index / "originals.parquet", "originals.parquet")
    metadata = json.loads(pq.read_schema(made.index / "originals.parquet").metadata[b"vggsearch"])
    assert_documented(merged([metadata]), "Metadata vggsearch of originals")


def test_every_column_of_the_stamps_is_documented(made: Observer) -> None:
    assert_columns(made.index / "stamps.parquet", "stamps.parquet")
    metadata = json.loads(pq.read_schema(made.index / "stamps.parquet").metadata[b"vggsearch"])
    assert_documented(merged([metadata]), "Metadata vggsearch of stamps")


def test_every_array_is_documented(made: Observer) -> None:
    arrays = {pattern(path.relative_to(made.index)): np.load(path) for path in made.index.rglob("*.npy")}
    documented = {name: re.fullmatch(r"(\w+) \((.+)\)", text) for name, text in TABLES["Arrays"].items()}
    assert differences(arrays, documented) == NONE
    for name, array in arrays.items():
        row = documented[name]
        assert row is not None, name
        assert (array.dtype.name.replace("bytes512", "bytes64"), array.ndim) == (row[1], row[2].count(",") + 1), (
            name
        )


def test_every_field_of_the_calibration_is_documented(made: Observer) -> None:
    assert_documented(
        merged([json.loads((made.index / "calibration.json").read_text("utf-8"))]), "calibration.json"
    )


def test_every_field_of_a_decision_is_documented(made: Observer) -> None:
    assert_documented(merged(lines(made.index / "decisions.jsonl")), "decisions.jsonl")


def test_every_field_of_a_journal_is_documented(made: Observer) -> None:
    journals = [lines(path) for path in made.index.glob("journals/*.jsonl")]
    written = [line for journal in journals for line in journal[1:]]
    assert_documented(merged(journal[0] for journal in journals), "First line of a journal")
    assert_documented(merged(line for line in written if "does" in line), "Line before each step")
    assert_documented(merged(line for line in written if "outcome" in line), "Line after each step")


def test_the_optional_fields_of_a_journal_are_marked_and_no_others(made: Observer) -> None:
    written = [line for path in made.index.glob("journals/*.jsonl") for line in lines(path)[1:]]
    for heading, key in (("Line before each step", "does"), ("Line after each step", "outcome")):
        section = PAGE.split(f"### {heading}")[1].split("\n#")[0]
        of_kind = [line for line in written if key in line]
        sometimes = {name for line in of_kind for name in line if any(name not in other for other in of_kind)}
        assert set(re.findall(r"\| `(\w+)` \| \w+ \| \*optional\*", section)) == sometimes


@pytest.mark.parametrize("name", [name for heading in MADE for name in TABLES[heading]])
def test_what_is_lost_is_made_again_and_no_work_of_the_user_goes_with_it(
    made: Observer, tmp_path: Path, name: str
) -> None:
    """As the page promises: `verify --repair`, then `index`, whichever file was deleted."""
    for folder in ("photos", "index"):
        shutil.copytree(made.index.parent / folder, tmp_path / folder)
    directory = tmp_path / "index"
    for path in directory.glob(name):
        path.unlink()
    verify(directory, repair=True)
    with ImageIndex.open(directory, engine=FakeEngine(SPEC.dim)) as index:
        index.update(tmp_path / "photos")
        assert [match.path for match in index.query(picture(20), count=1).matches] == ["020.png"]
        assert sorted(index.paths()) == sorted(path.name for path in (tmp_path / "photos").glob("*.png"))
        assert [skipped.path for skipped in index.skipped()] == ["broken.jpg"]
    assert verify(directory).is_whole
    for path in (path for pattern in TABLES[KEPT] for path in made.index.glob(pattern)):
        assert (directory / path.relative_to(made.index)).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", [name for name in TABLES["Derived files"] if not name.startswith("local/")])
def test_what_is_derived_is_made_again_by_the_next_update_alone(made: Observer, tmp_path: Path, name: str) -> None:
    for folder in ("photos", "index"):
        shutil.copytree(made.index.parent / folder, tmp_path / folder)
    for path in (tmp_path / "index").glob(name):
        path.unlink()
    with ImageIndex.open(tmp_path / "index", engine=FakeEngine(SPEC.dim)) as index:
        index.update(tmp_path / "photos")
        assert [match.path for match in index.query(picture(20), count=1).matches] == ["020.png"]
    assert verify(tmp_path / "index").is_whole
