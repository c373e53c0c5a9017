"""Sizes of files as text."""

UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")


def decimal(count: int) -> str:
    """Return a number of bytes in powers of 1000, with one decimal: "999 bytes", "1.5 MB".

    The text is that of rich.filesize.decimal; rich is loaded only for what is shown in a terminal.
    """
    power = (len(str(count)) - 1) // 3
    if power == 0:
        return "1 byte" if count == 1 else f"{count} bytes"
    return f"{count / 1000**power:,.1f} {UNITS[power]}"
