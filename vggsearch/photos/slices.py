"""One of several equal slices of a photo folder, so that several jobs can index one folder together."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vggsearch.errors import OptionError, option
from vggsearch.photos.walk import PhotoFile, Skipped


@dataclass(frozen=True)
class Slice:
    """Slice `number` of `count`, from 1: as many files as every other one, in the order of the walk.

    Raises OptionError for a slice that cannot be.

    >>> str(Slice(3, 64))
    '3/64'
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        """Raise OptionError unless 1 <= number <= count."""
        if not 1 <= self.number <= self.count:
            raise OptionError(option("slice", str(self)), " is no slice: the first of 64 is 1/64, the last 64/64.")

    def __str__(self) -> str:
        """Return the slice as it is written: 3/64."""
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> "Slice":
        """Return the slice written as 3/64. Raises OptionError for anything else."""
        number, _, count = text.partition("/")
        if not (number.isascii() and number.isdigit() and count.isascii() and count.isdigit()):
            raise OptionError(option("slice", text), " is not a slice such as 3/64: the third of 64.")
        return cls(int(number), int(count))

    def of(self, found: Iterable[PhotoFile | Skipped]) -> Iterator[PhotoFile | Skipped]:
        """Yield the files of this slice, and all that the walk skipped: an unreadable folder is in any slice."""
        listed = list(found)
        files = sum(isinstance(file, PhotoFile) for file in listed)
        first, stop = ((at * files) // self.count for at in (self.number - 1, self.number))
        position = 0
        for file in listed:
            if isinstance(file, Skipped) or first <= position < stop:
                yield file
            position += isinstance(file, PhotoFile)
