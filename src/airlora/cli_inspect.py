"""``airlora inspect``: an update or an adapter file on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from airlora.adapterfile import AdapterFile, read_adapter
from airlora.codec import Allocation, Update, UpdateReport, inspect_update
from airlora.codec.files import file_kind
from airlora.codec.update import UPDATE_KIND
from airlora.errors import InputError
from airlora.updates import parent_state


def show(path: Path, console: Console) -> None:
    """Print what is in a file or folder.

    Raises:
        InputError: it is neither an update in a run's folder nor an adapter.
        StoreError: an update was changed after it was written.
    """
    if not path.exists():
        raise InputError(f"{str(path)!r} does not exist; name a file of a run's updates folder, or an adapter")
    if path.is_file() and file_kind(path) == UPDATE_KIND:
        update = Update.load(path)
        report = inspect_update(update, parent_state(path, update))
        _show_update(path.name, update, report, console)
        _show_warnings(report.warnings, console)
        return
    adapter = read_adapter(path)
    _show_adapter(adapter, console)
    _show_warnings(adapter.warnings, console)


def _show_update(name: str, update: Update, report: UpdateReport, console: Console) -> None:
    title = f"{name}: {update.size_bytes} bytes in {len(update.layers)} layers, round {update.round_index}"
    table = Table(title=f"{title}, on state {update.parent[:16]}")
    for column in ("layer", "changes", "numbers", "bytes", "bits each", "tail", "active"):
        table.add_column(column, justify="left" if column in ("changes", "tail") else "right")
    for index, layer in enumerate(report.layers):
        low, high = layer.active_ranks
        table.add_row(
            str(index),
            escape("\n".join(layer.changes) or "nothing"),
            str(layer.numbers),
            str(layer.size_bytes),
            _ratio(8 * layer.size_bytes, layer.numbers),
            layer.tail,
            str(low) if low == high else f"{low}…{high}",
        )
    console.print(table)
    table = _shares("Where the bytes went", report.bytes_by_use, update.size_bytes)
    console.print(table)
    table = Table(title="Symbols by kind")
    for column in ("kind", "numbers", "bytes", "bits a number"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for kind, size in sorted(report.bytes_by_kind.items(), key=lambda item: -item[1]):
        numbers = report.numbers_by_kind[kind]
        table.add_row(escape(kind), str(numbers), f"{size:.0f}", _ratio(8 * size, numbers))
    console.print(table)
    vectors = sum(report.vectors_by_mode.values())
    modes = ", ".join(
        f"{count} {mode} ({count / vectors:.0%})" for mode, count in report.vectors_by_mode.items() if count
    )
    exact = f"; {report.exact_vectors} of them to the last bit of float16" if report.exact_vectors else ""
    _line(console, f"vectors: {modes or 'none'}{exact}")
    _line(console, f"{report.bits_per_number:.2f} bits a number, all included")
    if update.allocation:
        _line(console, f"asked for: {_asked(update.allocation)}")


def _asked(allocation: Allocation) -> str:
    ranks, bits = allocation.ranks, allocation.bits
    asked = bits[ranks > 0] if bits.ndim == 1 else bits

    def span(values: list[int]) -> str:
        low, high = min(values, default=0), max(values, default=0)
        return str(low) if low == high else f"{low}…{high}"

    head = f"the head at {allocation.head_bits} bits" if allocation.head_bits else "no head"
    budget = f"{allocation.budget_bytes:.0f} bytes" if allocation.budget_bytes < float("inf") else "no budget"
    return f"ranks {span(ranks.tolist())}, {span(asked.ravel().tolist())} bits, {head}, {budget}"


def _show_adapter(adapter: AdapterFile, console: Console) -> None:
    table = Table(title=f"{adapter.path.name}: {len(adapter.tensors)} tensors, {adapter.size_bytes} bytes")
    for column in ("tensor", "kind", "type", "shape", "bytes"):
        table.add_column(column, justify="right" if column == "bytes" else "left")
    for tensor in adapter.tensors:
        shape = " × ".join(map(str, tensor.shape)) or "scalar"
        table.add_row(escape(tensor.name), tensor.kind, tensor.dtype, shape, str(tensor.size_bytes))
    console.print(table)
    console.print(
        _shares(
            "Bytes by kind", {kind: float(size) for kind, size in adapter.bytes_by_kind.items()}, adapter.size_bytes
        )
    )


def _shares(title: str, sizes: Mapping[str, float], total: int) -> Table:
    table = Table(title=title)
    for column in ("what", "bytes", "share"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        table.add_row(escape(name), f"{size:.0f}", f"{size / total:.1%}" if total else "–")
    return table


def _show_warnings(warnings: tuple[str, ...], console: Console) -> None:
    for warning in warnings:
        _line(console, f"[yellow]warning:[/yellow] {escape(warning)}")


def _line(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False)


def _ratio(bits: float, numbers: int) -> str:
    return f"{bits / numbers:.2f}" if numbers else "–"
