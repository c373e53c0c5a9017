"""The vggsearch command, also as python -m vggsearch."""

import signal
import sys
from importlib.abc import MetaPathFinder

IS_INTERRUPTIBLE = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not in the background of a shell
if IS_INTERRUPTIBLE:
    # While modules load there is nothing to keep: Ctrl-C ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from vggsearch.cli import cli  # noqa: E402 - Ctrl-C first


class WithoutPandas(MetaPathFinder):
    """Have imports of pandas fail: no command needs it.

    pyarrow imports it with the first value that it converts, which takes as much CPU as the rest of a search.
    """

    def find_spec(self, fullname: str, _path: object, _target: object = None) -> None:
        """Raise ModuleNotFoundError for pandas; leave all other modules to the other finders."""
        if fullname == "pandas":
            raise ModuleNotFoundError("No command needs pandas.", name=fullname)


def main() -> None:
    """Run the command."""
    sys.meta_path.insert(0, WithoutPandas())
    if IS_INTERRUPTIBLE:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        cli(prog_name="vggsearch")
    finally:
        if IS_INTERRUPTIBLE:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the interpreter ends, too


if __name__ == "__main__":
    main()
