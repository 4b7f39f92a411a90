"""The newest blocks that the node relies on, so that the point where a chain forked can be found.

Invariant: blocks ascend, and neighbours with consecutive numbers are linked by their hashes.
"""

from collections.abc import Iterable, Sequence

from blueprint.errors import ConfigError
from blueprint.types import BlockRef

__all__ = ["Window"]


class Window:
    """At most ``size`` blocks; after a backfill there may be gaps between the older ones.

    Args:
        blocks: what was kept before, ascending.
        size: how many to keep.

    Raises:
        ConfigError: the blocks do not ascend, or neighbours are not linked.
    """

    def __init__(self, blocks: Iterable[BlockRef], *, size: int) -> None:
        self._size = size
        self._blocks: list[BlockRef] = []
        self.extend(blocks)

    @property
    def newest(self) -> BlockRef | None:
        """The cursor: everything up to this block has been read."""
        return self._blocks[-1] if self._blocks else None

    def newest_first(self) -> Sequence[BlockRef]:
        """Return all blocks, the newest first."""
        return self._blocks[::-1]

    def extend(self, blocks: Iterable[BlockRef]) -> None:
        """Append newer blocks and forget the oldest ones."""
        for block in blocks:
            last = self.newest
            if last is not None and (
                block.number <= last.number
                or (block.number == last.number + 1 and block.parent_hash != last.hash)
            ):
                raise ConfigError(
                    f"expected a block that follows number {last.number}, received number {block.number} "
                    "with another parent; the recorded blocks are damaged"
                )
            self._blocks.append(block)
        del self._blocks[: -self._size]

    def cut(self, number: int) -> None:
        """Forget every block above ``number``."""
        while self._blocks and self._blocks[-1].number > number:
            self._blocks.pop()
