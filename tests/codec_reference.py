"""A decoder written from docs/format.md alone, in plain Python: no numpy, no constriction, nothing of airlora."""

from __future__ import annotations

import hashlib
import math
import struct
from bisect import bisect_right
from functools import cache

MASK64 = 2**64 - 1


def f32(x: float) -> float:
    return struct.unpack("<f", struct.pack("<f", x))[0]


class Ans:
    """The entropy decoder."""

    def __init__(self, body: bytes) -> None:
        self.words = list(struct.unpack(f"<{len(body) // 4}I", body))
        self.state = self.words.pop() if self.words else 0
        if self.words:
            self.state = self.state << 32 | self.words.pop()

    def _take(self, left: int, frequency: int) -> None:
        self.state = frequency * (self.state >> 24) + (self.state & 0xFFFFFF) - left
        if self.state < 2**32 and self.words:
            self.state = self.state << 32 | self.words.pop()

    def uniform(self, size: int) -> int:
        if size == 1:
            return 0
        each = 2**24 // size
        value = min((self.state & 0xFFFFFF) // each, size - 1)
        self._take(value * each, each if value < size - 1 else 2**24 - each * (size - 1))
        return value

    def table(self, lefts: tuple[int, ...]) -> int:
        value = bisect_right(lefts, self.state & 0xFFFFFF) - 1
        self._take(lefts[value], lefts[value + 1] - lefts[value])
        return value

    def at_end(self) -> bool:
        return self.state == 0 and not self.words


def spread(frequencies: list[int]) -> tuple[int, ...]:
    """Left ends in 24 bits of a table of integer frequencies, and 2^24."""
    total, count, before, lefts = sum(frequencies), len(frequencies), 0, []
    for index, frequency in enumerate(frequencies):
        lefts.append(before * (2**24 - count) // total + index)
        before += frequency
    return (*lefts, 2**24)


@cache
def number_table(shape: int, width: int) -> tuple[int, tuple[int, ...]]:
    deviation = 2.0 ** (width / 4 - 3)
    limit = math.ceil((4.5, 6)[shape] * deviation) + 1
    if shape == 0:
        tails = [0.5 * math.erfc((k + 0.5) / (deviation * math.sqrt(2))) for k in range(limit + 1)]
    else:
        tails = [0.5 * math.exp(-(k + 0.5) * math.sqrt(2) / deviation) for k in range(limit + 1)]
    side = [max(1, math.floor((tails[k - 1] - tails[k]) * 65536)) for k in range(1, limit + 1)]
    escape = max(1, math.floor(2 * tails[limit] * 65536))
    return limit, spread([*reversed(side), 65536 - 2 * sum(side) - escape, *side, escape])


def numbers(ans: Ans, count: int, shape: int, width: int) -> list[int]:
    limit, lefts = number_table(shape, width)
    values = [ans.table(lefts) - limit for _ in range(count)]
    for index, value in enumerate(values):
        if value > limit:
            negative, exponent = ans.uniform(2), ans.uniform(24)
            magnitude = limit + 2**exponent + ans.uniform(2**exponent)
            values[index] = -magnitude if negative else magnitude
    return values


def column(ans: Ans, count: int, size: int) -> list[int]:
    values = [ans.uniform(size)]
    if count > 1:
        for difference in numbers(ans, count - 1, 1, ans.uniform(16)):
            values.append(values[-1] + difference)
    return values


def choices(ans: Ans, count: int, size: int, first: int, second: int, split: int) -> list[int]:
    others = 4 if size > 2 else 0
    room = 256 - others * (size - 2)
    frequencies = [others] * size
    frequencies[second] = max(room * (4, 64, 128, 192, 252)[split] // 256, 1)
    frequencies[first] = room - frequencies[second]
    return [ans.table(spread(frequencies)) for _ in range(count)]


def ordinal(x: float) -> int:
    bits = struct.unpack("<H", struct.pack("<e", min(max(x, -65504.0), 65504.0)))[0]
    return -(bits & 0x7FFF) if bits & 0x8000 else bits


def from_ordinal(value: int) -> float:
    return struct.unpack("<e", struct.pack("<H", 0x8000 | -value if value < 0 else value))[0]


def step_of(index: int) -> float:
    return f32(f32((1.0, 1.1892071, 1.4142135, 1.6817929)[index % 4]) * 2.0 ** (index // 4 - 40))


def splitmix(x: int) -> int:
    x = x * 0x9E3779B97F4A7C15 & MASK64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK64
    x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK64
    return x ^ x >> 31


class Edge:
    """The state, as lists of vectors: u[m][k] is a column, v[m][k] a row."""

    def __init__(self, schema: dict, schema_id: str, head: list[float]) -> None:
        self.projections = [(d_out, d_in, r_max) for _, d_out, d_in, r_max in schema["projections"]]
        self.prefixes, self.schema_id, self.head = schema["prefixes"], schema_id, list(head)
        self.rows = []  # (first number, numbers) of every head row
        at = 0
        for _, shape in schema["head"]:
            count = shape[0] if len(shape) > 1 else 1
            size = math.prod(shape[1:] if len(shape) > 1 else shape)
            for _ in range(count):
                self.rows.append((at, size))
                at += size
        self.u = [[[0.0] * d_out for _ in range(r)] for d_out, _, r in self.projections]
        self.v = [self._start(schema["init_seed"], m) for m in range(len(self.projections))]
        self.active = [0] * len(self.projections)
        self.rounds = [[-1] * self.prefixes[-1] for _ in self.projections]
        self.head_rounds = [-1] * len(self.rows)
        data = b"airlora edge state 2" + bytes.fromhex(schema_id) + struct.pack(f"<{len(head)}f", *head)
        self.id = hashlib.sha256(data).digest()[:16]

    def _start(self, seed: int | None, m: int) -> list[list[float]]:
        _, d_in, r_max = self.projections[m]
        if seed is None:
            return [[0.0] * d_in for _ in range(r_max)]
        start = splitmix((splitmix(seed) + m) & MASK64)
        scale = f32(math.sqrt(3 / d_in) / 2**23)
        words = (splitmix((start + i) & MASK64) for i in range(r_max * d_in))
        flat = [f32(float((x >> 40) - 2**23) * scale) for x in words]
        return [flat[k * d_in : (k + 1) * d_in] for k in range(r_max)]

    def stored(self, m: int) -> int:
        return next((k for k, t in enumerate(self.rounds[m]) if t < 0), len(self.rounds[m]))

    def apply(self, layer: bytes) -> None:
        version, zero, size, t, schema, parent, digest = struct.unpack_from("<BBII4s8s8s", layer)
        body = layer[30:]
        assert (version, zero, size, schema) == (2, 0, len(body), bytes.fromhex(self.schema_id)[:4])
        assert digest == hashlib.sha256(layer[:22] + body).digest()[:8]
        assert parent == self.id[:8]
        ans = Ans(body)
        pieces = []
        while kind := 2 - ans.uniform(3):
            pieces.append(self._head_piece(ans) if kind == 2 else self._block_piece(ans))
        tail = ans.uniform(3)
        cap = ans.uniform(self.prefixes[-1] + 1) if tail == 2 else 0
        places = [place for piece in pieces for place in self._places(piece)]
        places = [place for place in places if self._length(place)]
        for place, vector in zip(places, self._vectors(ans, places), strict=True):
            self._put(place, vector)
        assert ans.at_end()
        for piece in pieces:
            if piece[0] == "head":
                for row in range(piece[1], piece[1] + piece[2]):
                    self.head_rounds[row] = t
                continue
            for m, stop in piece[2]:
                assert self.stored(m) >= piece[1]
                self.rounds[m][piece[1] : stop] = [t] * (stop - piece[1])
                self.active[m] = stop if tail == 1 else max(self.active[m], stop)
        if tail == 2:
            self.active = [min(cap, self.stored(m)) for m in range(len(self.projections))]
        self.id = hashlib.sha256(self.id + layer).digest()[:16]

    def _head_piece(self, ans: Ans) -> tuple:
        first = ans.uniform(len(self.rows))
        return "head", first, ans.uniform(len(self.rows) - first) + 1

    def _block_piece(self, ans: Ans) -> tuple:
        largest, count = self.prefixes[-1], len(self.projections)
        start, first = ans.uniform(largest), ans.uniform(count)
        run = range(first, first + ans.uniform(count - first) + 1)
        if ans.uniform(2):
            stops = [start + ans.uniform(max(self.projections[m][2] - start, 0) + 1) for m in run]
        else:
            common = start + ans.uniform(largest - start) + 1
            stops = [min(common, self.projections[m][2]) for m in run]
        return "block", start, [(m, stop) for m, stop in zip(run, stops, strict=True) if stop > start]

    def _places(self, piece: tuple) -> list[tuple]:
        if piece[0] == "head":
            return [(2, row, 0) for row in range(piece[1], piece[1] + piece[2])]
        return [(side, m, k) for m, stop in piece[2] for side in (0, 1) for k in range(piece[1], stop)]

    def _length(self, place: tuple) -> int:
        side, index, _ = place
        return self.rows[index][1] if side == 2 else self.projections[index][side]

    def _held(self, place: tuple) -> list[float]:
        side, index, k = place
        if side == 2:
            at, size = self.rows[index]
            return self.head[at : at + size]
        return (self.u, self.v)[side][index][k]

    def _put(self, place: tuple, vector: list[float]) -> None:
        side, index, k = place
        if side == 2:
            at, size = self.rows[index]
            self.head[at : at + size] = vector
        else:
            (self.u, self.v)[side][index][k] = vector

    def _vectors(self, ans: Ans, places: list[tuple]) -> list[list[float]]:
        """Modes: 0 same, 1 zero, 2 residual, 3 fresh, 4 residual and exact, 5 fresh and exact."""
        modes, steps, tables, symbols = ([0] * len(places) for _ in range(4))
        for side in range(3):
            mine = [i for i, place in enumerate(places) if place[0] == side]
            if mine:
                first = ans.uniform(6)
                second = (first + 1 + ans.uniform(5)) % 6
                for i, mode in zip(mine, choices(ans, len(mine), 6, first, second, ans.uniform(3)), strict=True):
                    modes[i] = mode
        for side in range(3):
            for mode in range(2, 6):
                mine = [i for i, place in enumerate(places) if place[0] == side and modes[i] == mode]
                if mine:
                    found = column(ans, len(mine), 256)
                    shapes = choices(ans, len(mine), 2, 0, 1, ans.uniform(5))
                    widths = column(ans, len(mine), 45)
                    for i, step, shape, width in zip(mine, found, shapes, widths, strict=True):
                        steps[i], tables[i] = step, (width, shape)
        for table in sorted({tables[i] for i in range(len(places)) if modes[i] >= 2}):
            mine = [i for i in range(len(places)) if modes[i] >= 2 and tables[i] == table]
            lengths = [self._length(places[i]) for i in mine]
            flat = numbers(ans, sum(lengths), table[1], table[0])
            for i, length in zip(mine, lengths, strict=True):
                symbols[i], flat = flat[:length], flat[length:]
        results = []
        for place, mode, index, found in zip(places, modes, steps, symbols, strict=True):
            held, step = self._held(place), step_of(index)
            if mode < 2:
                results.append([0.0] * len(held) if mode else held)
                continue
            changes = [f32(symbol * step) for symbol in found]
            base = held if mode in (2, 4) else [0.0] * len(held)
            vector = [f32(b + c) for b, c in zip(base, changes, strict=True)]
            if mode >= 4:
                vector = [exactly(ans, x, c, step) for x, c in zip(vector, changes, strict=True)]
            results.append(vector)
        return results


def exactly(ans: Ans, value: float, change: float, step: float) -> float:
    margin = f32(f32(step * 0.50390625) + f32(f32(abs(value) + abs(change)) * 2.0**-22))
    low, high = ordinal(f32(value - margin)), ordinal(f32(value + margin))
    return from_ordinal(low + ans.uniform(high - low + 1))
