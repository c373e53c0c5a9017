"""vggsearch serve"""

import os
import sys
import webbrowser
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import click
from click.core import ParameterSource

from vggsearch.cli.options import FOLDER, engine_options, indexes_option
from vggsearch.cli.output import say
from vggsearch.cli.terminal import quiet_decoders
from vggsearch.defaults import SERVE
from vggsearch.errors import InstallationError
from vggsearch.image_index import ImageIndex
from vggsearch.model.engine import EngineOptions
from vggsearch.store.locate import only_index
from vggsearch.system.installation import distribution

NOT_AT = {"directories", "allow_changes", "move_to"}  # what needs the index
TOKEN, SHORTEST = "VGGSEARCH_TOKEN", 20
NEEDED = ("fastapi", "python_multipart", "uvicorn")  # what the extra installs


@click.command()
@indexes_option
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=SERVE.port,
    show_default=True,
    help="Port to listen on; 0 is any free one.",
)
@click.option(
    "--host",
    default=SERVE.host,
    show_default=True,
    help="Address to listen on. Beyond this machine, put a server with TLS in front.",
)
@click.option("--open", "should_open", is_flag=True, help="Open the page in the browser.")
@click.option(
    "--allow-changes",
    is_flag=True,
    help="Allow decisions, removals and updates also where --host reaches beyond this machine.",
)
@click.option("--move-to", type=FOLDER, metavar="DIR", help="The folder to which the page may move duplicates.")
@click.option("--at", "url", metavar="URL", help="Serve what was published there: see vggsearch publish.")
@click.option("--root", type=FOLDER, help="With --at: where the photos are, so that the page shows them.")
@engine_options
def serve(
    directories: tuple[Path, ...],
    port: int,
    host: str,
    should_open: bool,
    allow_changes: bool,
    move_to: Path | None,
    url: str | None,
    root: Path | None,
    engine_options: EngineOptions,
) -> None:
    """Look, search and decide in a browser; and an HTTP API for programs. Stop it with Ctrl-C.

    The link that is printed holds a token, which every request needs; VGGSEARCH_TOKEN sets it. Only this machine
    can connect. See docs/serve.md.

    \b
    Example:
      vggsearch serve --open
      vggsearch serve --index indexes/photos --index indexes/phone
      vggsearch serve --port 9000 --move-to ~/duplicates
      vggsearch serve --at postgresql://server/photos --host 0.0.0.0
    """
    check_usage(click.get_current_context())
    check_packages()
    token = os.environ.get(TOKEN)
    if token is not None and not (len(token) >= SHORTEST and token.isascii() and token.isprintable()):
        raise click.UsageError(f"{TOKEN} must have {SHORTEST} characters or more, all of them visible ASCII.")
    from vggsearch.serve import run
    from vggsearch.serve.guard import is_loopback

    def tell(link: str) -> None:
        say(f"Open {link}")
        if not is_loopback(host):
            read_only = "" if allow_changes or url is not None else " The server is read-only; see --allow-changes."
            say(EXPOSED.format(read_only), err=True)
        say("Press Ctrl-C to stop.", err=True)
        if should_open:
            webbrowser.open(link)

    with ExitStack() as stack:
        if url is not None:
            published = stack.enter_context(ImageIndex.at(url, engine_options=engine_options, root=root))
            stack.enter_context(quiet_decoders())
            run.serve_published(published, host=host, port=port, token=token, started=tell)
            return
        indexes = [
            stack.enter_context(ImageIndex.open(where, engine_options=engine_options))
            for where in directories or (only_index(),)
        ]
        stack.enter_context(quiet_decoders())
        run.serve(
            indexes,
            host=host,
            port=port,
            allow_changes=allow_changes,
            move_to=move_to,
            has_desktop=has_desktop(),
            token=token,
            started=tell,
        )


EXPOSED = (
    "Other machines can connect, and whoever listens on the network reads the token and the photos: put a server "
    "with TLS in front.{}"
)


def check_usage(ctx: click.Context) -> None:
    """Raise UsageError for arguments that do not go together."""
    given = {name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    if "url" in given and given & NOT_AT:
        raise click.UsageError(
            "--at serves what is published, without --index, --allow-changes and --move-to: these need the index."
        )
    if "root" in given and "url" not in given:
        raise click.UsageError("--root goes with --at. The folder of an index is recorded in it.")


def has_desktop() -> bool:
    """Return whether this process can open windows: on Linux, whether there is a display."""
    return sys.platform != "linux" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def check_packages() -> None:
    """Raise InstallationError unless what the extra installs is there."""
    if not all(map(find_spec, NEEDED)):
        raise InstallationError(
            f"The server needs more packages. Install them: pip install '{distribution()}[web]'"
        )
