"""What to look for among duplicates, and what to keep."""

from dataclasses import dataclass

from vggsearch.defaults import DUPLICATES
from vggsearch.errors import OptionError


@dataclass(frozen=True)
class DuplicateOptions:
    """What to look for, and what to keep; see `vggsearch dups --help`.

    `threshold`, a similarity, takes the place of the calibration. `protect` are folders, relative to the photo
    folder, in which nothing is to be removed. Pairs are looked for in one folder alone with `within_folder`, in two
    with `across_folders`. `similar` shows what is no copy but may be another shot, too; `siblings` takes the shots
    of a burst for duplicates; `confirm` compares keypoints, where the photos are there.
    """

    min_precision: float = DUPLICATES.precision
    threshold: float | None = None
    keep: str = DUPLICATES.keep
    protect: tuple[str, ...] = ()
    min_size: int = 2
    within_folder: bool = False
    across_folders: bool = False
    similar: bool = False
    siblings: bool = False
    confirm: bool = True

    @property
    def by_folder(self) -> bool:
        """Whether it matters in which folder a photo is."""
        return self.within_folder or self.across_folders

    def __post_init__(self) -> None:
        """Raise OptionError for what makes no sense."""
        if not 0.5 <= self.min_precision < 1:
            raise OptionError(f"The wanted precision must be from 0.5 to below 1, not {self.min_precision:g}.")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise OptionError(f"The threshold is a similarity above 0 and at most 1, not {self.threshold:g}.")
        if self.min_size < 2:
            raise OptionError(f"A group has at least 2 photos, not {self.min_size}.")
        if self.within_folder and self.across_folders:
            raise OptionError("Pairs lie within one folder or across two: choose one of both.")
