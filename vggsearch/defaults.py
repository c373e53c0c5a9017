"""What can be chosen, and what is chosen by default: each written once, with its unit and its reason.

The command line and the library both read it from here; nothing heavy is imported.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Format = Literal["table", "json", "jsonl", "csv", "paths"]
ActionKind = Literal["trash", "move", "hardlink", "symlink", "delete"]

FORMATS: tuple[Format, ...] = get_args(Format)
ACTIONS: tuple[ActionKind, ...] = get_args(ActionKind)  # what can become of a duplicate
RESIZES = ("squash", "crop", "pad")
DEVICES = ("auto", "cpu", "cuda", "mps")
DECODE_ON = ("auto", "cpu", "gpu")
ENGINES = ("auto", "torch", "openvino")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
METRICS = {"cosine": "METRIC_INNER_PRODUCT", "euclidean": "METRIC_L2"}  # FAISS's name for each


@dataclass(frozen=True)
class EmbeddingDefaults:
    """How a photo becomes a vector. Chosen on edited copies of photos and on UKBench."""

    model: str = "vgg16"
    layer: str = "pool4+pool5"  # two depths in one pass find more edited copies than any single one
    map_pooling: str = "spoc"  # mean, square root, L2: the best of the 512-number poolings
    map_size: int = 192  # pixels; as good as 224 on copies at three quarters of the work
    connected_size: int = 224  # pixels; fc6 and fc7 were trained on a 7 x 7 map, which 224 gives
    mirror: bool = False  # the mirror image costs as much again
    resize: str = "squash"  # the whole picture: a crop loses what near-duplicates differ by
    smallest_size: int = 32  # pixels; pool5 halves the picture five times
    largest_size: int = 1024  # pixels; beyond this one photo takes a gigabyte of activations


@dataclass(frozen=True)
class ExtractDefaults:
    """How photos stream through the network."""

    batch_size: int = 8  # photos; larger batches are no faster on a CPU and cost memory
    gpu_batch_size: int = 64  # photos
    max_workers: int = 8  # decoder processes, at most; fewer where there are fewer processors
    part_bytes: int = 64 << 20  # embeddings a Parquet part holds at most
    copies_remembered: int = 4096  # photos of a run whose embedding serves exact copies that come later
    part_seconds: float = 60.0  # at most this much work is lost to a crash


@dataclass(frozen=True)
class ImageDefaults:
    """What is refused before it is decoded, how it is made small, and what shows nothing."""

    pixel_limit: int = 178_956_970  # pixels after a reduced decode; where Pillow, too, assumes a bomb
    blank_deviation: float = 3.0  # of 255, in the liveliest channel; a lens cap's noise has less, fog has more
    reducing_gap: float = 2.0  # decode to at least this many times the wanted size, then resize well


@dataclass(frozen=True)
class CompactDefaults:
    """When an update merges small parts by itself."""

    spare_parts: int = 64  # parts that merging would save; each costs a query about a millisecond to open
    dead_share: float = 0.25  # of all rows; until then, rewriting the others costs more than the space is worth


@dataclass(frozen=True)
class DecoderDefaults:
    """What one file may take; beyond it, only that file is skipped."""

    seconds: float = 60.0  # the largest picture that is allowed takes a few
    bytes: int = 6 << 30  # of memory: the largest picture, and its copies while it is converted


@dataclass(frozen=True)
class WhiteningDefaults:
    """How embeddings are whitened before they are searched (docs/quality.md)."""

    dim: int = 384  # numbers a whitened vector keeps; fewer lose copies, more keep noise
    least_shrinkage: float = 0.5  # 0..1; less finds more edited copies, but tells views of one object apart
    fewest_rows: int = 100  # photos; fewer say little about what photos share
    most_rows: int = 200_000  # photos it is learned from; more change nothing
    longest_vector: int = 4096  # numbers; a covariance of fc7 takes 134 MB and a minute
    growth: float = 1.5  # it is learned anew when the photos have become so many times as many, or as few
    block_rows: int = 4096  # rows at once, to bound memory


@dataclass(frozen=True)
class BuildDefaults:
    """How the FAISS index is made (docs/scale.md), and when it is made anew rather than changed."""

    recipe: str = "auto"
    memory: int = 4_000_000_000  # bytes; enough for 37 million photos in ivf-pq
    metric: str = "cosine"  # by which FAISS compares what it holds; unit vectors have one order by each
    recall: float = 0.99  # of the ten nearest, how many are found; the share that rounding alone costs is less
    most_flat_rows: int = 200_000  # photos; until here looking at all of them takes less than 50 ms
    lists_of_root: float = 5.0  # lists for each root of the number of photos; a quarter is 9 times as slow at 0.99
    training_points: int = 40  # vectors a list is learned from, at most; FAISS's 256 take six times as long
    fewest_points: int = 39  # vectors a list is learned from, at least; FAISS warns below
    fewest_lists: int = 4  # fewer are no better than flat
    rounds: int = 6  # of k-means; FAISS's ten find no more
    block_rows: int = 16_384  # vectors that are added at once, to bound memory
    growth: float = 1.5  # lists are learned anew when the photos have become so many times as many: as whitening
    dead_share: float = 0.25  # of all vectors; until then, making all anew costs more than the space is worth
    tuning_queries: int = 400  # vectors asked for; the error of a recall of 0.99 is then 0.002
    tuning_margin: float = 0.2  # of what may be missed, which is that error: it was chosen for these vectors
    timed_queries: int = 100  # of them are timed, one at a time
    most_candidates: int = 64  # times as many as asked for that are scored exactly; a bit a number needs ten
    count: int = 10  # the nearest that recall is measured on
    few_rows: int = 20_000  # rows a filter leaves, of which all are scored exactly: as quick as lists of a million
    gpu_queries: int = 1_000  # of an index, after which it is copied to the GPUs that FAISS sees
    scan_bytes: int = 64 << 20  # of vectors scored at once
    graph_work: float = (
        1000.0  # products of vectors that HNSW takes for each doubling of the rows, memory's share too
    )
    bytes_per_s: float = 3e8  # of embeddings read from Parquet
    seed: int = 1234


@dataclass(frozen=True)
class AlignDefaults:
    """How the best answers of a search are checked by geometry (docs/quality.md)."""

    candidates: int = 10  # photos that are checked; of copies, hardly any comes later
    part_candidates: int = 50  # photos that are checked for containing a picture; few come later
    orientations: int = 4  # of the query: upright, mirrored, turned left and right
    weight: float = 0.5  # 0..1, of the way to a similarity of 1.0 that geometry can raise; more hurts look-alikes
    confident: float = 0.5  # score; fewer than one in a hundred unrelated photos reaches it
    threads: int = 4  # that read photos
    remembered: int = 20_000  # photos whose local features are kept while many queries are measured


@dataclass(frozen=True)
class SearchDefaults:
    """How many photos a query shows, and how many queries are asked together."""

    count: int = 10
    at_once: int = 64  # pictures of 192 pixels a side that are held: 7 MB


@dataclass(frozen=True)
class MeasureDefaults:
    """How quality is measured."""

    sample: int = 100  # photos that copies are made of
    copy_pixels: int = 1024  # a side, at least, of the picture that copies are made of
    most_answers: int = 1000  # to a copy that are counted; what comes later counts as not found
    same: float = 1e-4  # under 1: the similarity of a photo and its exact copies
    block_queries: int = 64  # that are compared with all photos at once
    resamples: int = 200  # of the queries; the ends of a 95 % interval then rest on five of them each
    train_photos: int = 30  # of a class for the linear probe, as is usual for Caltech-101
    test_photos: int = 50  # of a class, at most; so too
    splits: int = 3  # of a class into photos to train and to test on; so too
    svm_c: float = 10.0  # for unit vectors; cross-validated on training photos alone: 1 is worse, 100 no better


@dataclass(frozen=True)
class PairDefaults:
    """How all pairs of photos that are alike are found (docs/scale.md)."""

    count: int = 32  # nearest photos of each that make pairs
    floor: float = (
        0.2  # similarity; one pair in five hundred of unrelated photos has more, three in a hundred copies less
    )
    block_rows: int = 2048  # rows that are compared with as many at once: their products fit a processor's cache
    sample: int = 1024  # rows that tell what similarity the nearest of a row have at least
    threads: int = 2  # one multiplies while the other looks at what came out
    most: int = 100_000_000  # pairs, where all above a floor are asked for; they take 1.2 GB


@dataclass(frozen=True)
class KeypointDefaults:
    """How two photos are compared by keypoints (docs/duplicates.md)."""

    pixels: int = 384  # of the longer side; copies of 96 pixels are seen larger, photos of 12 megapixels smaller
    count: int = 500  # keypoints of a photo
    contrast: float = 0.02  # of a keypoint, 0..1; half of Lowe's, for blurred and dark copies
    ratio: float = 0.75  # of the distances to the nearest and the next: a match that is less clear is none
    reach: float = 5.0  # pixels from where the transform puts it that an inlier may lie
    rounds: int = 500  # transforms that are tried
    grid: int = 8  # fields of a picture across and down, in each of which one keypoint counts
    largest_scale: float = 10.0  # of a transform, either way: a hundredth of a photo is too little to be sure of
    across: int = 3  # fields that keypoints must spread over, across and down: a caption takes two rows


@dataclass(frozen=True)
class DuplicateDefaults:
    """What counts as a duplicate, and which of some to keep (docs/duplicates.md)."""

    precision: float = 0.99  # of the pairs that are called duplicates, how many are
    keep: str = "resolution,quality,bytes,exif,oldest,shortest-path"  # most pixels first; edits hardly ever add any
    alike: float = 0.8  # similarity from which all pairs are wanted, however many a photo has
    least_confidence: float = 0.8  # of a pair, however sure all others are, as Efron has it (calibration.py)
    copied_photos: int = 50  # of the folder's own, that edited copies are made of to calibrate
    edits: int = 4  # of each of them
    unrelated: int = 500  # pairs at random that are no candidates, to calibrate
    unrelated_photos: int = 150  # of which they are
    at_random: int = 50_000  # pairs at random that tell how alike unrelated photos are, where none are looked at
    fewest_at_random: int = 20  # of them to learn from
    tail: float = 1.5  # times as far as the most similar tenth of them says; of three folders it was 1.3 to 1.4
    band_pairs: int = 20  # most similar pairs, of which the share of duplicates is found by itself
    few_pairs: int = 5  # the same, where the pairs at random tell the rest
    mostly_others: float = 0.1  # share of duplicates up to which a band tells what others are like
    least_share: float = 1e-4  # of duplicates in a band, and of others: nothing is certain
    largest_share: float = 0.98  # of duplicates, before keypoints are looked at: similar photos may be look-alikes
    of_a_copy: float = 0.5  # share of duplicates, at least, among pairs that have a duplicate in common
    most_neighbours: int = 64  # duplicates of a photo, of which each two are compared
    closures: int = 2  # times that is done
    rounds: int = 100  # of expectation maximisation
    block_pairs: int = 500  # that are compared at once, the most similar first
    fewest_confirmed: float = 0.01  # of a block; where fewer are duplicates, the less similar are not compared
    confirmed: int = 10  # inliers of a pair that counts for that
    seed: int = 1234  # of what is chosen at random
    similar: float = 0.5  # confidence from which a pair is shown as similar, where that is asked for
    burst_seconds: float = 10.0  # between two shots of one size that are no copies of each other
    saved_seconds: float = 60.0  # at most this much of geometry's work is lost to a crash
    remembered: int = 1000  # photos whose keypoints are kept meanwhile: 70 MB


@dataclass(frozen=True)
class ThumbnailDefaults:
    """How photos are made small to be shown, in a page or in a terminal."""

    side: int = 240  # pixels, the longer one: 6 kB each, so that 20,000 of them open in a browser
    quality: int = 60  # of WebP, 0..100; at this size no flaw is seen
    effort: int = 2  # of WebP, 0..6; more takes twice as long for a few bytes
    threads: int = 4  # that read photos
    ahead: int = 16  # groups in hand


@dataclass(frozen=True)
class NotebookDefaults:
    """How results are shown in a notebook."""

    side: int = 160  # pixels of a thumbnail, the longer side: six in a row
    photos: int = 48  # at most in one output: about 200 kB, which a notebook file stores


ALIGN = AlignDefaults()
BUILD = BuildDefaults()
COMPACT = CompactDefaults()
EMBEDDING = EmbeddingDefaults()
EXTRACT = ExtractDefaults()
IMAGE = ImageDefaults()
DECODER = DecoderDefaults()
DUPLICATES = DuplicateDefaults()
KEYPOINTS = KeypointDefaults()
MEASURE = MeasureDefaults()
NOTEBOOK = NotebookDefaults()
PAIRS = PairDefaults()
SEARCH = SearchDefaults()
THUMBNAILS = ThumbnailDefaults()
WHITENING = WhiteningDefaults()
