"""Show where a photo lies, in the file manager of the machine on which the server runs."""

import shutil
import subprocess
from collections.abc import Callable

from vggsearch.errors import ImageError
from vggsearch.photos.opening import open_photo
from vggsearch.serve.answers import not_found
from vggsearch.serve.library import Located

Opener = Callable[[list[str]], object]
# By platform, as sys.platform names it; the last argument is a folder, or the file that is selected in it.
COMMANDS: dict[str, tuple[str, ...]] = {
    "darwin": ("open", "-R"),
    "linux": ("xdg-open",),
    "win32": ("explorer", "/select,"),
}
SHOWS_FOLDERS = ("linux",)  # whose command cannot select a file


class FileManager:
    """Opens the folders of photos. `opener` starts a program, given its words, and does not wait for it."""

    def __init__(self, platform: str, opener: Opener) -> None:
        self._platform, self._open = platform, opener

    def reveal(self, photo: Located) -> None:
        """Show where a photo lies. Raises Problem if it is gone, or if a link leads out of the photo folder."""
        try:
            with open_photo(photo.root, photo.path):
                file = (photo.root / photo.path).resolve()
        except (ImageError, OSError) as error:
            raise not_found(f"{photo.path}: {error}") from error
        self._open([*COMMANDS[self._platform], str(file.parent if self._platform in SHOWS_FOLDERS else file)])


class Started:
    """Programs that were started, until they have ended."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, words: list[str]) -> None:
        """Start a program, without a shell."""
        self._running = [each for each in self._running if each.poll() is None]
        nowhere = subprocess.DEVNULL
        started = subprocess.Popen(words, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True)
        self._running.append(started)


def file_manager(platform: str) -> FileManager | None:
    """Return the file manager of a platform, None where there is no program for it."""
    if platform not in COMMANDS or shutil.which(COMMANDS[platform][0]) is None:
        return None
    return FileManager(platform, Started().start)
