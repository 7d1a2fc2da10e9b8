"""Recorded links: playing them back, and refusing files that cannot be read as asked."""

from __future__ import annotations

import gzip
import logging
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airlora.errors import DataError, InputError, SpecError
from airlora.link import Delivery, Trace, make_link

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT.parent / "shared" / "traces" / "links_1s.csv.gz"

TWO_DRIVES = """\
source,trace,t_s,tech,dl_mbps,sinr_db
lab,a,0,LTE,8,10
lab,a,1,LTE,16,11
lab,a,2,5G,0,
lab,a,3,5G,24,13
lab,b,10,LTE,80,20
lab,b,11,LTE,88,21
sat,c,0,leo,160,
sat,c,1,leo,,
"""


@pytest.fixture
def drives(tmp_path: Path) -> Path:
    path = tmp_path / "drives.csv"
    path.write_text(TWO_DRIVES)
    return path


def write(folder: Path, text: str, name: str = "link.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def rates_mbps(link: Trace, *t_s: float) -> list[float]:
    return (link.capacity_bps(np.array(t_s)) / 1e6).tolist()


# Selecting and reading


def test_one_trace_is_piecewise_constant_and_stops(drives: Path) -> None:
    link = make_link(f"trace:{drives},source=lab,trace=a", seed=0)
    assert link == Trace(drives, source="lab", trace="a")
    assert rates_mbps(link, -0.5, 0, 0.999, 1, 2.5, 3.9, 4, 1e9) == [0, 8, 8, 16, 0, 24, 0, 0]


def test_several_traces_play_one_after_the_other(drives: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "airlora.link"):
        link = Trace(drives, source="lab")
    assert rates_mbps(link, 0, 1, 2, 3, 4, 5, 6) == [8, 16, 0, 24, 80, 88, 0]
    assert "2 traces are played one after the other" in caplog.text


def test_interleaved_rows_are_put_back_into_their_traces(tmp_path: Path) -> None:
    path = write(tmp_path, "trace,t_s,dl_mbps\na,0,1\nb,0,3\na,1,2\nb,1,4\n")
    assert rates_mbps(Trace(path), 0, 1, 2, 3, 4) == [1, 2, 3, 4, 0]


def test_filter_by_tech(drives: Path) -> None:
    assert rates_mbps(Trace(drives, tech="5G"), 0, 1, 2) == [0, 24, 0]


@pytest.mark.parametrize(
    ("unit", "bps"),
    [("bps", 1), ("kbps", 1e3), ("Mbps", 1e6), ("Gbps", 1e9), ("B/s", 8), ("kB/s", 8e3), ("MB/s", 8e6)],
)
def test_units(tmp_path: Path, unit: str, bps: float) -> None:
    path = write(tmp_path, "up\n1.5\n")
    link = make_link(f"trace:{path},column=up,unit={unit},share=0.5", seed=0)
    assert link.capacity_bps(np.array([0.5])).tolist() == [0.75 * bps]


def test_gzip_and_a_byte_order_mark(tmp_path: Path, drives: Path) -> None:
    packed = tmp_path / "drives.csv.gz"
    packed.write_bytes(gzip.compress(b"\xef\xbb\xbf" + TWO_DRIVES.encode()))
    t_s = np.arange(0, 8, 0.5)
    np.testing.assert_array_equal(
        Trace(packed, source="lab").capacity_bps(t_s), Trace(drives, source="lab").capacity_bps(t_s)
    )


def test_without_a_time_column_rows_are_interval_s_apart(tmp_path: Path) -> None:
    path = write(tmp_path, "dl_mbps\n8\n16\n24\n")
    assert rates_mbps(Trace(path), 0, 1, 2, 3) == [8, 16, 24, 0]
    assert rates_mbps(Trace(path, interval_s=0.5), 0, 0.5, 1, 1.5) == [8, 16, 24, 0]


def test_interval_s_replaces_the_time_column(drives: Path) -> None:
    assert rates_mbps(Trace(drives, trace="b", interval_s=10.0), 9, 19, 20) == [80, 88, 0]


def test_other_names_of_time_and_snr(tmp_path: Path) -> None:
    path = write(tmp_path, "when,rate,snr\n5,8,-3\n7,16,4\n")
    link = make_link(f"trace:{path},column=rate,time_column=when,snr_column=snr", seed=0)
    assert rates_mbps(link, 0, 1.9, 2, 3.9, 4) == [8, 8, 16, 16, 0]
    assert link.observe(2.0).snr_db == -3


def test_a_sample_holds_over_a_short_gap_and_not_over_a_long_one(tmp_path: Path) -> None:
    path = write(tmp_path, "t_s,dl_mbps\n0,1\n1,2\n2,3\n5,4\n6,5\n100,6\n101,7\n")
    assert rates_mbps(Trace(path), 2, 4.9, 5, 6, 10.9, 11, 99.9, 100, 101.9, 102) == [3, 3, 4, 5, 5, 0, 0, 6, 7, 0]


@pytest.mark.parametrize("blank", ["", " ", "nan", "NaN"])
def test_a_blank_rate_is_a_row_that_is_not_there(tmp_path: Path, blank: str) -> None:
    rows = [blank, "1", "2", blank, "3", *[blank] * 10, "4", "5", "6", blank]
    path = write(tmp_path, "t_s,dl_mbps\n" + "".join(f"{t},{rate}\n" for t, rate in enumerate(rows)))
    link = Trace(path)  # time 0 is the first measured sample, at 1 s in the file
    assert rates_mbps(link, 0, 1, 2, 3, 7.9, 8, 13.9, 14, 15, 16.9, 17) == [1, 2, 2, 3, 3, 0, 0, 4, 5, 6, 0]


def test_offset_and_loop(drives: Path) -> None:
    link = make_link(f"trace:{drives},trace=a,offset_s=3,end=loop", seed=0)
    assert rates_mbps(link, 0, 1, 2, 3, 4, 4000 * 4) == [24, 8, 16, 0, 24, 24]
    assert rates_mbps(Trace(drives, trace="a", offset_s=3), 0, 1) == [24, 0]
    assert rates_mbps(Trace(drives, trace="a", end="loop"), -1, -4) == [24, 8]


# Sending


def test_transmission_through_an_outage_and_past_the_end(drives: Path) -> None:
    link = Trace(drives, trace="a")  # 1 MB, 2 MB, nothing, 3 MB
    assert link.transmit([1_000_000, 2_000_000, 1_500_000], 0, 10) == Delivery(3, 4_500_000, 4_500_000, 3.5, False)
    assert link.transmit([5_000_000, 2_000_000], 0, 10) == Delivery(1, 5_000_000, 6_000_000, 10.0, True)
    assert link.transmit([1], 50, 1) == Delivery(0, 0, 0, 1.0, True)


def test_a_loop_carries_the_same_every_pass(drives: Path) -> None:
    link = Trace(drives, trace="a", end="loop")
    assert link.transmit([10**15], 0, 1e5).bytes_on_air == 25_000 * 6_000_000
    assert link.transmit([10**15], 12_345.5, 4).bytes_on_air == 6_000_000
    sent = link.transmit([6_000_000 * 5000 + 1_000_000], 4, 1e5)
    assert sent.airtime_s == pytest.approx(4 * 5000 + 1)


@settings(max_examples=60, deadline=None)
@given(start_s=st.floats(0, 1e4), deadline_s=st.floats(0, 1e4), share=st.floats(0.01, 1), size=st.integers(0, 10**10))
def test_bytes_on_air_are_the_integral_of_the_capacity(
    tmp_path_factory: pytest.TempPathFactory, start_s: float, deadline_s: float, share: float, size: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "loop.csv"
    path.write_text("t_s,dl_mbps\n0,8\n1,0\n3,4\n4,2\n")  # a pass of 5 s carries 8 + 4 + 2 Mbit
    link = Trace(path, end="loop", share=share)

    def carried_bits(t_s: float) -> float:
        passes, rest = divmod(t_s, 5)
        return share * 1e6 * (14 * passes + np.interp(rest, [0, 1, 3, 4, 5], [0, 8, 8, 12, 14]))

    capacity_bytes = (carried_bits(start_s + deadline_s) - carried_bits(start_s)) / 8
    sent = link.transmit([size], start_s, deadline_s)
    assert sent.bytes_on_air == pytest.approx(min(size, capacity_bytes), abs=1.01)


def test_fault_11_a_dead_link_for_hours(tmp_path: Path) -> None:
    path = write(tmp_path, "t_s,dl_mbps\n0,0\n1,0\n")
    for end in ("stop", "loop"):
        link = make_link(f"trace:{path},end={end}", seed=0)
        assert link.transmit([1], 0, 1e5) == Delivery(0, 0, 0, 1e5, True)
        assert link.observe(3600.0).rate_bps == 0


# Observing


def test_observation_averages_the_past_window(drives: Path) -> None:
    link = Trace(drives, trace="a", share=0.5, estimate_window_s=2.0)
    states = [link.observe(t_s) for t_s in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 60.0)]
    np.testing.assert_allclose([state.rate_bps / 1e6 for state in states], [math.nan, 4, 6, 4, 6, 6, 0])
    np.testing.assert_allclose([s.snr_db for s in states], [math.nan, 10, 11, math.nan, 13, math.nan, math.nan])
    assert all(math.isnan(state.bandwidth_hz) for state in states)


def test_the_sample_that_runs_is_not_known_yet(drives: Path) -> None:
    link = Trace(drives, trace="a")
    assert math.isnan(link.observe(0.9).rate_bps)
    state = link.observe(1.9)
    assert (state.t_s, state.snr_db, state.rate_bps) == (1.9, 10.0, 8e6)


def test_a_loops_first_pass_does_not_know_its_end(drives: Path) -> None:
    link = Trace(drives, trace="a", end="loop", estimate_window_s=2.0)
    assert math.isnan(link.observe(0.0).rate_bps)
    assert link.observe(1.0).rate_bps == 8e6
    later = link.observe(5.5)  # second pass: the last slot of the first, and the first of the second
    assert later.rate_bps == pytest.approx(16e6)
    assert later.snr_db == 10
    assert link.observe(4.0).snr_db == 13


def test_an_offset_leaves_a_past(drives: Path) -> None:
    assert Trace(drives, trace="a", offset_s=2).observe(0.0).rate_bps == pytest.approx(12e6)


@settings(max_examples=60, deadline=None)
@given(
    past=st.lists(st.integers(0, 100), min_size=1, max_size=10),
    one=st.lists(st.integers(0, 100), min_size=1, max_size=5),
    other=st.lists(st.integers(0, 100), min_size=1, max_size=5),
    end=st.sampled_from(["stop", "loop"]),
    window_s=st.sampled_from([0.5, 1.0, 2.5, 5.0, 100.0]),
    fraction=st.sampled_from([0.0, 0.25, 0.875]),
)
def test_the_future_does_not_change_an_observation(
    tmp_path_factory: pytest.TempPathFactory, past, one, other, end, window_s, fraction
) -> None:
    folder = tmp_path_factory.getbasetemp()
    seen = []
    for future in (one, other):
        rows = "".join(f"{rate},{rate / 4}\n" for rate in [*past, *future])
        link = Trace(write(folder, "dl_mbps,sinr_db\n" + rows), end=end, estimate_window_s=window_s)
        state = link.observe(len(past) + fraction)
        seen.append((state.rate_bps, state.snr_db))
    assert seen[0] == pytest.approx(seen[1], rel=1e-12, nan_ok=True)
    assert seen[0][1] == past[-1] / 4


# mahimahi


def test_mahimahi_packets_flow_in_the_millisecond_before_their_time(tmp_path: Path) -> None:
    path = write(tmp_path, "1\n1\n3\n1000\n", "driving.down")
    link = Trace(path)
    assert rates_mbps(link, 0.0005, 0.0015, 0.0025, 0.5, 0.9995, 1.0005) == [24, 0, 12, 0, 12, 0]
    assert link.transmit([3000, 1500, 1500, 1], 0, 5) == Delivery(3, 6000, 6000, 5.0, True)
    assert link.transmit([3000, 1500], 0, 5).airtime_s == pytest.approx(0.003)
    assert math.isnan(link.observe(1.0).snr_db)


def test_mahimahi_loops_with_its_last_time(tmp_path: Path) -> None:
    path = write(tmp_path, "0\n5\n10\n")
    link = Trace(path, end="loop", share=0.5)
    assert link.transmit([10**9], 0, 100.0).bytes_on_air == 10_000 * 3 * 1500 // 2


def test_mahimahi_by_content_or_by_name(tmp_path: Path) -> None:
    packed = tmp_path / "up.gz"
    packed.write_bytes(gzip.compress(b"2\n4\n"))
    assert make_link(f"trace:{packed},format=mahimahi", 0).observe(0.004).rate_bps == pytest.approx(6e6)
    assert Trace(packed).observe(0.004).rate_bps == pytest.approx(6e6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n2.5\n", "line 2: '2.5' is no time"),
        ("1\n-2\n", "line 2: '-2' is no time"),
        ("1\n" + "9" * 5000, "line 2: '9{40}' is no time"),
        ("5\n\n3\n", "line 3: time 3 ms is below 5 ms before it"),
        ("0\n0\n", "has no time above 0 ms"),
    ],
)
def test_bad_mahimahi_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Trace(write(tmp_path, text))


def test_mahimahi_refuses_what_selects_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "1\n2\n")
    for setting in ("source=lab", "column=x", "unit=kbps", "interval_s=2"):
        with pytest.raises(SpecError, match=f"{setting.split('=')[0]} has no meaning for .*mahimahi"):
            make_link(f"trace:{path},{setting}", seed=0)


# Bad files and SPECs: one line that says what there is


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("column=rate", "no column 'rate'; its columns are: source, trace, t_s, tech, dl_mbps, sinr_db"),
        ("time_column=time", "no column 'time'; its columns are: source"),
        ("snr_column=snr", "no column 'snr'; its columns are: source"),
        ("source=car", "no row with source 'car'; there are: lab, sat"),
        ("source=lab,trace=c", "no row with trace 'c' under source 'lab'; there are: a, b"),
        ("trace=b,tech=5G", "no row with tech '5G' under trace 'b'; there are: LTE"),
        ("column=tech", "line 2: tech is 'LTE'; a number or a blank"),
        ("trace=a,offset_s=4", "offset_s is 4, but .* has 4 s as selected"),
        ("offset_s=-1", "offset_s is -1.0; a finite time of 0 s or more"),
        ("offset_s=nan", "offset_s is nan"),
        ("share=2", "share is 2.0; a fraction above 0 and up to 1"),
        ("unit=Mbit", "unit is 'Mbit'; allowed: bps, kbps, Mbps, Gbps, B/s, kB/s, MB/s"),
        ("end=hold", "end is 'hold'; allowed: stop, loop"),
        ("format=json", "format is 'json'; allowed: auto, csv, mahimahi"),
        ("format=mahimahi", "line 1: 'source,trace,t_s,tech,dl_mbps,sinr_db' is no time"),
        ("interval_s=0", "interval_s is 0.0"),
        ("interval_s=1,time_column=tech", "exclude each other"),
        ("estimate_window_s=-5", "estimate_window_s is -5.0"),
        ("speed=2", "has no key 'speed'; its keys are: path, column, unit, source, trace"),
    ],
)
def test_impossible_settings_are_refused(drives: Path, setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make_link(f"trace:{drives},{setting}", seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t_s,dl_mbps\n0,1\n1,-2\n", "line 3: dl_mbps is -2; a rate of 0 or more"),
        ("t_s,dl_mbps\n0,1\n1,fast\n", "line 3: dl_mbps is 'fast'"),
        ("t_s,dl_mbps\n0,inf\n", "line 2: dl_mbps is 'inf'; a finite number"),
        ("t_s,dl_mbps,sinr_db\n0,1,-inf\n", "line 2: sinr_db is '-inf'; a finite number"),
        ("t_s,dl_mbps\n3,1\n3,2\n", "line 3: t_s is 3 after 3; times must increase"),
        ("t_s,dl_mbps\n,1\n", "line 2: t_s is blank"),
        ("t_s,dl_mbps\n0,1\n1\n", "line 3 has 1 cells where the header has 2"),
        ("t_s,dl_mbps\n", "has no rows below its header"),
        ("t_s,dl_mbps\n0,\n1,\n", "column 'dl_mbps' is blank in every row selected"),
        ("t_s,dl_mbps\n0," + "1" * 200_000 + "\n", "is not CSV: field larger than field limit"),
        (" \n", "is empty"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        Trace(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_long_lists_are_cut(tmp_path: Path) -> None:
    path = write(tmp_path, "trace,dl_mbps\n" + "".join(f"drive{k},1\n" for k in range(50)))
    with pytest.raises(DataError, match=re.escape("drive0, drive1") + ".*" + re.escape("drive9 … (50 in all)")):
        Trace(path, trace="x")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    plain = tmp_path / "plain.csv.gz"
    plain.write_text(TWO_DRIVES)
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(TWO_DRIVES.encode())[:-20])
    flipped = tmp_path / "flipped.csv.gz"
    flipped.write_bytes(gzip.compress(TWO_DRIVES.encode())[:-8] + bytes(8))
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"t_s,dl_mbps\n0,\xff\n")
    for path, message in (
        (tmp_path / "none.csv", "cannot be read: No such file"),
        (tmp_path, "cannot be read: Is a directory"),
        (plain, "is not gzip"),
        (cut, "is damaged gzip"),
        (flipped, "cannot be read: CRC check failed"),
        (binary, "is not UTF-8 text"),
    ):
        with pytest.raises(DataError, match=message):
            make_link(f"trace:{path}", seed=0)


# The recorded links


@pytest.fixture(scope="module")
def recorded() -> Path:
    if not RECORDED.exists():
        pytest.skip("the recorded links are not here (../shared/traces/links_1s.csv.gz)")
    return RECORDED


@pytest.mark.slow
def test_recorded_5g_drive(recorded: Path) -> None:
    link = make_link(f"trace:{recorded},source=raca5g,trace=driving/B_2019.12.14_10.16.30", seed=0)
    assert rates_mbps(link, -1, 0, 1, 3) == pytest.approx([0, 0.007, 0, 0.009])
    state = link.observe(2.0)
    assert state.snr_db == 6
    assert state.rate_bps == pytest.approx(3500)


@pytest.mark.slow
def test_recorded_source_plays_all_its_drives(recorded: Path) -> None:
    link = make_link(f"trace:{recorded},source=raca5g,end=loop", seed=0)
    t_s = np.arange(0.5, 45_000)
    total_bytes = link.capacity_bps(t_s).sum() / 8
    assert link.transmit([10**15], 0, 45_000.0).bytes_on_air == pytest.approx(total_bytes, abs=1)


@pytest.mark.slow
def test_recorded_uplink_only_trace_has_no_downlink(recorded: Path) -> None:
    with pytest.raises(DataError, match="column 'dl_mbps' is blank in every row selected"):
        Trace(recorded, source="mahimahi", trace="ATT-LTE-driving.up")
    assert Trace(recorded, column="ul_mbps", source="mahimahi", trace="ATT-LTE-driving.up").observe(9.0).rate_bps > 0
