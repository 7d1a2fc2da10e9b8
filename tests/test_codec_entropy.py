"""How near the entropy updates are, and that everything beside the numbers is small."""

from dataclasses import replace

import pytest

from airlora.codec import encode
from airlora.codec.stream import Ledger
from codec_entropy import payload_and_entropy
from codec_samples import blank_edge, deliver, model_schema, trained_factors, uniform

MODEL = model_schema()
ROUNDS = trained_factors(MODEL, 3)


@pytest.mark.parametrize(
    ("bits", "pool"),
    [(bits, "by_projection") for bits in (2, 3, 4, 6, 8)] + [(bits, "by_part") for bits in (2, 3, 4, 6)],
)
def test_the_payload_is_within_2_percent_of_the_entropy_and_8_bytes_a_projection(bits: int, pool: str) -> None:
    """payload ≤ 1.02 (entropy of the symbols + entropy of the steps) + 8 bytes a projection and head tensor.

    Entropies are empirical: the symbols' of each projection's u and v, all together or in each block by itself (where
    a block has one component, the histogram of a few dozen numbers knows more about them than any table that is not
    transmitted, the more so the more bits), the steps' of all u and all v. At 16 bits see the next test.
    """
    edge = blank_edge(MODEL)
    for round_index, factors in enumerate(ROUNDS):
        allocation = uniform(MODEL, 16, bits, bits)
        found = payload_and_entropy(factors, edge, allocation, round_index)
        assert found["payload"] <= 1.02 * (found[pool] + found["steps"]) + 8 * found["projections"]
        edge = deliver(edge, encode(factors, edge, allocation, round_index))


@pytest.mark.parametrize(("bits", "gap"), [(8, 0.15), (16, 0.2)])
def test_fine_steps_cost_the_entropy_of_a_gaussian_of_their_width(bits: int, gap: float) -> None:
    """At 8 bits, log2(sqrt(2 π e) / step) = 7.65 bits a number; float16 to the last bit 5.8 more; with frames, + 0.2.

    Numbers here have heavier tails than a Gaussian and so a lower entropy at equal variance.
    """
    factors = ROUNDS[0]
    schema = replace(MODEL, init_seed=None)
    factors = replace(factors, schema=schema)
    numbers = 16 * int(schema.numbers_per_component.sum())
    size = encode(factors, blank_edge(schema), uniform(schema, 16, bits, 0), 0).size_bytes
    assert 8 * size / numbers < {8: 7.65, 16: 7.65 + 5.8}[bits] + gap


@pytest.mark.parametrize(("rank", "bits"), [(1, 4), (4, 2), (16, 4), (16, 16)])
def test_beside_the_numbers_an_update_has_at_most_300_bytes_and_40_a_layer(rank: int, bits: int) -> None:
    """Frames, pieces, tails and modes: everything but symbols, steps and tables."""
    edge, ledger = blank_edge(MODEL), Ledger()
    update = encode(ROUNDS[0], edge, uniform(MODEL, rank, bits, bits), 0)
    for layer in update.layers:
        _, edge = edge.read(layer, ledger)
    numbers = sum(ledger.bits.get(name, 0) for name in ("symbols", "steps", "tables", "exact")) / 8
    assert update.size_bytes - numbers <= 300 + 40 * len(update.layers)
