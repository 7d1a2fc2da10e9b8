"""An edge that survives lost acknowledgements: it keeps the states that the cloud may still build on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from airlora.codec.edge import EdgeState
from airlora.codec.layers import unframe
from airlora.errors import CompatibilityError


@dataclass(frozen=True, eq=False)
class EdgeHistory:
    """The state in use, and earlier ones that a layer may name.

    The cloud builds each update on the last state of which an acknowledgement reached it. If one is lost, the next
    update names an older state: it is taken up again, as long as the layer is of a newer round than what is in use
    (a repeated or late layer is refused). The first state is always kept, so a cloud that knows nothing of its edge
    starts from ``EdgeState.initial``.

    Attributes:
        current: the state in use.
        acknowledged: states that were reported to the cloud, newest last.
        initial: the state before the first update.
        limit: how many acknowledged states are kept; they share what is equal in them.
    """

    current: EdgeState
    acknowledged: tuple[EdgeState, ...]
    initial: EdgeState
    limit: int = 4

    @classmethod
    def start(cls, initial: EdgeState, limit: int = 4) -> EdgeHistory:
        """At the state before the first update.

        Raises:
            ValueError: ``limit`` is not positive.
        """
        if limit < 1:
            raise ValueError(f"limit {limit} must be at least 1")
        return cls(initial, (initial,), initial, limit)

    def apply(self, layer: bytes) -> EdgeHistory:
        """The history after one more layer, on the newest state that it fits.

        Raises:
            UpdateError: the bytes are not a valid layer.
            CompatibilityError: no state that is kept fits, or the layer is not newer than what is in use.
        """
        round_index, parent, _ = unframe(self.current.schema, layer)
        if self.current.id.startswith(parent):
            return replace(self, current=self.current.apply(layer))
        for state in (*reversed(self.acknowledged), self.initial):
            if state.id.startswith(parent) and round_index > self.current.round:
                return replace(self, current=state.apply(layer))
        raise CompatibilityError(
            f"a layer of round {round_index} for state {parent}, this edge is at {self.current.id[:16]} of round"
            f" {self.current.round}; drop it and report the state"
        )

    def acknowledge(self) -> EdgeHistory:
        """The history after the current state's id was reported to the cloud."""
        others = tuple(state for state in self.acknowledged if state.id != self.current.id)
        return replace(self, acknowledged=(*others, self.current)[-self.limit :])
