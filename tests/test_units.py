import pytest
from rich import filesize

from vggsearch.system.units import decimal


@pytest.mark.parametrize("count", [0, 1, 2, 999, 1000, 1049, 999_949, 999_999, 10**6, 1_550_000, 10**15, 10**19])
def test_sizes_are_written_as_rich_writes_them(count: int) -> None:
    assert decimal(count) == filesize.decimal(count)
