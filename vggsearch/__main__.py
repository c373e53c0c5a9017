"""The vggsearch command, also as python -m vggsearch."""

import gc
import signal

IS_INTERRUPTIBLE = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not in the background of a shell
if IS_INTERRUPTIBLE:
    # While modules load there is nothing to keep: Ctrl-C ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from vggsearch.cli import cli  # noqa: E402 - Ctrl-C first


def main() -> None:
    """Run the command."""
    if IS_INTERRUPTIBLE:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        cli(prog_name="vggsearch")
    finally:
        if IS_INTERRUPTIBLE:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the interpreter ends, too
        gc.freeze()  # the interpreter would search all modules for garbage as it ends, which takes 0.1 s


if __name__ == "__main__":
    main()
