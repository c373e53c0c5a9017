"""All choices and default values, each defined once, with its unit and the reason for it.

The command line and the library both use them; nothing heavy is imported.
"""

from dataclasses import dataclass
from typing import Literal, get_args

Format = Literal["table", "json", "jsonl", "csv", "paths"]
ActionKind = Literal["trash", "move", "hardlink", "symlink", "delete"]

FORMATS: tuple[Format, ...] = get_args(Format)
ACTIONS: tuple[ActionKind, ...] = get_args(ActionKind)  # on a duplicate
RESIZES = ("squash", "crop", "pad")
DEVICES = ("auto", "cpu", "cuda", "mps")
DECODE_ON = ("auto", "cpu", "gpu")
ENGINES = ("auto", "torch", "openvino")
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")
METRICS = {"cosine": "METRIC_INNER_PRODUCT", "euclidean": "METRIC_L2"}  # names in FAISS


@dataclass(frozen=True)
class EmbeddingDefaults:
    """How a photo becomes a vector. Chosen on edited copies of photos and on UKBench."""

    model: str = "vgg16"
    layer: str = "pool4+pool5"  # two depths in one pass find more edited copies than any single one
    map_pooling: str = "spoc"  # mean, square root, L2: the best pooling with 512 dimensions
    map_size: int = 192  # pixels; as good as 224 on copies at three quarters of the work
    connected_size: int = 224  # pixels; fc6 and fc7 were trained on a 7 x 7 map, which 224 gives
    mirror: bool = False  # the mirror image costs as much again
    resize: str = "squash"  # keeps the whole picture: a crop loses the differences of near-duplicates
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
    """When an update merges small parts automatically."""

    spare_parts: int = 64  # parts that merging would save; each costs a query about a millisecond to open
    dead_share: float = 0.25  # of all rows; until then, rewriting the others costs more than the space is worth


@dataclass(frozen=True)
class DecoderDefaults:
    """Limits for decoding one file. If it exceeds them, only that file is skipped."""

    seconds: float = 60.0  # the largest allowed picture takes a few
    bytes: int = 6 << 30  # of memory: the largest picture, and its copies during conversion


@dataclass(frozen=True)
class WhiteningDefaults:
    """How embeddings are whitened before they are searched (docs/quality.md)."""

    dim: int = 384  # dimensions of a whitened vector; fewer lose copies, more keep noise
    least_shrinkage: float = 0.5  # 0..1; less finds more edited copies, but separates views of one object
    fewest_rows: int = 100  # photos; fewer are too small a sample
    most_rows: int = 200_000  # photos it is learned from; more make no difference
    longest_vector: int = 4096  # dimensions; a covariance of fc7 takes 134 MB and a minute
    growth: float = 1.5  # factor by which the number of photos may grow or shrink before it is learned again
    block_rows: int = 4096  # rows at once, to bound memory


@dataclass(frozen=True)
class BuildDefaults:
    """How the FAISS index is built (docs/scale.md), and when it is rebuilt rather than extended."""

    recipe: str = "auto"
    memory: int = 4_000_000_000  # bytes; enough for 37 million photos in ivf-pq
    metric: str = "cosine"  # of FAISS; both give unit vectors the same order
    recall: float = 0.99  # share of the ten nearest photos found; rounding alone loses less
    most_flat_rows: int = 200_000  # photos; up to this number, comparing all of them takes less than 50 ms
    lists_of_root: float = 5.0  # lists for each root of the number of photos; a quarter is 9 times as slow at 0.99
    training_points: int = 40  # vectors a list is learned from, at most; FAISS's 256 take six times as long
    fewest_points: int = 39  # vectors a list is learned from, at least; FAISS warns below
    fewest_lists: int = 4  # fewer are no better than flat
    rounds: int = 6  # of k-means; FAISS's ten find no more
    block_rows: int = 16_384  # vectors that are added at once, to bound memory
    growth: float = 1.5  # factor by which photos may grow or shrink in number before lists are learned again
    dead_share: float = 0.25  # of all vectors; below this, a rebuild costs more than the space is worth
    tuning_queries: int = 400  # query vectors; the error of a recall of 0.99 is then 0.002
    tuning_margin: float = 0.2  # of the share that may be missed: the error above, as tuning uses these vectors
    timed_queries: int = 100  # of them are timed, one at a time
    most_candidates: int = 64  # times the requested count are scored exactly; one bit per dimension needs ten
    count: int = 10  # nearest photos for which recall is measured
    few_rows: int = 20_000  # rows left by a filter, all of which are scored exactly: as fast as lists of a million
    gpu_queries: int = 1_000  # on an index, after which it is copied to the GPUs that FAISS sees
    scan_bytes: int = 64 << 20  # of vectors scored at once
    graph_work: float = (
        1000.0  # products of vectors that HNSW takes for each doubling of the rows, memory's share too
    )
    bytes_per_s: float = 3e8  # of embeddings read from Parquet
    seed: int = 1234


@dataclass(frozen=True)
class AlignDefaults:
    """How the best results of a search are re-ranked by geometry (docs/quality.md)."""

    candidates: int = 10  # photos to check; hardly any copies rank lower
    containing_candidates: int = 50  # photos to check for containing a picture; few rank lower
    orientations: int = 4  # of the query: upright, mirrored, turned left and right
    weight: float = 0.5  # 0..1, of the gap to 1.0 that re-ranking can close; more worsens results on look-alikes
    confident: float = 0.5  # score; fewer than one in a hundred unrelated photos reaches it
    threads: int = 4  # that read photos
    remembered: int = 20_000  # photos whose local features are kept while many queries are measured


@dataclass(frozen=True)
class SearchDefaults:
    """How many photos a query returns, and how many queries are processed together."""

    count: int = 10
    at_once: int = 64  # pictures of 192 pixels a side in memory: 7 MB


@dataclass(frozen=True)
class MeasureDefaults:
    """How quality is measured."""

    sample: int = 100  # photos of which copies are made
    copy_pixels: int = 1024  # smallest side of the picture of which copies are made
    most_answers: int = 1000  # results of a copy that count; lower ranks count as not found
    same: float = 1e-4  # under 1: the similarity of a photo and its exact copies
    block_queries: int = 64  # that are compared with all photos at once
    resamples: int = 200  # of the queries; the ends of a 95 % interval then rest on five of them each
    train_photos: int = 30  # of a class for the linear probe, as is usual for Caltech-101
    test_photos: int = 50  # of a class, at most; so too
    splits: int = 3  # of a class into photos to train and to test on; so too
    svm_c: float = 10.0  # for unit vectors; cross-validated on training photos alone: 1 is worse, 100 no better


@dataclass(frozen=True)
class PairDefaults:
    """How all pairs of similar photos are found (docs/scale.md)."""

    count: int = 32  # nearest photos of each photo that form pairs with it
    floor: float = (
        0.2  # similarity; one pair in five hundred of unrelated photos has more, three in a hundred copies less
    )
    block_rows: int = 2048  # rows compared with as many at once: their products fit the CPU cache
    sample: int = 1024  # rows from which the least similarity of nearest neighbours is estimated
    threads: int = 2  # one multiplies while the other evaluates the products
    most: int = 100_000_000  # pairs, if all above a floor are requested; they take 1.2 GB


@dataclass(frozen=True)
class KeypointDefaults:
    """How two photos are compared by keypoints (docs/duplicates.md)."""

    pixels: int = 384  # of the longer side; copies of 96 pixels are enlarged, photos of 12 megapixels reduced
    count: int = 500  # keypoints of a photo
    contrast: float = 0.02  # of a keypoint, 0..1; half of Lowe's, for blurred and dark copies
    ratio: float = 0.75  # of the distances to the nearest and the second nearest; above it, no match
    reach: float = 5.0  # pixels; largest distance of an inlier from its transformed position
    rounds: int = 500  # transforms to try
    grid: int = 8  # cells of a picture across and down; one keypoint counts per cell
    largest_scale: float = 10.0  # of a transform, either way: a hundredth of a photo is too small to be reliable
    across: int = 3  # cells over which keypoints must spread, across and down: a caption covers two rows


@dataclass(frozen=True)
class DuplicateDefaults:
    """What counts as a duplicate, and which photo of a group to keep (docs/duplicates.md)."""

    min_precision: float = 0.99  # share of the reported pairs that are duplicates
    keep: str = "resolution,quality,bytes,exif,oldest,shortest-path"  # most pixels first; edits hardly ever add any
    alike: float = 0.8  # similarity from which all pairs are candidates, however many a photo has
    least_confidence: float = 0.8  # of a pair, however certain all others are, following Efron (calibration.py)
    copied_photos: int = 50  # of the folder, of which edited copies are made for the calibration
    edits: int = 4  # of each of them
    unrelated: int = 500  # random pairs that are not candidates, for the calibration
    unrelated_photos: int = 150  # from which these pairs are drawn
    at_random: int = 50_000  # random pairs that show how similar unrelated photos are, if no photos are compared
    fewest_at_random: int = 20  # of them; with fewer, no calibration is possible
    tail: float = 1.5  # times as long as the most similar tenth suggests; 1.3 to 1.4 in three folders
    band_pairs: int = 20  # pairs in the most similar band; the share of duplicates is estimated per band
    few_pairs: int = 5  # the same, for the calibration by similarity alone
    mostly_others: float = 0.1  # share of duplicates up to which a band counts as pairs that are not duplicates
    least_share: float = 1e-4  # of duplicates in a band, and of others: nothing is certain
    largest_share: float = 0.98  # of duplicates, before keypoints are considered: similar photos may be look-alikes
    of_a_copy: float = 0.5  # share of duplicates, at least, among pairs that have a duplicate in common
    most_neighbours: int = 64  # duplicates of a photo that are compared with each other, at most
    closures: int = 2  # rounds of that
    rounds: int = 100  # of expectation maximisation
    block_pairs: int = 500  # compared at once, the most similar first
    fewest_confirmed: float = 0.01  # of a block; if fewer are duplicates, less similar pairs are not compared
    confirmed: int = 10  # inliers from which a pair counts as a duplicate for this
    seed: int = 1234  # of random choices
    similar: float = 0.5  # confidence from which a pair is reported as similar, with the option `similar`
    burst_seconds: float = 10.0  # between two shots of one size that are a burst rather than copies
    saved_seconds: float = 60.0  # at most this much matching of keypoints is lost in a crash
    remembered: int = 1000  # photos whose keypoints are kept in memory: 70 MB


@dataclass(frozen=True)
class ThumbnailDefaults:
    """How thumbnails are made, for a page or a terminal."""

    side: int = 240  # pixels, the longer side: 6 kB each, so that 20,000 of them open in a browser
    quality: int = 60  # of WebP, 0..100; artefacts are invisible at this size
    effort: int = 2  # of WebP, 0..6; more takes twice as long for a few bytes
    threads: int = 4  # that read photos
    ahead: int = 16  # groups prepared in advance


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
