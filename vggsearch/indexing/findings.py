"""What can be damaged in an index, and what a repair does about it."""

from dataclasses import dataclass

from vggsearch.errors import REPAIR, UPDATE, Spelled, option, spelled
from vggsearch.store.contents import DAMAGED_DECISIONS

IMPORT = Spelled("index.import_decisions(FILE)", "vggsearch dups decide --import FILE")
UNDO = Spelled("vggsearch.undo(JOURNAL)", "vggsearch dups undo JOURNAL")


@dataclass(frozen=True)
class Finding:
    """Something damaged: the file of the index, the problem and the way out.

    `photos` are the paths lost with it, if they can still be read. `is_repaired` is False if no repair was wanted,
    or if none can help.

    >>> (index.directory / "skipped.parquet").write_bytes(b"damaged")
    7
    >>> [finding.file for finding in index.verify().findings]
    ['skipped.parquet']
    """

    file: str
    problem: str
    way_out: Spelled
    photos: tuple[str, ...] = ()
    is_repaired: bool = False


@dataclass(frozen=True)
class Remedy:
    """What a repair would do, and what it did."""

    offered: Spelled
    done: Spelled

    def finding(self, is_repaired: bool, file: str, problem: str, photos: tuple[str, ...] = ()) -> Finding:
        """Return a finding with this remedy."""
        return Finding(file, problem, self.done if is_repaired else self.offered, photos, is_repaired)


DROP_PHOTOS = Remedy(
    spelled(REPAIR, " drops these photos, and ", UPDATE, " indexes them again"),
    spelled("these photos were dropped; ", UPDATE, " indexes them again"),
)
DROP_LOCAL = Remedy(
    spelled(REPAIR, " drops these local features, and ", UPDATE, " computes them again"),
    spelled("these local features were dropped; ", UPDATE, " computes them again"),
)
DROP_CACHE = Remedy(
    spelled(REPAIR, " deletes it, and vggsearch makes it again when it needs it"),
    spelled("it was deleted; vggsearch makes it again when it needs it"),
)
READ_ALL = spelled(UPDATE, " with ", option("rehash"), " then reads all photos, and finds edits that were missed")
DROP_STAMPS = Remedy(spelled(REPAIR, " deletes it; ", READ_ALL), spelled("it was deleted; ", READ_ALL))
FORGET_LEARNED = Remedy(
    spelled(REPAIR, " drops it, and queries are as before it was learned"),
    spelled("it was dropped; queries are as before it was learned"),
)
REBUILD_SEARCH = Remedy(spelled(REPAIR, " rebuilds it from the embeddings"), spelled("it was rebuilt"))
DROP_SKIPPED = Remedy(
    spelled(REPAIR, " drops the list, and ", UPDATE, " tries those files again"),
    spelled("the list was dropped; ", UPDATE, " tries those files again"),
)
_BACK = spelled("photos deleted since are back until the next ", UPDATE)
RESTORE_DEAD = Remedy(
    spelled(REPAIR, " keeps the newest row of each photo; ", _BACK),
    spelled("the newest row of each photo was kept; ", _BACK),
)
KEEP_NEWEST = Remedy(spelled(REPAIR, " keeps the newest row"), spelled("the newest row was kept"))
_FORGOTTEN = spelled(
    "photos deleted since are back until the next ",
    UPDATE,
    ", which has to name the photo folder, and any of ",
    Spelled("weights, whiten and local_features", "--weights, --no-whiten and --local-features"),
    " that were not the default; what was learned from labels has to be learned again",
)
REBUILD_MANIFEST = Remedy(
    spelled(REPAIR, " rebuilds it from the parts; ", _FORGOTTEN),
    spelled("it was rebuilt from the parts; ", _FORGOTTEN),
)
SET_ASIDE = Remedy(
    spelled(REPAIR, f" moves this line to {DAMAGED_DECISIONS} and keeps all others"),
    spelled(f"this line was moved to {DAMAGED_DECISIONS}: correct it there, then ", IMPORT),
)
KEEP_JOURNAL = spelled(
    "no repair changes a journal; ",
    UNDO,
    " still restores every other file. Delete the journal once there is nothing left to undo",
)
