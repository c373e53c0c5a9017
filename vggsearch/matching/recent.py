"""A bounded memory of what was computed last, for any number of threads."""

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Recent(Generic[Item]):
    """At most `most` items by key; the one that was not asked for longest goes first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: OrderedDict[Hashable, Item] = OrderedDict()
        self._using = Lock()

    def get(self, key: Hashable) -> Item | None:
        """Return an item, None if it is not there."""
        with self._using:
            if key not in self._items:
                return None
            self._items.move_to_end(key)
            return self._items[key]

    def put(self, key: Hashable, item: Item) -> None:
        """Remember an item."""
        with self._using:
            self._items[key] = item
            self._items.move_to_end(key)
            while len(self._items) > self._most:
                self._items.popitem(last=False)

    def clear(self) -> None:
        """Forget all items."""
        with self._using:
            self._items.clear()
