"""Make the golden index of the present format: python -m tests.make_golden_index

It is kept under tests/data for good, so that every later version must open it. Its photos are generated: `picture`.
"""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from tests.fakes import FakeEngine, picture, save_photo
from vggsearch.image_index import ImageIndex
from vggsearch.indexing.build import renew_vector_index, set_learned
from vggsearch.knn.whitening import Whitening
from vggsearch.model.spec import EmbeddingSpec
from vggsearch.progress import SILENT
from vggsearch.store.dead_rows import LISTED
from vggsearch.store.manifest import FORMAT, WhiteningInfo
from vggsearch.store.store import Store
from vggsearch.store.writer import writing

TRANSFORM = Whitening(np.eye(8, 256, dtype=np.float32), np.zeros(8, np.float32))  # in place of a learned one
COPIES = LISTED + 1  # photos that are removed: so many dead rows are in a file
DATA = Path(__file__).parent / "data"
SMALL_SPEC = EmbeddingSpec("vgg16", "pool3", "spoc", (32,), "squash", "0" * 64)  # 256 dimensions


def answers(index: ImageIndex) -> dict[str, object]:
    """Return all that a format must keep: rows in order, files, skipped, and the answer to one query."""
    return {
        "paths": index.paths(),
        "skipped": [[row.path, row.kind, row.reason] for row in index.skipped()],
        "query": [[match.path, match.similarity] for match in index.query(picture(2)).matches],
    }


def exif_of(second: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Model] = "EOS"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = f"2024:05:01 12:30:{second:02}"
    return exif.tobytes()


def make(directory: Path) -> dict[str, object]:
    """Make a small index with two parts, many dead rows, a skipped file and a search side; return its answers."""
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        for seed in range(4):
            save_photo(photos / "summer" / f"{seed}.jpg", seed, size=(64, 48), exif=exif_of(seed))
        copies = [f"copies/{number}.jpg" for number in range(COPIES)]
        for copy in copies:
            save_photo(photos / copy, 5, size=(64, 48))
        (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff")
        Store.create(Path(folder) / "index", SMALL_SPEC)
        with ImageIndex.open(Path(folder) / "index", engine=FakeEngine(SMALL_SPEC.dim)) as index:
            index.update(photos)
            (photos / "summer" / "1.jpg").unlink()
            save_photo(photos / "é\n.png", 7, size=(48, 64))
            index.update(photos)
            with writing(index._store) as writer:  # an update would drop so many dead rows at once
                writer.commit([], removed=copies)
                renew_vector_index(index._store, writer, SILENT)
            set_learned(index._store, TRANSFORM, WhiteningInfo(rows=4, dim=8, shrinkage=0.5), SILENT)
            shutil.copytree(Path(folder) / "index", directory)
            return answers(index)


if __name__ == "__main__":
    directory = DATA / f"format-{FORMAT}"
    text = json.dumps(make(directory), ensure_ascii=False, indent=2)
    (DATA / f"format-{FORMAT}.json").write_text(text + "\n", encoding="utf-8")
