"""Which layers an update has: drafts are measured, and the better one is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from airlora.codec.costs import LATE_LAYER_SHARE
from airlora.codec.edge import EdgeState
from airlora.codec.layers import CAP, DROP, KEEP, BlockPiece, LayerInfo, Piece, frame, write_info
from airlora.codec.numbers import Layout, write_numbers
from airlora.codec.parts import parts_of
from airlora.codec.plan import last_round
from airlora.codec.stream import StreamWriter
from airlora.codec.targets import Targets

ACTIVATION_GAIN = 0.005
"""By how much a prefix must be better than the whole for a layer that activates it to be worth its bytes."""
_FINALISTS = 4
"""Prefixes, the best by a rough measure, whose worth is measured exactly, beside none and all of the layers."""

_FIRST_COST = 0.4
"""Share of all that an update could win that the first components and the head may cost not to be held back."""


class Judge(Protocol):
    """Says what the edge's model is good for in a state."""

    def loss(self, state: EdgeState) -> float:
        """In nats, or as a share of the rows: of two drafts the one that loses less is kept."""

    def is_worse(self, state: EdgeState, before: EdgeState) -> bool:
        """Whether no layer of an update to ``before`` may leave this state."""

    def rough_worth(self, state: EdgeState) -> float:
        """What it is worth more than the untouched model, in any unit, at no more cost than ``loss``."""

    def worth(self, state: EdgeState) -> float:
        """The same, as exactly as can be: what bytes are priced by."""


@dataclass(frozen=True, eq=False)
class _Draft:
    """Layers chosen so far, their pieces, the state after them, and of the class at hand the pieces that each of its
    layers adds and the states after each but the last."""

    state: EdgeState
    layers: tuple[bytes, ...] = ()
    pieces: tuple[tuple[Piece, ...], ...] = ()  # of each layer
    groups: tuple[tuple[Piece, ...], ...] = ()
    between: tuple[EdgeState, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.layers))

    @property
    def added(self) -> tuple[Piece, ...]:
        """The pieces of the class at hand."""
        return tuple(piece for group in self.groups for piece in group)


@dataclass(frozen=True)
class _End:
    """Of a class: layers so far, what the state after them loses, its largest active rank."""

    layers: int
    loss: float
    largest_rank: int


class LayerChoice:
    """The layers of an update in the making, class by class.

    Args:
        targets: what to send.
        edge: the state that the update builds on.
        round_index: the round.
        judge: None keeps every tail.
        budget_bytes: of all layers together.
        carried_bytes: what the link is expected to carry of them.
        byte_price: see ``Allocation``.
    """

    def __init__(
        self,
        targets: Targets,
        edge: EdgeState,
        round_index: int,
        judge: Judge | None,
        budget_bytes: float,
        carried_bytes: float,
        byte_price: float = 0.0,
    ) -> None:
        self._targets = targets
        self._edge = edge
        self._round = round_index
        self._judge = judge
        self._budget = budget_bytes
        self._carried = carried_bytes
        self._byte_price = byte_price
        self._good = _Draft(edge)
        self._waiting: tuple[Piece, ...] = ()
        self._reached = [0] * len(edge.schema.projections)  # components that are good or wait, of each projection
        self._ends: list[_End] = []

    @property
    def layers(self) -> tuple[bytes, ...]:
        """Those chosen so far."""
        return self._good.layers

    @property
    def state(self) -> EdgeState:
        """The edge's after them."""
        return self._good.state

    def add_class(self, pieces: Sequence[Piece]) -> None:
        """Add what fits of one priority class, stalest pieces first."""
        ordered = sorted(pieces, key=lambda piece: last_round(piece, self._edge))
        draft = self._draft(ordered, KEEP)
        if not draft.groups:
            return
        tail = KEEP
        if self._judge and self._has_tail(draft):
            dropped = self._draft(ordered, DROP)
            if self._judge.loss(dropped.state) < self._judge.loss(draft.state):
                draft, tail = dropped, DROP
        if not self._is_worse(draft.state) and any(self._is_worse(state) for state in draft.between):
            draft = self._without_falls(draft, tail)
        for piece in draft.added:
            _mark(self._reached, piece)
        if self._is_worse(draft.state):
            self._waiting += draft.added
            return
        self._good, self._waiting = draft, ()
        loss = self._judge.loss(draft.state) if self._judge else 0.0
        self._ends.append(_End(len(draft.layers), loss, int(draft.state.active_ranks.max())))

    def cut(self) -> None:
        """Leave out the last layers where they win less than their bytes' price.

        Few rows take luck for worth where a layer wins about its price: those that look best by them, none and all are
        measured on more.
        """
        if not self._judge or not self._byte_price or not self._good.layers:
            return
        states = [self._edge]
        for layer in self._good.layers:
            states.append(states[-1].apply(layer))
        ages = [[self._round - last_round(piece, self._edge) for piece in pieces] for pieces in self._good.pieces]
        costs = price_layers(self._byte_price, [len(layer) for layer in self._good.layers], ages)
        lacking = [any(self._is_lacking(piece) for piece in pieces) for pieces in self._good.pieces]
        least = layers_not_held_back(costs, lacking)
        rough = _shares([self._judge.rough_worth(state) for state in states]) - costs
        finalists = np.unique(
            [least, len(states) - 1, *(least + np.argsort(-rough[least:], kind="stable")[:_FINALISTS])]
        )
        exact = _shares([self._judge.worth(states[index]) for index in finalists]) - costs[finalists]
        count = int(finalists[np.argmax(exact)])
        self._good = _Draft(states[count], self._good.layers[:count], self._good.pieces[:count])
        self._ends = [end for end in self._ends if end.layers <= count]

    def _is_lacking(self, piece: Piece) -> bool:
        """Whether it is of the first class, and the edge never got all of it."""
        first = not isinstance(piece, BlockPiece) or piece.start == 0
        return first and last_round(piece, self._edge) < 0

    def activate_best(self) -> None:
        """End with a layer that makes the best prefix active, if that is not what the last one left."""
        if not self._judge or not self._ends:
            return
        best, last = min(self._ends, key=lambda end: end.loss), self._judge.loss(self._good.state)
        if best.loss >= last - ACTIVATION_GAIN:
            return
        info = LayerInfo(self._round, self._good.state.id[:16], (), CAP, best.largest_rank)
        draft = self._append(self._good, info)
        fits = draft.size_bytes <= self._budget
        if fits and self._judge.loss(draft.state) < last and not self._is_worse(draft.state):
            self._good = draft

    def _draft(self, pieces: Sequence[Piece], tail: int) -> _Draft:
        """The good draft and what fits of these pieces: a layer each, or one with all that wait.

        Beyond what the link is expected to carry, pieces share layers that grow with what comes before them.
        """
        draft = start = _Draft(self._good.state, self._good.layers, self._good.pieces)
        base = start  # of the last layer
        reached = list(self._reached)
        for piece in pieces:
            if isinstance(piece, BlockPiece) and any(reached[index] < piece.start for index, _ in piece.touched()):
                continue
            joins = bool(self._waiting) or (draft is not start and self._has_room(base, draft))
            after = base if joins else draft
            group = (*draft.groups[-1], piece) if joins and draft.groups else (piece,)
            longer = self._append(after, LayerInfo(self._round, after.state.id[:16], (*self._waiting, *group), tail))
            if longer.size_bytes <= self._budget:
                between = (*after.between, after.state) if after.groups else ()
                draft, base = _Draft(longer.state, longer.layers, longer.pieces, (*after.groups, group), between), after
                _mark(reached, piece)
        return draft

    def _has_room(self, base: _Draft, draft: _Draft) -> bool:
        """Whether the layer that ``draft`` adds to ``base`` may grow."""
        before = base.size_bytes
        return before > self._carried and draft.size_bytes - before < LATE_LAYER_SHARE * before

    def _without_falls(self, draft: _Draft, tail: int) -> _Draft:
        """A draft whose end is good, each layer that leaves a bad state joined with the next one."""
        longer = _Draft(self._good.state, self._good.layers, self._good.pieces)
        joint: tuple[Piece, ...] = ()
        for group in draft.groups:
            joint = (*joint, *group)
            tried = self._append(longer, LayerInfo(self._round, longer.state.id[:16], joint, tail))
            if group is draft.groups[-1] or not self._is_worse(tried.state):
                longer, joint = tried, ()
        return _Draft(longer.state, longer.layers, longer.pieces, draft.groups)

    def _is_worse(self, state: EdgeState) -> bool:
        return self._judge is not None and self._judge.is_worse(state, self._edge)

    def _append(self, draft: _Draft, info: LayerInfo) -> _Draft:
        layer, state = write_layer(draft.state, info, self._targets)
        return _Draft(state, (*draft.layers, layer), (*draft.pieces, info.pieces))

    def _has_tail(self, draft: _Draft) -> bool:
        """Whether components are active beyond those that are new."""
        reached = list(self._reached)
        for piece in draft.added:
            _mark(reached, piece)
        return bool((draft.state.active_ranks > np.array(reached)).any())


def price_layers(byte_price: float, sizes: Sequence[int], ages: Sequence[ArrayLike]) -> np.ndarray:
    """What the first 0, 1, … layers of an update must win, (layers + 1,).

    What the edge got k rounds ago is taken to serve for (k + 1) / 2 rounds. For if the gap to the cloud has grown
    evenly, to g in this round, the gaps since then sum up to g · (k + 1) / 2, and sending once that sum exceeds the
    price costs least of gaps and bytes together (Harris 1913, the economic lot size).

    Args:
        byte_price: see ``Allocation``.
        sizes: of the layers, bytes.
        ages: k of the pieces of each layer; of what the edge never got, rounds since the start and one.
    """
    rounds_served = [(np.asarray(each) + 1) / 2 for each in ages]
    prices = [size * float(np.mean(1 / served)) for size, served in zip(sizes, rounds_served, strict=True)]
    return byte_price * np.cumsum([0.0, *prices])


def layers_not_held_back(costs: np.ndarray, lacking: Sequence[bool]) -> int:
    """How many first layers an update keeps whatever they win.

    What the edge lacks of its head and of the first components may win nothing before it is whole, which takes several
    rounds over a lean link. So it is not held back where it costs little beside all that the cloud knows.

    Args:
        costs: the price of the first 0, 1, … layers, (layers + 1,), as a share of all that the update could win.
        lacking: of each layer, whether it brings something of that.
    """
    last = max((index + 1 for index, lacks in enumerate(lacking) if lacks), default=0)
    return last if costs[last] <= _FIRST_COST else 0


def _shares(worths: Sequence[float]) -> np.ndarray:
    """Of the largest; where nothing is worth anything, the last has all."""
    worth = np.array(worths)
    return worth / worth.max() if worth.max() > 0 else np.where(np.arange(len(worth)) == len(worth) - 1, np.inf, 0.0)


def _mark(reached: list[int], piece: Piece) -> None:
    if isinstance(piece, BlockPiece):
        for index, stop in piece.touched():
            reached[index] = stop


def write_layer(edge: EdgeState, info: LayerInfo, targets: Targets) -> tuple[bytes, EdgeState]:
    """One layer on top of a state: (its bytes, the state after it)."""
    stream = StreamWriter()
    write_info(stream, edge.schema, info)
    parts = [part for piece in info.pieces for part in parts_of(edge.schema, piece)]
    values = write_numbers(stream, Layout.of(parts), edge.held(parts), *targets.of(parts))
    layer = frame(edge.schema, info, stream.finish())
    return layer, edge.after(info, parts, values, layer)
