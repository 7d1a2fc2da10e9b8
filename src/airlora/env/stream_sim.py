"""A round as tables see it: what an allocation costs, what of it arrives, and what the edge holds then.

It follows ``codec.encode``: classes in order (head and first prefix, then each later block), within a class the
stalest first, layers of a limited size, what exceeds the budget left out, the best prefix active.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from airlora.codec import Allocation
from airlora.codec.choice import layers_not_held_back, price_layers
from airlora.codec.costs import layer_room
from airlora.codec.layers import FRAME_BYTES
from airlora.env.surrogate import Held, Surrogate
from airlora.link import Delivery, Link
from airlora.policy.stream_costs import CostGrid

_LAYER_OVERHEAD = FRAME_BYTES + 6
_TOLERANCE = 0.005
"""Gain below that of the state before, at which the encoder sends nothing (its own tolerance is in nats)."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came of a round.

    Attributes:
        held: on the edge afterwards. gain: of it. delivery: of the link. offered_bytes: of the update.
    """

    held: Held
    gain: float
    delivery: Delivery
    offered_bytes: int


def simulate_round(
    surrogate: Surrogate,
    grid: CostGrid,
    round_index: int,
    held: Held,
    allocation: Allocation,
    link: Link,
    t_s: float,
    deadline_s: float,
) -> Outcome:
    """Send an allocation (bits of each projection, not of each component) of a round's adapter to an edge."""
    schema = surrogate.table.schema
    sent = _Sent(surrogate, round_index, held, allocation)
    items = _items(schema.prefixes, grid, held, allocation)
    room = layer_room(allocation.carried_bytes, float(items.sizes.sum()))
    room = max(min(room, allocation.budget_bytes - _LAYER_OVERHEAD), 1.0)
    layers = _layers(items, room, allocation.budget_bytes)
    if allocation.byte_price:
        layers = _cut(layers, items, sent, surrogate.gain(held), allocation.byte_price)
    after, gain = sent.after(items, np.arange(len(items.sizes)) < layers.counts.sum())
    if not len(layers.sizes) or gain < surrogate.gain(held) - _TOLERANCE:
        delivery = link.transmit((), t_s, deadline_s)
        return Outcome(held, surrogate.gain(held), delivery, 0)
    delivery = link.transmit(layers.sizes.tolist(), t_s, deadline_s)
    if delivery.missed:
        arrived = int(layers.counts[: delivery.layers_delivered].sum())
        after, gain = sent.after(items, np.arange(len(items.sizes)) < arrived)
    return Outcome(after, gain, delivery, int(layers.sizes.sum()))


@dataclass(frozen=True, eq=False)
class _Items:
    """What an update consists of, in order: projection (-1: the head), block, bytes, and the version that the edge
    holds (0: none; the oldest of a block), each (items,)."""

    projection: np.ndarray
    block: np.ndarray
    sizes: np.ndarray
    version: np.ndarray


def _items(prefixes: tuple[int, ...], grid: CostGrid, held: Held, allocation: Allocation) -> _Items:
    each = grid.components(allocation.ranks, allocation.bits)  # (M, K)
    starts = np.array([0, *prefixes[:-1]])
    sizes = np.add.reduceat(each, starts, axis=1)  # (M, B)
    staleness = np.minimum.reduceat(held.version, starts, axis=1)  # (M, B): the oldest in the block
    projection, block = np.nonzero(allocation.ranks[:, None] > starts)
    order = np.lexsort((projection, staleness[projection, block], block))
    projection, block = projection[order], block[order]
    found, version = sizes[projection, block], staleness[projection, block]
    head = grid.head_bytes(allocation.head_bits)
    if head:  # on a tie of staleness the head is first
        at = int(np.sum((block == 0) & (version < held.head_version)))
        projection, block, found = np.insert(projection, at, -1), np.insert(block, at, 0), np.insert(found, at, head)
        version = np.insert(version, at, held.head_version)
    return _Items(projection, block, found, version)


@dataclass(frozen=True, eq=False)
class _Layers:
    """Bytes of each layer and how many items it holds, both (layers,) int64."""

    sizes: np.ndarray
    counts: np.ndarray


def _layers(items: _Items, room: float, budget_bytes: float) -> _Layers:
    """Items in order, in layers of at most ``room`` bytes (or one item) and one class, while the budget lasts."""
    if not len(items.sizes):
        return _Layers(np.zeros(0, np.int64), np.zeros(0, np.int64))
    starts, used, last = [], 0.0, -1
    for index, (size, block) in enumerate(zip(items.sizes.tolist(), items.block.tolist(), strict=True)):
        used += size
        if used > room or block != last:
            starts.append(index)
            used, last = size, block
    first = np.array(starts)
    sizes = np.ceil(np.add.reduceat(items.sizes, first) + _LAYER_OVERHEAD).astype(np.int64)
    counts = np.diff(np.append(first, len(items.sizes)))
    fitting = int(np.searchsorted(np.cumsum(sizes), budget_bytes, side="right"))
    return _Layers(sizes[:fitting], counts[:fitting])


def _cut(layers: _Layers, items: _Items, sent: _Sent, before: float, byte_price: float) -> _Layers:
    """Without the last layers that win less than their bytes' price, see ``codec.choice``."""
    order, ends = np.arange(len(items.sizes)), np.cumsum(layers.counts)
    won = np.array([before, *(sent.after(items, order < end)[1] for end in ends)])
    if won.max() <= 0:
        return layers
    ages = np.split(sent.round + 1 - items.version, ends)[:-1]
    costs = price_layers(byte_price, layers.sizes.tolist(), ages)
    lacking = np.split((items.block == 0) & (items.version == 0), ends)[:-1]
    least = layers_not_held_back(costs, [bool(each.any()) for each in lacking])
    count = least + int(np.argmax((won / won.max() - costs)[least:]))
    return _Layers(layers.sizes[:count], layers.counts[:count])


class _Sent:
    """Turns arrived items into what the edge holds."""

    def __init__(self, surrogate: Surrogate, round_index: int, held: Held, allocation: Allocation):
        self.round = round_index
        self._surrogate, self._held, self._allocation = surrogate, held, allocation

    def after(self, items: _Items, arrived: np.ndarray) -> tuple[Held, float]:
        """What the edge holds, and its gain, once these items (items,) bool arrived."""
        held, schema = self._held, self._surrogate.table.schema
        prefixes = np.array(schema.prefixes)
        version, bits = held.version.copy(), held.bits.copy()
        reached = np.zeros(len(version), np.int64)
        projections = arrived & (items.projection >= 0)
        here, block = items.projection[projections], items.block[projections]
        stop = np.minimum(prefixes[block], self._allocation.ranks[here])
        np.maximum.at(reached, here, stop)
        new = np.arange(version.shape[1]) < reached[:, None]
        version[new] = self.round + 1
        bits = np.where(new, self._allocation.bits[:, None], bits)
        after = replace(held, version=version, bits=bits)
        if (arrived & (items.projection < 0)).any():
            after = replace(after, head_version=self.round + 1, head_bits=self._allocation.head_bits)
        stored = after.stored
        keep = np.maximum(held.active, reached)
        drop = np.where(reached > 0, reached, held.active)
        actives = np.stack([keep, drop, *(np.minimum(stored, cap) for cap in prefixes)])
        gains = self._surrogate.gains(after, actives)
        best = int(np.argmax(gains))
        return replace(after, active=actives[best]), float(gains[best])
