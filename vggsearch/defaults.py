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
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "fp8", "int8")
METRICS = {"cosine": "METRIC_INNER_PRODUCT", "euclidean": "METRIC_L2"}  # names in FAISS


@dataclass(frozen=True)
class EmbeddingDefaults:
    """How a photo becomes a vector. The values were chosen on edited copies of photos and on UKBench."""

    model: str = "vgg16"
    fast_model: str = "vgg16_half"  # half the multiply-adds of `model`, at nearly equal quality (docs/choosing.md)
    layer: str = "pool4+pool5"  # two layers in one pass find more edited copies than any single layer
    map_pooling: str = "spoc"  # mean, square root, L2: the best pooling with 512 dimensions
    map_size: int = 192  # pixels; finds copies as well as 224 with three quarters of the work
    trained_size: int = 224  # pixels, of all published weights; fc6 and fc7 fit the 7 x 7 maps of that size
    resnet_layer: str = "layer3+layer4"  # cells of 16 and 32 pixels, as pool4 and pool5 have; nothing was measured
    googlenet_layer: str = "inception4e+inception5b"  # the same
    mirror: bool = False  # embedding the mirror image too doubles the work
    resize: str = "squash"  # keeps the whole picture: a crop loses the differences of near-duplicates
    smallest_size: int = 32  # pixels; the image is halved five times until pool5
    largest_size: int = 1024  # pixels; above, the activations of one photo take a gigabyte


@dataclass(frozen=True)
class ExtractDefaults:
    """How photos are read and embedded."""

    batch_size: int = 8  # photos; larger batches are no faster on a CPU and take more memory
    few_per_cpu: int = 40  # photos a CPU core embeds in 2 to 5 s, before a GPU has started
    gpu_batch_size: int = 128  # photos, on CUDA; half of it if they do not fit
    mps_batch_size: int = 64  # photos; MPS shares the memory of the computer, and nothing halves it there
    batch_bytes: int = 128 << 20  # of files that a GPU process reads at once: 45 of 12 megapixels
    large_bytes: int = 500_000  # of a file, from which decoding costs more than what a CPU hands to a GPU process
    decoded_bytes: int = 1 << 30  # of pixels that may wait for GPUs, which take seconds to start
    part_bytes: int = 64 << 20  # of embeddings in one Parquet part, at most
    local_bytes: int = 1_113_600_000  # of local features that a new index keeps unasked: of 100,000 photos
    copies_remembered: int = 4096  # photos of a run whose embeddings are reused for later exact copies
    lost_share: float = (
        0.5  # of the photos of a bucket or of tar files; if more are gone, the list may be incomplete
    )
    remote_reads: int = 16  # photos in object storage that are awaited at once, some 20 ms each
    part_seconds: float = 60.0  # between commits: a crash loses no more work than this


@dataclass(frozen=True)
class ClusterDefaults:
    """How the work of an update is divided among the workers of a Ray cluster."""

    chunk: int = 512  # files that a worker gets at once: seconds of work, and 1 MB of results
    least_chunk: int = 64  # files, if there are few; a multiple of the batches, which are then the same ones
    chunks: int = (
        2  # that a worker has at once, beyond what Feed takes ahead for a GPU: one under way, and one more
    )
    deaths: int = 3  # of workers over one chunk, which end the run: its files may be the reason
    sample: int = 16  # files by which a worker finds out whether it sees the photos
    connect_seconds: float = 10.0  # to wait for an answer of the cluster
    start_seconds: float = 300.0  # to wait for the first worker
    look_seconds: float = 0.5  # between two looks at whether to stop, while a task runs
    task_rows: int = 65_536  # vectors of a task that builds a FAISS index: 50 MB; a multiple of BUILD.block_rows


@dataclass(frozen=True)
class ImageDefaults:
    """Which images are refused before decoding, how they are resized, and which count as blank."""

    pixel_limit: int = 178_956_970  # pixels after a reduced decode; Pillow's limit for decompression bombs
    whole_pixels: int = 1 << 24  # pixels of a picture that is converted as a whole, taking a copy; larger in strips
    strip_pixels: int = 1 << 20  # pixels of such a strip
    most_frames: int = 200  # of an animation that are compared with another's: a second or two
    picture_pixels: int = 1 << 21  # pixels of a picture from a decoder process, at most, in memory shared with it
    file_bytes: int = 2 << 30  # of a photo file; the largest picture, uncompressed, with 16 bits, takes less
    stream_bytes: int = 256 << 20  # read of a stream, which may have no end; no camera's file has as many
    blank_deviation: float = 3.0  # of 255, in the most varied channel; a covered lens has less, fog has more
    reducing_gap: float = 2.0  # decode at no less than this multiple of the target size, then resize precisely


@dataclass(frozen=True)
class CompactDefaults:
    """When an update merges small parts automatically."""

    spare_parts: int = 64  # parts that merging would save; opening one costs a query about a millisecond
    dead_share: float = 0.25  # of all rows; below, rewriting the live rows costs more than the space is worth


@dataclass(frozen=True)
class DecoderDefaults:
    """Limits for decoding one file. If it exceeds them, only that file is skipped."""

    seconds: float = 60.0  # the largest allowed picture takes a few
    picture_bytes: int = 640 << 20  # of memory, estimated, for a picture and its decoder's copies, at most
    bytes: int = 1 << 30  # of memory of a process: the largest picture, and what was not foreseen
    usual_bytes: int = 64 << 20  # of a picture that any number of processes decode at once: 16 megapixels


@dataclass(frozen=True)
class WhiteningDefaults:
    """How embeddings are whitened for the search (docs/quality.md)."""

    dim: int = 384  # dimensions of a whitened vector; fewer lose copies, more keep noise
    least_shrinkage: float = 0.5  # 0..1; less finds more edited copies, but separates views of one object
    fewest_rows: int = 100  # photos; fewer are too small a sample
    most_rows: int = 200_000  # photos it is learned from; more make no difference
    longest_vector: int = 4096  # dimensions; a covariance of fc7 takes 134 MB and a minute
    growth: float = 1.5  # factor by which the number of photos may grow or shrink before it is learned again
    block_rows: int = 4096  # rows processed at once, to bound memory


@dataclass(frozen=True)
class BuildDefaults:
    """How the FAISS index is built (docs/scale.md), and when it is rebuilt rather than extended."""

    recipe: str = "auto"
    memory: int = 4_000_000_000  # bytes; enough for 37 million photos with ivf-pq
    metric: str = "cosine"  # of FAISS; both give unit vectors the same order
    recall: float = 0.99  # share of the ten nearest photos found; rounding alone loses less
    most_flat_rows: int = 200_000  # photos; up to this number, comparing all of them takes less than 50 ms
    lists_of_root: float = 5.0  # lists per root of the number of photos; a quarter is 9 times as slow at 0.99
    training_points: int = 40  # vectors to train each list on, at most; FAISS's 256 take six times as long
    fewest_points: int = 39  # vectors to train each list on, at least; FAISS warns below
    fewest_lists: int = 4  # fewer are no better than flat
    rounds: int = 6  # of k-means; FAISS's ten find no more
    block_rows: int = 16_384  # vectors added at once, to bound memory
    growth: float = 1.5  # factor by which photos may grow or shrink in number before lists are learned again
    dead_share: float = 0.25  # of all vectors; below this, a rebuild costs more than the space is worth
    whole_rows: int = 20_000  # photos; up to this number, an update writes all vectors again: 45 MB at most
    plain_rows: int = 16_384  # added photos that are compared one by one: with 384 dimensions, 25 MB of memory
    segment_ratio: int = 4  # times as large as a new segment are segments that it takes in, at most
    tuning_queries: int = 400  # query vectors; the error of a recall of 0.99 is then 0.002
    tuning_margin: float = 0.2  # of the share that may be missed: the error above, as tuning uses these vectors
    timed_queries: int = 100  # of these, at most, are timed, one at a time
    fewest_timed: int = 10  # for a median; more only if they fit into the seconds below
    timed_seconds: float = 1.0
    most_candidates: int = 64  # times the requested count are scored exactly; one bit per dimension needs ten
    count: int = 10  # nearest photos for which recall is measured
    few_rows: int = 20_000  # rows left by a filter, all of which are scored exactly: as fast as lists of a million
    gpu_queries: int = 1_000  # on an index, after which it is copied to the GPUs that FAISS sees
    scan_bytes: int = 64 << 20  # of vectors scored at once
    hashed_bytes: int = 32 << 20  # of a file that is compared with its checksum whenever it is opened, in 35 ms
    graph_work: float = 1000.0  # HNSW's products of vectors per doubling of the rows, memory access included
    bytes_per_s: float = 3e8  # at which embeddings are read from Parquet
    seed: int = 1234


@dataclass(frozen=True)
class AlignDefaults:
    """How the best results of a search are re-ranked by geometry (docs/quality.md)."""

    candidates: int = 10  # photos to check; hardly any copies rank lower
    containing_candidates: int = 50  # photos to check for containing a picture; few rank lower
    orientations: int = 4  # of the query: upright, mirrored, rotated left and right
    weight: float = 0.5  # 0..1, of the gap to 1.0 that re-ranking can close; more worsens results on look-alikes
    confident: float = 0.5  # score that fewer than one in a hundred unrelated photos reach
    of_a_copy: float = 0.9  # 0..1, of the gap to 1.0 that a certain copy closes
    of_a_shot: float = 0.5  # 0..1, the same for a photo of the same scene, whether a copy or not
    unlike: int = 4  # photos compared by keypoints without finding a copy
    unlike_framed: int = 8  # the same, if the query has a frame: it was edited, and resembles its photo less
    unlike_after: int = 1  # the same, once one was found: copies are the most similar
    compared_at_once: int = 2  # by keypoints
    threads: int = 4  # that read photos
    recent: int = 200  # photos whose features stay in memory between searches: 50 MB
    remembered: int = 4_000  # photos whose features stay in memory during an evaluation: 1 GB
    hashed_rows: int = 2_000_000  # photos whose perceptual hashes are compared with that of a query, in 64 MB


@dataclass(frozen=True)
class SearchDefaults:
    """How many photos a query returns, and how many queries are processed together."""

    count: int = 10
    at_once: int = 64  # pictures of 192 pixels a side in memory: 7 MB
    facts: int = 200_000  # photos whose SHA-256, width and height an open index keeps: 16 MB
    ahead: int = 3  # queries that are run together: one in the network, one that reads and one that compares


@dataclass(frozen=True)
class MeasureDefaults:
    """How quality is measured."""

    sample: int = 100  # photos of which copies are made
    copy_pixels: int = 1024  # smallest side of the picture of which copies are made
    most_answers: int = 1000  # results of a copy that count; lower ranks count as not found
    same: float = 1e-4  # below 1.0: from there on, the similarity of exact copies
    block_queries: int = 64  # compared with all photos at once
    resamples: int = 200  # of the queries; each end of a 95 % interval then rests on five of them
    train_photos: int = 30  # per class for the linear probe, as usual for Caltech-101
    test_photos: int = 50  # per class, at most; also as usual
    splits: int = 3  # of each class into training and test photos; also as usual
    svm_c: float = 10.0  # for unit vectors; cross-validated on the training photos: 1 is worse, 100 no better


@dataclass(frozen=True)
class LearnDefaults:
    """How a transform of embeddings is learned from labels, and how photos are labelled (docs/learning.md)."""

    shrinkages: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9)  # of the scatter within labels; tried in this order
    dims: tuple[int, ...] = (32, 64, 128, 256, 384)  # of a transformed vector; with fewer, unlike photos coincide
    rounds: int = 5  # of cross-validation: in each, a fifth of the labels and of the other photos is tested
    fewest_photos: int = 4  # of a label, without copies, so that two can be tested and two learned from
    fewest_examples: int = 2  # photos of a label to classify others by, so that one can be tested
    background: int = 10_000  # photos without a label that are learned from, at most: 80 MB
    gallery: int = 2_000  # photos without a label among which those of a test are searched, at most
    labelled: int = 10_000  # photos, at most: 80 MB
    queries: int = 400  # of each kind in a round, at most; a test compares each with a fifth of the labelled photos
    classifier_shrinkage: float = 0.3  # from 0.01 to 0.9, the answers are equally right
    alike: float = 0.8  # similarity from which two labelled photos count as copies, as in DuplicateDefaults
    least_known: float = 0.5  # probability that a photo has one of the labels, below which it has none
    seed: int = 1234  # of random choices


@dataclass(frozen=True)
class PairDefaults:
    """How all pairs of similar photos are found (docs/scale.md)."""

    count: int = 32  # nearest photos of each photo that form pairs with it
    floor: float = 0.2  # similarity; 1 in 500 unrelated pairs has more, 3 in 100 pairs of copies have less
    hash_bits: int = (
        64  # of 256 in which the hashes of a pair differ, at most: 1 in a million look-alikes is so near
    )
    hash_block: int = 512  # rows whose hashes are compared with all others at once, in eight orientations
    most_hashes: int = 20_000  # up to so many, all are compared: in 3 s; above, those that share 16 bits
    block_rows: int = 2048  # rows compared with as many at once: their products fit the CPU cache
    sample: int = 1024  # rows from which the least similarity of nearest neighbours is estimated
    threads: int = 2  # one multiplies while the other evaluates the products
    most_exact: int = (
        400_000  # photos that a CPU compares with each other; 60,000 take 24 s of CPU, these 44 times that
    )
    near_recall: float = 0.99  # share of the pairs of `near_similarity` to find among more photos
    near_similarity: float = 0.5  # from which pairs count for this share; hardly any unrelated ones have as much
    near_sample: int = 512  # photos on which this share is measured
    fewest_probes: int = 8  # lists in which the neighbours of a photo are searched, at least
    most_probes: int = 64  # the same, at most
    near_lists: float = 4.0  # lists per root of the number of photos
    near_rows: int = 131_072  # photos whose neighbours are searched at once, in 250 MB
    update_exact: int = 8  # of so many photos, one may be new and is compared with all; more are a new search
    update_near: int = 64  # the same where not all are compared, which takes less
    update_hashes: int = 1_000  # photos whose hashes are compared with all of many, rather than looked up
    most: int = 100_000_000  # pairs, if all above a floor are requested; they take 1.2 GB


@dataclass(frozen=True)
class VoteDefaults:
    """How photos that share keypoints are found by the codes of these (docs/duplicates.md)."""

    bytes: int = 16  # of a code
    most: int = 2_000_000  # keypoints in all: 500 of each of 4,000 photos, 100 of each of 20,000
    most_photos: int = 20_000  # above, fewer than 100 keypoints of each would say too little
    nearest: int = 8  # for which a keypoint votes
    bits: int = 22  # of 128 in which these differ, at most
    partners: int = 8  # photos with most votes that form pairs with a photo
    least: float = 1.0  # votes of a pair
    block: int = 200  # photos that vote at once
    listed: int = 20_000  # keypoints from which they are kept in inverted lists
    rounds: int = 4  # of k-means for the lists
    sample: int = 39  # keypoints per list, from which the lists are learned: the fewest that FAISS accepts
    probes: int = 3  # lists that are searched


@dataclass(frozen=True)
class GpuSearchDefaults:
    """How torch compares all rows with many queries on a GPU, and from when on (docs/scale.md)."""

    products: float = (
        5e9  # of two rows: 16 CPU cores take 3 s or more, as long as importing torch and starting CUDA
    )
    products_started: float = 1e9  # the same if torch is imported already, as after embedding on a GPU
    queries: int = 2048  # compared at once, at most; more are no faster
    blocks: int = 16  # of so many queries are computed before the process waits for the GPU and can be stopped
    group: int = 64  # rows of which the largest product is selected first
    spare: int = 16  # rows re-scored beyond those requested, at least; half as many as requested if that is more
    exact_queries: int = 256  # repeated in float64 at once


@dataclass(frozen=True)
class KeypointDefaults:
    """How two photos are compared by keypoints (docs/duplicates.md)."""

    pixels: int = 384  # of the longer side; copies of 96 pixels are enlarged, photos of 12 megapixels reduced
    detected_pixels: int = 224  # the same, to detect keypoints in: as many copies match, in half the time
    few: int = 120  # keypoints found there; with fewer, they are detected in `pixels`, as in drawings of fine lines
    count: int = 500  # keypoints per photo
    contrast: float = 0.02  # of a keypoint, 0..1, at least; half of Lowe's, for blurred and dark copies
    faint: float = 0.01  # the same where there are still few, as in photos of a sky or out of focus
    ratio: float = 0.75  # of the distances to the nearest and the second nearest; above it, no match
    reach: float = 5.0  # pixels; largest distance of an inlier from its transformed position
    rounds: int = 500  # transforms to try
    grid: int = 8  # cells of a picture across and down; one keypoint counts per cell
    largest_scale: float = 10.0  # of a transform, either way: a hundredth of a photo is too small to be reliable
    across: int = 3  # cells over which keypoints must spread, across and down: a caption covers two rows


@dataclass(frozen=True)
class SurroundingsDefaults:
    """What a photo shows around an image that lies in it (matching/surroundings.py)."""

    pixels: int = 480  # of the longer side, in which it is judged
    margin: int = 4  # pixels along the edges of the image, by which its position may be wrong
    least_share: float = 0.01  # of the photo around the image; less is nothing
    field: int = 12  # pixels a side, of fields that are of one grey level or textured
    deviation: float = 6.0  # grey levels, standard deviation in a textured field; noise and JPEG leave less
    noise: float = 0.5  # grey levels, the same in a field of a photo, at least, even of the sky
    plain: float = 0.3  # share of fields with less, from which it is drawn, as a screen; photos have 0.0 to 0.1
    flat: float = 0.02  # share of textured fields up to which nothing is shown
    textured: float = 0.25  # share of textured fields from which other pictures are shown; toolbars have 0.1 to 0.3
    share_of_others: float = 0.35  # of the photo, around the image, for that; the text of a meme takes less
    reach: int = 16  # pixels to both sides of an edge in which grey levels are compared
    places: int = 100  # on an edge, at which they are
    least_edge: float = 0.2  # of an edge, inside the photo
    seam: float = 0.25  # logarithm of the ratio of changes, from which an edge is a seam; collages have 0.5 to 3
    no_seam: float = 0.1  # the same, up to which it is none; crops have -0.9 to 0.1, nine in ten of them
    goes_on: float = 0.85  # correlation across an edge, from which a scene goes on; frames have no texture there
    surely_goes_on: float = 0.93  # the same, even if an edge is a seam and much else is shown
    breaks_off: float = 0.3  # the same, below which it does not: crops of photos have more, 2 in 100 excepted
    hardly_goes_on: float = 0.6  # the same, below which another texture beyond an edge shows another picture:
    beside: tuple[int, int] = (3, 10)  # pixels from an edge, between which changes of grey levels are compared
    other_texture: float = 0.9  # logarithm of their ratio on both sides, from then on; 2 in 100 crops have more
    margin_of_part: int = 16  # as `margin`, of the part of an image that a photo shows, found in fields
    reach_of_part: int = 36  # as `reach`, for that
    seam_of_part: float = 0.4  # as `seam`, for that; collages have 0.6 to 3, crops -0.5 to 0.3
    hardly_hidden: float = 0.02  # as `hidden`, if there is a seam
    hidden: float = 0.06  # of an image laid on a photo, from which the photo may show only a part of it; its part
    agreement: float = 0.8  # then agrees, less what differs in it: stickers and wrong positions leave 0.3 to 0.8
    by_chance: float = 0.17  # of the rest that agrees, at most; where something was put on a copy, 0.1 to 0.4 does


@dataclass(frozen=True)
class DetailDefaults:
    """Whether a photo shows more detail than a smaller copy, or is an enlarged one (matching/detail.py)."""

    side: int = 256  # pixels of the squares whose spectrum is taken
    least_side: int = 64  # of them; smaller parts do not tell
    rings: int = 40  # frequencies that are told apart
    least_ratio: float = 1.3  # of the sizes of the two copies; with less, too few frequencies differ
    zero: float = 0.8  # grey levels, of a coefficient that was zero before it was rounded to a pixel
    grid: float = 1.1  # times as many zeros in the blocks of a JPEG as elsewhere; without a JPEG 0.9 to 1.07
    above_noise: float = 0.1  # of the energy of low frequencies; with less, only the noise of a JPEG is compared
    least: float = 5.0  # squared grey levels, of finer detail than a smaller copy can have; JPEG leaves up to 5
    surely_real: float = 0.5  # as `real`, against the date of a camera in the smaller photo
    real: float = 0.25  # of the energy of the octave below; photos have 0.2 to 3, enlarged ones 0.01 to 0.25


@dataclass(frozen=True)
class ColourDefaults:
    """Whether a photo is in colour and its copy is not (matching/colour.py)."""

    grey: float = 3.0  # levels between the channels of a pixel, in the mean; a grey JPEG has less
    most: float = 0.8  # of all pixels, which have less colour than the rest: a sticker covers an eighth
    least: float = 4.0  # levels; grey copies have 0, 98 in 100 toned JPEGs of quality 80 less than this
    times: float = 4.0  # as much as the other; a copy whose channels were scaled has up to 3.3 times as much


@dataclass(frozen=True)
class DuplicateDefaults:
    """What counts as a duplicate, and which photo of a group to keep (docs/duplicates.md)."""

    min_precision: float = 0.99  # share of the reported pairs that are duplicates
    keep: str = "original,resolution,quality,bytes,exif,oldest,shortest-path"
    alike: float = 0.8  # similarity from which all pairs are candidates, however many a photo has
    least_confidence: float = 0.8  # of a pair, however certain all others are, following Efron (calibration.py)
    copied_photos: int = 39  # of the folder, of which edited copies are made for the calibration
    copies: int = 78  # in all, each edit as often as any other
    edits: int = 4  # of each of these photos, at most
    prior_copies: int = 39  # of other folders, for the recall: it differs among folders by .03, by chance by .02
    unrelated: int = 500  # random pairs that are not candidates, for the calibration
    unrelated_photos: int = 150  # from which these pairs are drawn
    at_random: int = 50_000  # random pairs that show how similar unrelated photos are, if no photos are compared
    fewest_at_random: int = 20  # of them; with fewer, no calibration is possible
    tail: float = 1.5  # times as long as the most similar tenth suggests; 1.3 to 1.4 in three folders
    band_pairs: int = 20  # pairs in the most similar band; the share of duplicates is estimated per band
    few_pairs: int = 5  # the same, for the calibration by similarity alone
    most_pairs: int = 200  # in a band of that: in larger ones, copies of little similarity are lost among others
    mostly_others: float = 0.1  # share of duplicates up to which a band counts as pairs that are not duplicates
    assumed_share: float = 0.1  # of duplicates in a band, before any pair is known
    least_share: float = 1e-4  # of duplicates, and of other pairs, in a band: nothing is certain
    largest_share: float = 0.98  # of duplicates, before keypoints are considered: similar photos may be look-alikes
    of_a_copy: float = 0.5  # share of duplicates, at least, among pairs of photos that share a duplicate
    most_neighbours: int = 64  # duplicates of a photo that are compared with each other, at most
    closures: int = 2  # rounds of that
    rounds: int = 100  # of expectation maximisation
    block_pairs: int = 500  # compared at once, the most similar first
    fewest_confirmed: float = 0.01  # of a block; if fewer are duplicates, less similar pairs are not compared
    confirmed: int = 10  # inliers from which a pair counts as a duplicate for this
    seed: int = 1234  # of random choices
    similar: float = 0.5  # confidence from which a pair is reported as similar, with the option `similar`
    burst_seconds: float = (
        3600.0  # between two shots of one size, of a burst or from one tripod, rather than copies
    )
    shots_a_second: int = 60  # at most: photos of one second whose numbers differ by no more are a burst
    looked_at_once: int = 256  # pairs whose photos are in memory while looking for originals: 100 MB
    quality_step: int = 5  # of JPEG, 1..100, from which a lower quality means another compression
    saved_seconds: float = 60.0  # at most this much matching of keypoints is lost in a crash
    hashed_at_once: int = 8  # pairs whose whole files are read together; a search can only be stopped in between
    photos_at_once: int = 64  # photos compared with one photo, whose keypoints are in memory together
    remembered: int = 1000  # photos whose keypoints are kept in memory: 180 MB
    spilled: int = 10_000  # photos, at most, whose keypoints are kept in a temporary file: 1.8 GB


@dataclass(frozen=True)
class ThumbnailDefaults:
    """How thumbnails are made, for a page or a terminal."""

    side: int = 240  # pixels, the longer side: 6 kB each, so that 20,000 of them open in a browser
    quality: int = 60  # of WebP, 0..100; artefacts are invisible at this size
    effort: int = 2  # of WebP, 0..6; more takes twice as long and saves a few bytes
    threads: int = 4  # that read photos
    ahead: int = 16  # groups prepared in advance


@dataclass(frozen=True)
class ServeDefaults:
    """What the server of `vggsearch serve` accepts, waits for and holds at most."""

    host: str = "127.0.0.1"  # this machine alone
    port: int = 8765
    batch_seconds: float = 0.003  # that a search waits for others, to go through the network with them
    searchers: int = (
        1  # threads that search: each uses all CPUs, and two halve what goes through the network at once
    )
    waiting: int = 256  # searches; beyond, a client is asked to come back
    retry_seconds: int = 2  # after which it is asked to
    upload_bytes: int = 64 << 20  # of one picture
    upload_files: int = 16  # pictures of one query
    batch_files: int = 64  # pictures of one batch
    body_bytes: int = 256 << 20  # of one request
    held_bytes: int = 1 << 30  # of all requests that are not answered yet
    body_seconds: float = 120.0  # until all of a request has arrived
    header_seconds: float = 10.0  # until its headers have: an honest browser needs milliseconds
    idle_seconds: int = 15  # until a connection without a request is closed
    connections: int = 512  # open at once
    remembered: int = 200  # queries with uploaded pictures, by their id
    remembered_bytes: int = 256 << 20  # of these pictures, in memory
    filter_characters: int = 500  # of one filter
    filter_wildcards: int = 8  # stars in one filter: each one multiplies the work
    thumbnail_sides: tuple[int, ...] = (160, 320, 640)  # pixels of the longer side
    checked_files: int = 10_000  # that were found to be pictures, before they were sent
    thumbnail_bytes: int = 512 << 20  # in a temporary file: 40,000 of 320 pixels
    listed_photos: int = 1_000_000  # that are published; more are searched, and not listed or counted
    most_listed: int = 1000  # photos, matches or skipped files in one answer
    map_photos: int = 5000  # that t-SNE places, in half a minute; the others go beside them
    jobs: int = 16  # that wait or run
    jobs_remembered: int = 100  # that ended
    plans_remembered: int = 32
    reports_remembered: int = 4  # of duplicates


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
GPU_SEARCH = GpuSearchDefaults()
CLUSTER = ClusterDefaults()
IMAGE = ImageDefaults()
DECODER = DecoderDefaults()
COLOUR = ColourDefaults()
DETAIL = DetailDefaults()
DUPLICATES = DuplicateDefaults()
KEYPOINTS = KeypointDefaults()
LEARN = LearnDefaults()
MEASURE = MeasureDefaults()
NOTEBOOK = NotebookDefaults()
PAIRS = PairDefaults()
SEARCH = SearchDefaults()
SERVE = ServeDefaults()
SURROUNDINGS = SurroundingsDefaults()
THUMBNAILS = ThumbnailDefaults()
VOTES = VoteDefaults()
WHITENING = WhiteningDefaults()
