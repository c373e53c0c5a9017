"""Refuse all network connections of a Python process and of those it starts, and write down each attempt.

It is imported by every Python with this folder in PYTHONPATH. CONNECTIONS names the file for the attempts.
"""

import os
import sys
from pathlib import Path

ATTEMPTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")


def refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event in ATTEMPTS:
        with Path(os.environ["CONNECTIONS"]).open("a", encoding="utf-8") as file:
            print(os.getpid(), event, arguments, file=file)
        raise OSError(f"{event} is refused")


sys.addaudithook(refuse)
