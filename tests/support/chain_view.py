"""What a listener has told, applied as a journal applies it."""

from blueprint.types import BlockRef, ChainUpdate, JobCall, ResultLog

__all__ = ["ChainView"]


class ChainView:
    """Blocks, calls and results after all updates so far; a call that comes twice is an error."""

    def __init__(self) -> None:
        self.updates: list[ChainUpdate] = []
        self.blocks: list[BlockRef] = []
        self.calls: dict[int, JobCall] = {}
        self.results: dict[int, ResultLog] = {}

    @property
    def forks(self) -> list[int]:
        """The block numbers of all forks that were told."""
        return [update.fork_number for update in self.updates if update.fork_number is not None]

    async def apply(self, update: ChainUpdate) -> None:
        """Take one update; the sink of a listener."""
        self.updates.append(update)
        if update.fork_number is not None:
            keep = update.fork_number
            self.blocks = [block for block in self.blocks if block.number <= keep]
            self.calls = {key: call for key, call in self.calls.items() if call.block_number <= keep}
            self.results = {key: one for key, one in self.results.items() if one.block_number <= keep}
        self.blocks += update.blocks
        for call in update.calls:
            assert call.key.call_id not in self.calls, "a call was told twice"
            self.calls[call.key.call_id] = call
        self.results.update({result.key.call_id: result for result in update.results})
