"""The vggsearch command, also as python -m vggsearch."""

import signal
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

IS_INTERRUPTIBLE = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not in the background of a shell
if IS_INTERRUPTIBLE:
    # While modules load there is nothing to keep: Ctrl-C ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from vggsearch.cli import cli  # noqa: E402 - Ctrl-C first


class WithoutPandas(MetaPathFinder, Loader):
    """Have imports of pandas fail, as if it were not installed: no command needs it.

    pyarrow imports it with the first value that it converts, which takes as much CPU as the rest of a search. Other
    libraries ask whether it can be found (torch), or look for it among the loaded modules (scikit-learn): it can be
    found, and is never among these.
    """

    def find_spec(self, fullname: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Return where pandas is loaded from, which is here; None for all other modules."""
        return ModuleSpec(fullname, self) if fullname == "pandas" else None

    def exec_module(self, module: ModuleType) -> None:
        """Raise ModuleNotFoundError."""
        raise ModuleNotFoundError("No command needs pandas.", name=module.__name__)


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
