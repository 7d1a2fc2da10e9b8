"""``airlora inspect`` on updates and on adapters: every byte is counted, mistakes are named."""

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from airlora.adapterfile import read_adapter
from airlora.cli_inspect import show
from airlora.codec import EdgeState, Update, encode, inspect_update
from airlora.errors import CompatibilityError, InputError, StoreError
from airlora.factors import Factors, HeadTensor, Schema
from airlora.updates import parent_state, update_path, write_initial_state
from codec_samples import INF, blank_edge, deliver, model_schema, random_factors, trained_factors, uniform

SCHEMA = model_schema()
ROUNDS = trained_factors(SCHEMA, 3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder of three rounds; of the second, two layers arrived."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "updates").mkdir()
    edge = EdgeState.initial(SCHEMA, random_factors(SCHEMA).head)
    write_initial_state(folder, edge)
    rows = []
    for index, (factors, bits) in enumerate(zip(ROUNDS, (4, 16, 4), strict=True)):
        update = encode(factors, edge, uniform(SCHEMA, 4, bits, bits), index)
        update.save(update_path(folder, index))
        delivered = 2 if index == 1 else len(update.layers)
        edge = deliver(edge, update, delivered)
        rows.append({"round": index, "layers_delivered": delivered})
    (folder / "rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def printed(path: Path) -> str:
    console = Console(record=True, width=160, file=io.StringIO())
    show(path, console)
    return console.export_text()


@pytest.mark.parametrize("index", [0, 1, 2])
def test_every_byte_of_an_update_is_accounted_for(run: Path, index: int) -> None:
    path = update_path(run, index)
    update = Update.load(path)
    report = inspect_update(update, parent_state(path, update))
    assert sum(report.bytes_by_use.values()) == pytest.approx(update.size_bytes)
    assert sum(layer.size_bytes for layer in report.layers) == update.size_bytes
    numbers = 4 * int(SCHEMA.numbers_per_component.sum()) + SCHEMA.head_size
    assert sum(report.numbers_by_kind.values()) == sum(layer.numbers for layer in report.layers) == numbers
    assert set(report.numbers_by_kind) == {"q", "k", "v", "o", "up", "down", "head"}
    of_numbers = report.bytes_by_use["symbols"] + report.bytes_by_use.get("exact", 0)
    assert sum(report.bytes_by_kind.values()) == pytest.approx(of_numbers, rel=0.01)
    assert sum(report.vectors_by_mode.values()) == 2 * 4 * 30 + 25
    assert (report.exact_vectors > 0) == (index == 1)
    assert report.warnings == ()


def test_what_is_printed(run: Path) -> None:
    update = Update.load(update_path(run, 2))
    text = " ".join(printed(update_path(run, 2)).split())
    assert f"{update.size_bytes} bytes in {len(update.layers)} layers, round 2, on state {update.parent[:16]}" in text
    assert "head rows 0…24" in text
    assert re.search(r"component 0 of projections 0…\d+", text)
    assert re.search(r"2…3 of projections", text)
    assert "asked for: ranks 4, 4 bits, the head at 4 bits, no budget" in text
    assert re.search(r"vectors: .*\d+ residual \(\d+%\)", text)
    for use in ("symbols", "frames", "pieces", "modes", "steps", "tables"):
        assert use in text
    assert "to the last bit of float16" in " ".join(printed(update_path(run, 1)).split())


def test_an_allocation_is_kept_in_the_file_and_not_on_air(run: Path) -> None:
    update = Update.load(update_path(run, 1))
    assert update.allocation is not None
    assert update.allocation.ranks.tolist() == [4] * 30
    assert update.allocation.budget_bytes == INF
    assert replace(update, allocation=None) == update
    assert replace(update, allocation=None).size_bytes == update.size_bytes


def test_updates_outside_their_run_and_broken_ones_are_refused(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "a" / "update.safetensors"
    moved.parent.mkdir()
    shutil.copy(update_path(run, 0), moved)
    with pytest.raises(InputError, match="must lie in updates/ of its run"):
        show(moved, Console())
    with pytest.raises(InputError, match="does not exist"):
        show(update_path(run, 9), Console())
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    data = bytearray(update_path(copy, 2).read_bytes())
    data[-1] ^= 1
    update_path(copy, 2).write_bytes(data)
    with pytest.raises(StoreError, match="was changed"):
        show(update_path(copy, 2), Console())
    shutil.copy(update_path(run, 2), update_path(copy, 2))
    rows = [{"round": 0, "layers_delivered": 1}, {"round": 1, "layers_delivered": 2}]
    (copy / "rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(InputError, match="do not follow each other"):
        show(update_path(copy, 2), Console())
    (copy / "rounds.jsonl").write_text(json.dumps(rows[0]) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="the rounds before it lead to"):
        show(update_path(copy, 2), Console())
    (copy / "rounds.jsonl").write_text("rubbish\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"rounds.jsonl cannot be used"):
        show(update_path(copy, 2), Console())


def test_an_update_on_another_state_is_refused() -> None:
    update = encode(ROUNDS[0], blank_edge(SCHEMA), uniform(SCHEMA, 1, 4, 4), 0)
    with pytest.raises(CompatibilityError, match="this edge is at"):
        inspect_update(update, deliver(blank_edge(SCHEMA), update, 1))


def test_34_an_update_that_changes_nothing_is_named() -> None:
    edge = blank_edge(SCHEMA)
    zero = Factors(SCHEMA, tuple(u * 0 for u in ROUNDS[0].u), ROUNDS[0].v, edge.factors().head)
    report = inspect_update(encode(zero, edge, uniform(SCHEMA, 2, 4, 4), 0), edge)
    assert report.warnings == ("the edge's model is the same after this update as before it",)
    empty = inspect_update(Update((), edge.id, SCHEMA.id, 0), edge)
    assert empty.warnings == ()
    assert np.isnan(empty.bits_per_number)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("transformer.wte.weight", (4, 4), "looks like an embedding"),
        ("lm_head.weight", (4, 4), "looks like an embedding"),
        ("classifier.weight", (500, 100), "has 50000 numbers, the whole adapter 1600"),
    ],
)
def test_35_embeddings_and_large_heads_in_an_update_are_named(name: str, shape: tuple[int, ...], message: str) -> None:
    projections = (replace(SCHEMA.projections[0], d_out=50, d_in=50, r_max=16),)
    schema = Schema(projections, SCHEMA.prefixes, (HeadTensor(name, shape),))
    edge = blank_edge(schema)
    report = inspect_update(encode(random_factors(schema), edge, uniform(schema, 1, 4, 4), 0), edge)
    assert len(report.warnings) == 1
    assert message in report.warnings[0]


def adapter(folder: Path, extra: dict[str, tuple[int, ...]]) -> Path:
    """A PEFT adapter of rank 2 on two projections, with more tensors."""
    base = "base_model.model.layers.0.q_proj"
    shapes = {f"{base}.lora_A.weight": (2, 64), f"{base}.lora_B.weight": (64, 2)} | extra
    folder.mkdir(exist_ok=True)
    save_file(
        {name: np.zeros(shape, np.float16) for name, shape in shapes.items()}, folder / "adapter_model.safetensors"
    )
    (folder / "adapter_config.json").write_text(json.dumps({"modules_to_save": ["score_head"]}), encoding="utf-8")
    return folder


def test_an_adapter_is_listed_by_tensor_and_kind(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "adapter", {"base_model.model.score_head.weight": (3, 2)})
    found = read_adapter(folder)
    assert found.bytes_by_kind == {"lora_A": 256, "lora_B": 256, "head": 12}
    assert found.size_bytes == 524
    assert found.warnings == ()
    text = " ".join(printed(folder).split())
    assert "3 tensors, 524 bytes" in text
    assert "q_proj.lora_B.weight" in text
    assert read_adapter(folder / "adapter_model.safetensors") == found


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("base_model.model.embed_tokens.weight", (100, 64), "1 embedding tensors of 12800 bytes, the first"),
        ("base_model.model.lm_head.weight", (100, 64), "1 embedding tensors of 12800 bytes"),
        ("base_model.model.layers.0.q_proj.base_layer.weight", (64, 64), "1 base weight tensors of 8192 bytes"),
        ("base_model.model.score_head.weight", (64, 64), "the head's tensors are 8192 of 8704 bytes"),
    ],
)
def test_35_embeddings_and_base_weights_in_an_adapter_are_named(
    tmp_path: Path, name: str, shape: tuple[int, ...], message: str
) -> None:
    warnings = read_adapter(adapter(tmp_path / "adapter", {name: shape})).warnings
    assert len(warnings) == 1
    assert message in warnings[0]
    assert f"warning: {message[:20]}" in printed(tmp_path / "adapter")


def test_36_a_pickled_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04N.")
    for path in (tmp_path, tmp_path / "adapter_model.bin"):
        with pytest.raises(InputError, match=r"a pickle|not a readable safetensors file"):
            show(path, Console())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        (2**63).to_bytes(8, "little") + b"{}",
        (40).to_bytes(8, "little") + b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}' + bytes(4),
        (54).to_bytes(8, "little") + b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}' + bytes(40),
        (100).to_bytes(8, "little") + b"[" * 100,
    ],
    ids=["empty", "huge header", "shape against span", "trailing bytes", "deep JSON"],
)
def test_37_broken_safetensors_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable safetensors file") as caught:
        show(path, Console())
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(StoreError):
        Update.load(path)


def test_a_safetensors_file_without_an_adapter_is_refused(tmp_path: Path) -> None:
    save_file({"model.layers.0.weight": np.zeros((2, 2), np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="holds 1 tensors but no adapter's"):
        show(tmp_path / "model.safetensors", Console())
