"""Measure descriptors and whitenings on UKBench and on edited copies: the tables of docs/quality.md.

python benchmarks/quality.py PHOTOS UKBENCH [--rows default|fast|descriptors|sizes|hashes|containing|fewer]
    [--sample 100] [--rerank] [--crowd FOLDER]

PHOTOS is a folder of unrelated photos. Copies are made of SAMPLE of them by the eighteen basic edits and searched
among all. UKBENCH is a folder with its truth.tsv. Each row prints what `vggsearch eval` prints for it and the cost:
bytes of a photo in the vector index, and photos embedded per second. With --rerank, the ten best results of
whitened search are re-ranked with stored local features, and other whitenings are left out. With --crowd, PHOTOS,
UKBENCH and FOLDER are one index, and the same queries are run with and without re-ranking.
"""

import argparse
import hashlib
import io
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vggsearch.defaults import EMBEDDING, MEASURE
from vggsearch.evaluation.evaluate import evaluate, evaluate_copies, whitening_named
from vggsearch.image_index import ImageIndex, searcher_of
from vggsearch.measures.ground_truth import read_truth
from vggsearch.measures.metrics import Tally
from vggsearch.model.engine import Description, Engine
from vggsearch.model.loading import load_engine
from vggsearch.model.spec import EmbeddingOptions
from vggsearch.photos.edits import EDITS, edited

BASIC = {name: edit for name, edit in EDITS.items() if edit.is_basic}


@dataclass(frozen=True)
class Row:
    """A descriptor and the whitenings to measure it with."""

    options: EmbeddingOptions
    whitenings: tuple[str, ...] = ("none", "auto")


def row(layer: str = "pool4+pool5", *whitenings: str, **options: str | bool) -> Row:
    pooling, size = options.get("pooling"), options.get("size")
    made = EmbeddingOptions(
        model=str(options.get("model", EMBEDDING.model)),
        layer=layer,
        pooling=str(pooling) if pooling else None,
        size=str(size) if size else None,
        mirror=bool(options.get("mirror")) or None,
    )
    return Row(made, whitenings or ("none", "auto"))


ROWS = {
    "default": [row("pool4+pool5", "none", "256", "auto", "512", "384:0.1", "384:0.3", "384:0.7")],
    "fast": [row(), row(model=EMBEDDING.fast_model)],
    "descriptors": [
        row("pool4+pool5"),
        row("pool5", pooling="flat"),
        *(row("pool5", pooling=pooling) for pooling in ("mac", "gem", "rmac", "crow", "spoc")),
        row("pool4"),
        row("pool3+pool4+pool5"),
        row("0.5*pool3+pool4+pool5"),
        row("pool4+0.7*pool5"),
    ],
    "sizes": [row(size="160"), row(size="224"), row(size="288"), row(size="160+224"), row(mirror=True)],
}


class Remembering(Engine):
    """Embeds each picture once: every whitening is measured on the same embeddings."""

    name, device, precision = "remembering", "", ""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.batch_size = engine, engine.batch_size
        self.known: dict[bytes, NDArray[np.float32]] = {}
        self.seconds, self.pictures = 0.0, 0

    def embed(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        keys = [hashlib.sha256(square.tobytes()).digest() for square in squares]
        new = [place for place, key in enumerate(keys) if key not in self.known]
        if new:
            started = time.perf_counter()
            made = self.engine.embed(squares[new])
            self.seconds, self.pictures = self.seconds + time.perf_counter() - started, self.pictures + len(new)
            self.known.update(zip((keys[place] for place in new), made, strict=True))
        return np.stack([self.known[key] for key in keys])

    def describe(self, squares: NDArray[np.uint8], levels: int = 2) -> Description:
        return self.engine.describe(squares, levels)

    def multiply_adds_per_s(self, seconds: float) -> float:
        return self.engine.multiply_adds_per_s(seconds)


def measure(wanted: Row, photos: Path, ukbench: Path, folder: Path, sample: int, *, rerank: bool) -> None:
    spec, weights = wanted.options.resolve()
    engine = Remembering(load_engine(spec, weights))
    indexes = []
    for name, source in (("photos", photos), ("ukbench", ukbench)):
        index = ImageIndex.create(folder / name, wanted.options, engine=engine)
        index.update(source, local_features=rerank)
        indexes.append(index)
    of_photos, of_ukbench = indexes
    labels = read_truth(ukbench / "truth.tsv")
    for text in ("auto",) if rerank else wanted.whitenings:
        copies = evaluate_copies(of_photos, edits="basic", sample=sample, whiten=text, rerank=rerank)
        views = evaluate(of_ukbench, labels, whiten=text, rerank=rerank).figures
        numbers = searcher_of(of_photos, whitening_named(text)).index.unit_vectors(slice(1)).shape[1]
        mirrored = " mirror" if spec.mirror else ""
        print(
            f"| {spec.model} {spec.layer} {spec.pooling} {'+'.join(map(str, spec.sizes))}{mirrored} | {text} "
            f"| {copies.figures.recall_at[1]:.3f} | {copies.figures.pair_ap:.3f} "
            f"| {copies.figures.recall_at_p99:.3f} | {copies.by_edit['strong'].recall_at[1]:.2f} "
            f"| {views.ns:.3f} | {views.pair_ap:.3f} | {numbers * 6:,} | {engine.pictures / engine.seconds:.0f} |",
            flush=True,
        )


def measure_hashes(photos: Path) -> None:
    """Measure 64-bit perceptual hashes on the same copies; similarity is 1 - 2 * the share of differing bits."""
    paths = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.*"))
    chosen = random.Random(0).sample(paths, MEASURE.sample)  # noqa: S311 - as evaluate_copies chooses them

    def opened(path: str) -> Image.Image:
        return Image.open(photos / path).convert("RGB")

    hashes: dict[str, Callable[[Image.Image], imagehash.ImageHash]] = {
        "pHash": imagehash.phash,
        "dHash": imagehash.dhash,
    }
    for name, of in hashes.items():
        bits = np.stack([of(opened(path)).hash.ravel() for path in paths])
        tally, by_edit = Tally(), {edit: Tally() for edit in BASIC}
        for path in chosen:
            for edit in BASIC:
                copy = Image.open(io.BytesIO(edited(opened(path), BASIC[edit], f"0 {path} {edit}")))
                off = (bits != of(copy).hash.ravel()).mean(axis=1)
                order = np.argsort(off, kind="stable")
                relevant = np.array([paths[place] == path for place in order])
                for each in (tally, by_edit[edit]):
                    each.add((1 - 2 * off[order]).astype(np.float32), relevant, 1)
        figures = tally.figures(len(paths))
        print(
            f"| {name} | | {figures.recall_at[1]:.3f} | {figures.pair_ap:.3f} | {figures.recall_at_p99:.3f} "
            f"| | | | 8 | |",
            flush=True,
        )
        of_edits = {edit: each.figures(len(paths)).recall_at[1] for edit, each in by_edit.items()}
        print("R@1 by edit:", ", ".join(f"{edit} {recall:.2f}" for edit, recall in of_edits.items()), flush=True)


def measure_crowd(folders: Sequence[Path]) -> None:
    """Index all folders together and run the queries of the first two."""
    photos, ukbench = folders[:2]
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.*"))
    chosen = random.Random(0).sample(names, MEASURE.sample)  # noqa: S311 - as evaluate_copies chooses them
    labels = read_truth(ukbench / "truth.tsv")
    with tempfile.TemporaryDirectory() as folder:
        together = Path(folder) / "photos"
        for source in folders:
            shutil.copytree(source, together / source.name)
        with ImageIndex.create(Path(folder) / "index") as index:
            index.update(together)
            for rerank in (False, True):
                sample = [f"{photos.name}/{name}" for name in chosen]
                copies = evaluate_copies(index, edits="basic", sample=sample, rerank=rerank)
                marked = {f"{ukbench.name}/{path}": label for path, label in labels.items()}
                views = evaluate(index, marked, rerank=rerank).figures
                print(
                    f"| {len(index):,} photos | {'--rerank' if rerank else '--no-rerank'} "
                    f"| {copies.figures.recall_at[1]:.3f} | {copies.figures.pair_ap:.3f} "
                    f"| {copies.figures.recall_at_p99:.3f} | {copies.by_edit['strong'].recall_at[1]:.2f} "
                    f"| {views.ns:.3f} | {views.pair_ap:.3f} | | |",
                    flush=True,
                )


def measure_fewer(photos: Path, sample: int) -> None:
    """Compare whitening with none on samples of 100, 300 and 500 photos, drawn three times each."""
    spec, weights = EmbeddingOptions().resolve()
    engine = Remembering(load_engine(spec, weights))
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.*"))
    print("| photos | draw | micro-AP raw | micro-AP whitened |")
    for count in (100, 300, 500):
        for draw in range(3):
            chosen = random.Random(draw).sample(names, count)  # noqa: S311
            with tempfile.TemporaryDirectory() as folder:
                for name in chosen:
                    (Path(folder) / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(photos / name, Path(folder) / "photos" / name)
                index = ImageIndex.create(Path(folder) / "index", engine=engine)
                index.update(Path(folder) / "photos")
                raw, whitened = (
                    evaluate_copies(
                        index, edits="basic", sample=sample, seed=draw, whiten=text, rerank=False
                    ).figures
                    for text in ("none", "auto")
                )
                print(f"| {count} | {draw + 1} | {raw.pair_ap:.4f} | {whitened.pair_ap:.4f} |", flush=True)


def measure_containing(photos: Path, sample: int) -> None:
    """Search for random regions of photos: without re-ranking, with it, and with --containing."""
    ways = {"--no-rerank": (False, False), "--rerank": (True, False), "--containing": (True, True)}
    print("| region of the photo | query | R@1 | R@10 | s a query |")
    with tempfile.TemporaryDirectory() as folder, ImageIndex.create(Path(folder) / "index") as index:
        index.update(photos, local_features=True)
        generator = random.Random(5)  # noqa: S311
        chosen = generator.sample(index.paths(), sample)
        for share in (0.4, 0.2, 0.1, 0.05):
            asked = [(path, _region(Image.open(photos / path).convert("RGB"), share, generator)) for path in chosen]
            for way, (rerank, containing) in ways.items():
                started = time.perf_counter()
                results = [index.query(picture, 10, rerank=rerank, containing=containing) for _, picture in asked]
                found = [[match.path for match in result.matches] for result in results]
                seconds = (time.perf_counter() - started) / len(asked)
                first = np.mean([paths[:1] == [path] for (path, _), paths in zip(asked, found, strict=True)])
                ten = np.mean([path in paths for (path, _), paths in zip(asked, found, strict=True)])
                print(f"| {share:.0%} | {way} | {first:.3f} | {ten:.3f} | {seconds:.2f} |", flush=True)


def _region(photo: Image.Image, share: float, generator: random.Random) -> Image.Image:
    width, height = (round(side * share**0.5) for side in photo.size)
    left, top = generator.randint(0, photo.width - width), generator.randint(0, photo.height - height)
    return photo.crop((left, top, left + width, top + height))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("ukbench", type=Path)
    parser.add_argument("--rows", choices=(*ROWS, "hashes", "containing", "fewer"), default="default")
    parser.add_argument("--sample", type=int, default=MEASURE.sample)
    parser.add_argument("--rerank", action="store_true")
    parser.add_argument("--crowd", type=Path)
    given = parser.parse_args()
    if given.rows in ("containing", "fewer"):
        (measure_containing if given.rows == "containing" else measure_fewer)(given.photos, given.sample)
        return
    print("| descriptor | whitening | R@1 | micro-AP | r@P99 | strong | N-S | pair AP | bytes | photos/s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    if given.crowd is not None:
        measure_crowd((given.photos, given.ukbench, given.crowd))
        return
    if given.rows == "hashes":
        measure_hashes(given.photos)
        return
    for wanted in ROWS[given.rows]:
        with tempfile.TemporaryDirectory() as folder:
            measure(wanted, given.photos, given.ukbench, Path(folder), given.sample, rerank=given.rerank)


if __name__ == "__main__":
    main()
