"""The images of a page: each one is stored once, and there is a limit to their number."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from markupsafe import Markup


@dataclass
class Shown:
    """An image of a page. ``address`` is its ``data:`` address, ``number`` its place among the page's."""

    number: int
    address: str
    is_in_page: bool = False

    def tag(self, alt: str) -> Markup:
        """The ``img`` element. Only the first one holds the pixels; the page's script fills in the others."""
        small = ' data-small=""' if self.address.startswith("data:image/png") else ""
        if self.is_in_page:
            return Markup('<img data-copy="{}"{} alt="{}">').format(self.number, Markup(small), alt)
        self.is_in_page = True
        return Markup('<img data-image="{}"{} alt="{}" src="{}">').format(
            self.number, Markup(small), alt, self.address
        )


class Album:
    """The images of a page, at most ``limit``."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._shown: dict[Hashable, Shown | None] = {}
        self._count = 0

    @property
    def room(self) -> int:
        """How many images may still be added."""
        return self._limit - self._count

    def __len__(self) -> int:
        return self._count

    def add(self, key: Hashable, make: Callable[[], str | None]) -> Shown | None:
        """The image ``key``; None if it cannot be read, or if there is no room for it.

        Args:
            make: returns its ``data:`` address, or None if there is no such image. Called at most once.
        """
        if key in self._shown:
            return self._shown[key]
        if not self.room:
            return None
        address = make()
        found = None if address is None else Shown(self._count, address)
        self._count += found is not None
        self._shown[key] = found
        return found

    def unplaced(self) -> list[Shown]:
        """The images that are nowhere in the page yet: for a hidden part of it, from which scripts copy."""
        return [each for each in self._shown.values() if each is not None and not each.is_in_page]
