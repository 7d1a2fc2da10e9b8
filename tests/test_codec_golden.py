"""Golden files: the format is what it was, and a decoder written from the document reads it to the same bits."""

import json
import struct

import numpy as np
import pytest

from airlora.codec import Update
from airlora.codec.layers import CAP, DROP, KEEP, BlockPiece, HeadPiece
from airlora.codec.stream import Ledger
from codec_golden import COUNT, DATA, SCHEMA, encode_all, expected, fingerprint, states, stored_factors
from codec_reference import Edge
from codec_samples import blank_edge

UPDATES = [Update.load(DATA / f"golden-{t}.safetensors") for t in range(COUNT)]


def test_the_stored_factors_still_encode_to_the_stored_bytes(tmp_path) -> None:
    for t, (_, update) in enumerate(encode_all(stored_factors())):
        assert update == UPDATES[t]
        update.save(tmp_path / "update")
        assert (tmp_path / "update").read_bytes() == (DATA / f"golden-{t}.safetensors").read_bytes()


def test_the_stored_bytes_still_decode_to_the_stored_states() -> None:
    for (edge, _), update, wanted in zip(encode_all(stored_factors()), UPDATES, expected(), strict=True):
        assert [[state.id, fingerprint(state)] for state in states(edge, update)] == wanted


def test_the_golden_updates_have_every_feature() -> None:
    ledger = Ledger()
    infos = []
    for edge, update in encode_all(stored_factors()):
        for layer in update.layers:
            info, edge = edge.read(layer, ledger)
            infos.append(info)
    assert {info.tail for info in infos} == {KEEP, DROP, CAP}
    pieces = [piece for info in infos for piece in info.pieces]
    assert any(isinstance(piece, HeadPiece) for piece in pieces)
    assert any(isinstance(piece, BlockPiece) and len(set(piece.stops)) > 1 for piece in pieces)
    assert any(len(info.pieces) > 1 for info in infos)
    assert {"pieces", "modes", "steps", "tables", "symbols", "exact"} == set(ledger.bits)


def _bits(numbers: list[float]) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def test_a_decoder_written_from_the_document_reads_them_to_the_same_bits() -> None:
    schema = json.loads((DATA / "golden-schema.json").read_text(encoding="utf-8"))
    reference = Edge(schema, schema.pop("id"), [0.0] * SCHEMA.head_size)
    edge = blank_edge(SCHEMA)
    for t, update in enumerate(UPDATES):
        for layer in update.layers[: len(update.layers) - t % 2]:
            edge = edge.apply(layer)
            reference.apply(layer)
            assert reference.id.hex() == edge.id
            for m in range(len(SCHEMA.projections)):
                assert b"".join(map(_bits, reference.u[m])) == edge.u[m].T.tobytes()
                assert b"".join(map(_bits, reference.v[m])) == edge.v[m].tobytes()
            assert _bits(reference.head) == edge.head.tobytes()
            assert reference.active == edge.active_ranks.tolist()
            assert reference.rounds == edge.component_rounds.tolist()
            assert reference.head_rounds == edge.head_rounds.tolist()


@pytest.mark.parametrize("t", range(COUNT))
def test_golden_files_are_small(t: int) -> None:
    assert (DATA / f"golden-{t}.safetensors").stat().st_size < 3000
    assert np.sum(UPDATES[t].layer_bytes) == UPDATES[t].size_bytes
