"""The command line: bad input is one line and exit code 2, Ctrl-C keeps the run, the base install stands alone."""

from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import airlora
import airlora.report
from airlora.cli import main
from airlora.config import RunConfig

Run = Callable[..., tuple[int, str, str]]

SOURCE = Path(airlora.__file__).parent
DATA = "builtin:vehicle-commands,train=80,validation=40,test=40"
TINY = (
    *("--data", DATA, "--rounds", "2", "--steps-per-round", "1", "--batch-size", "4", "--max-rank", "2"),
    *("--validation-limit", "8", "--max-length", "16", "--passes", "1"),
)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process: (exit code, stdout, stderr). Reports are not drawn."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["airlora", *map(str, arguments)])
        monkeypatch.setattr(airlora.report, "write_report", lambda folder: folder / "report.html")
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        code = stop.value.code
        captured = capsys.readouterr()
        return (0 if code is None else int(code)), captured.out, captured.err

    return call


@pytest.fixture
def refused(command: Run, tmp_path: Path) -> Callable[..., str]:
    """Run ``airlora run`` with bad input: exit code 2, one line on stderr, no output folder; returns the line."""

    def call(*arguments: object) -> str:
        out = tmp_path / "out"
        code, _, err = command("run", "--out", out, *arguments)
        assert (code, err.count("\n")) == (2, 1), err
        assert err.startswith("error: ")
        assert "Traceback" not in err
        assert not out.exists()
        return err

    return call


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, with its report."""
    out = tmp_path_factory.mktemp("cli") / "run"
    done = subprocess.run(
        [sys.executable, "-m", "airlora", "run", "--out", str(out), *TINY],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert str(out / "report.html") in done.stdout
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- the plain commands ---------------------------------------------------------------------------


def test_version(command: Run) -> None:
    assert command("--version") == (0, airlora.__version__ + "\n", "")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("run", "--help"), ("report", "--help"), ("inspect", "--help")])
def test_help(arguments: tuple[str, ...], command: Run) -> None:
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith("Usage: ")


def test_the_help_of_run_names_every_setting(command: Run) -> None:
    _, out, _ = command("run", "--help")
    for key in RunConfig.__dataclass_fields__:
        assert f"--{key.replace('_', '-')} " in out


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("fly",), "No such command 'fly'"),
        (("run",), "Missing option '--out'"),
        (("run", "--out", "x", "--speed", "3"), "No such option"),
        (("run", "--out", "x", "--rounds", "many"), "'many' is not a valid int"),
        (("report",), "Missing argument"),
        (("inspect", "a", "b"), "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_one_line(arguments: tuple[str, ...], match: str, command: Run) -> None:
    code, out, err = command(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert match.lower() in err.lower()


@pytest.mark.parametrize(
    ("option", "value", "match"),
    [
        ("--links", "air=awgn:snr=3", "'awgn' has no key 'snr'; its keys are: "),
        ("--policies", "best", "unknown policy 'best'; there are: "),
        ("--jobs", "tiny=missing.toml", "missing.toml"),
        ("--seeds", "0", "must be at least 1"),
    ],
)
def test_compare_refuses_bad_input_before_it_starts(
    option: str, value: str, match: str, command: Run, tmp_path: Path
) -> None:
    (tmp_path / "job.toml").write_text("rounds = 1\n")
    options = {"--jobs": f"tiny={tmp_path / 'job.toml'}", "--links": "awgn", "--policies": "fit", option: value}
    code, _, err = command("compare", "--out", tmp_path / "out", *(part for pair in options.items() for part in pair))
    assert (code, err.count("\n")) == (2, 1), err
    assert match in err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_report_draws_a_run_again(finished: Path) -> None:
    page = (finished / "report.html").read_bytes()
    (finished / "report.html").unlink()
    done = subprocess.run([sys.executable, "-m", "airlora", "report", str(finished)], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (finished / "report.html").read_bytes() == page


def test_report_of_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "airlora", "report", str(tmp_path / "none")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "config.toml" in done.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_inspect_reads_every_round_of_a_run(finished: Path, command: Run) -> None:
    for line in (finished / "rounds.jsonl").read_text().splitlines():
        row = json.loads(line)
        code, out, err = command("inspect", finished / "updates" / f"round-{row['round']:04d}.safetensors")
        assert (code, err) == (0, "")
        assert f"{row['bytes_offered']} bytes in {row['layers_offered']} layers" in " ".join(out.split())
        assert "asked for: ranks" in out


@pytest.mark.slow
def test_inspect_reads_the_adapter_of_a_run(finished: Path, command: Run) -> None:
    code, out, err = command("inspect", finished / "adapter")
    assert (code, err) == (0, "")
    assert "lora_A" in out
    assert "head" in out


@pytest.mark.slow
def test_inspect_refuses_what_is_no_update(finished: Path, command: Run, tmp_path: Path) -> None:
    for path in (finished / "updates" / "round-9999.safetensors", finished / "config.toml", finished):
        code, _, err = command("inspect", path)
        assert (code, err.count("\n")) == (2, 1)
    update = Path(shutil.copytree(finished, tmp_path / "run")) / "updates" / "round-0000.safetensors"
    data = bytearray(update.read_bytes())
    data[-1] ^= 1
    update.write_bytes(data)
    code, _, err = command("inspect", update)
    assert (code, err.count("\n")) == (1, 1)
    assert "was changed" in err


# --- 53: data -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "options", "match"),
    [
        ("none.csv", None, (), "does not exist"),
        ("empty.csv", b"", (), "empty"),
        ("header.csv", b"text,label\n", (), "0 rows"),
        ("one.csv", b"text,label\n" + b"hello there,a\n" * 20, (), "has one class, 'a'"),
        ("missing.csv", b"text,label\n" + b"hello there,a\nbye now,b\n" * 9 + b"what,\n", (), "row 20"),
        ("nan.jsonl", b'{"text": "x y", "label": 1}\n{"text": "x z", "label": NaN}\n', (), "row 2"),
        ("latin.csv", b"text,label\n" + "café,a\nthé,b\n".encode("latin-1") * 9, (), "utf-8"),
        ("codec.csv", b"text,label\nx,a\ny,b\n", ("--encoding", "utf-99"), "utf-99"),
        ("columns.csv", b"text,label\nx,a\ny,b\n", ("--text-column", "words"), "words"),
        ("index.csv", b"text,label\nx,a\ny,b\n", ("--label-column", "7"), "7"),
        ("data.xlsx", b"PK", (), "unknown extension '.xlsx'"),
        ("plain.txt", b"some text", ("--task", "classify"), "without labels"),
        ("blank.txt", b"   \n \n", (), "blank"),
    ],
)
def test_data_that_cannot_be_used(
    name: str, content: bytes | None, options: tuple[str, ...], match: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert match in refused("--data", tmp_path / name, *options)


def test_an_unknown_built_in_lists_those_there_are(refused: Callable[..., str]) -> None:
    assert "vehicle-commands, vehicle-logs" in refused("--data", "builtin:weather")
    assert "there are: tiny-opt" in refused("--model", "builtin:huge")


# --- 54: model ------------------------------------------------------------------------------------


def test_models_that_cannot_be_used(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "is not a folder" in refused("--model", tmp_path / "none")
    half = tmp_path / "half"
    shutil.copytree(SOURCE / "workload" / "assets" / "tiny-opt", half)
    (half / "model.safetensors").unlink()
    assert "it needs config.json, weights and a tokenizer" in refused("--model", half, "--data", DATA)
    (half / "config.json").unlink()
    assert "it has no config.json" in refused("--model", half, "--data", DATA)
    assert "there are: fc1, fc2, k_proj" in refused("--targets", "wq", "--data", DATA)


# --- 55: values -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "match"),
    [
        ("--link", "awgn:snr=3", "its keys are: snr_db, bandwidth_hz, share"),
        ("--link", "awgn:snr_db=inf", "snr_db"),
        ("--link", "awgn:bandwidth_hz=-1", "bandwidth_hz"),
        ("--link", "awgn:share=2", "share"),
        ("--link", "awgn:snr_db=loud", "a number (float) is needed"),
        ("--link", "wire", "there are: awgn, fading, trace"),
        ("--link", "", "has no name"),
        ("--link", "trace", "needs a value for 'path'"),
        ("--link", "trace:/nowhere/trace.csv", "/nowhere/trace.csv"),
        ("--policy", "fit:rank=3", "its keys are: bits, margin"),
        ("--policy", "fit:bits=5", "allowed: 2, 3, 4, 6, 8, 16"),
        ("--policy", "best", "adalora, airllm, fit, fixed, flood, greedy, ppo, random, uniform"),
        ("--policy", "uniform:rank=-1", "must be at least 0"),
        ("--policy", "adalora:warmup=0.7,final=0.7", "sum to less than 1"),
        ("--task", "translate", "allowed: auto, classify, lm"),
        ("--rounds", "0", "rounds is 0"),
        ("--batch-size", "-3", "batch_size is -3"),
        ("--deadline-s", "nan", "deadline_s is nan"),
        ("--round-period-s", "0.5", "shorter than deadline_s"),
        ("--lr", "fast", "lr is 'fast'"),
        ("--lr", "-1", "lr is -1"),
        ("--device", "tpu", "allowed: auto, cpu, cuda"),
        ("--seed", "-1", "seed is -1"),
        ("--data", "builtin:vehicle-commands,size=3", "its keys are: noise, vocabulary, seed, train, validation, test"),
        ("--data", "builtin:vehicle-logs,characters=10", "give 20000 or more"),
    ],
)
def test_impossible_values(option: str, value: str, match: str, refused: Callable[..., str]) -> None:
    assert match in refused(option, value)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "cannot be read"),
        ("rounds = ", "cannot be read"),
        ("speed = 3", "has no key 'speed'; its keys are: model, data"),
        ("rounds = 'many'", "rounds is 'many'"),
        ("[run]\nrounds = 3", "has no key 'run'"),
        ("targets = ['q_proj', 'v_proj']", "targets is ['q_proj', 'v_proj']; str is needed"),
    ],
)
def test_configuration_files(content: str | None, match: str, refused: Callable[..., str], tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run.toml").write_text(content)
    assert match in refused("--config", tmp_path / "run.toml")


@pytest.mark.slow
def test_options_win_over_the_file(command: Run, tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('rounds = 7\nseed = 5\nlr = 0.001\npolicy = "uniform:rank=1"\n')
    out = tmp_path / "run"
    code, shown, err = command("run", "--out", out, "--config", tmp_path / "run.toml", *TINY)
    assert (code, err) == (0, "")
    assert "AirLoRA run" in shown
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["rounds"], summary["seed"], summary["lr"]) == (2, 5, 0.001)


# --- 56: output folder ----------------------------------------------------------------------------


def test_output_folders_that_cannot_be_used(command: Run, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    file = tmp_path / "file"
    file.write_text("mine")
    for out, options, match in (
        (full, (), "is not empty; name another, or add --resume"),
        (full, ("--resume",), "holds no run to resume"),
        (tmp_path / "none", ("--resume",), "holds no run to resume"),
        (file, (), "is a file"),
        (file, ("--resume",), "holds no run to resume"),
        (file / "below", TINY, "is not writable"),
    ):
        before = contents(tmp_path)
        code, _, err = command("run", "--out", out, *options)
        assert (code, err.count("\n")) == (2, 1), err
        assert match in err
        assert contents(tmp_path) == before
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_an_output_folder_without_permission(command: Run, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    code, _, err = command("run", "--out", tmp_path / "locked" / "run", *TINY)
    assert (code, err.count("\n")) == (2, 1)
    assert "is not writable" in err


def test_resume_takes_no_other_option(command: Run, finished: Path, tmp_path: Path) -> None:
    before = contents(finished)
    for options in (("--rounds", "9"), ("--config", tmp_path / "x.toml")):
        code, _, err = command("run", "--out", finished, "--resume", *options)
        assert (code, err.count("\n")) == (2, 1)
        assert "give --out and --resume alone" in err
    assert contents(finished) == before


# --- 51, 57: training that diverges, and Ctrl-C ---------------------------------------------------


@pytest.mark.slow
def test_training_that_diverges_is_one_line(command: Run, tmp_path: Path) -> None:
    code, _, err = command("run", "--out", tmp_path / "run", *TINY, "--steps-per-round", "4", "--lr", "1e20")
    assert (code, err.count("\n")) == (1, 1)
    assert "lower --lr" in err
    assert (tmp_path / "run" / "config.toml").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(("where", "kept"), [("on_start", 0), ("on_step", 0), ("on_round", 1)])
def test_ctrl_c_keeps_the_rounds(
    where: str, kept: int, command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import airlora.progress

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(airlora.progress.ProgressBar, where, interrupt)
        code, _, err = command("run", "--out", out, *TINY)
    assert (code, err.count("\n")) == (130, 1)
    assert f"{kept} rounds are kept: continue with --out {out} --resume" in err
    code, shown, err = command("run", "--out", out, "--resume")
    assert (code, err) == (0, "")
    assert "AirLoRA run" in shown
    assert len((out / "rounds.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
def test_ctrl_c_before_anything_was_written(command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("airlora.run.build_job", interrupt)
    code, _, err = command("run", "--out", tmp_path / "run", *TINY)
    assert (code, err.count("\n")) == (130, 1)
    assert "give the command again" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_sigint_to_the_process(tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = [*TINY, "--rounds", "600"]
    process = subprocess.Popen(
        [sys.executable, "-m", "airlora", "run", "--out", str(out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    rows = out / "rounds.jsonl"
    end = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < end and not (rows.is_file() and rows.stat().st_size):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.count("\n")) == (130, 1), err
    assert "rounds are kept" in err
    done = len(rows.read_text().splitlines())
    assert 0 < done < 600
    text = (out / "config.toml").read_text()
    (out / "config.toml").write_text(text.replace("rounds = 600", f"rounds = {done + 1}"))  # enough to see it go on
    again = subprocess.run(
        [sys.executable, "-m", "airlora", "run", "--out", str(out), "--resume"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (again.returncode, again.stderr) == (0, "")
    assert [json.loads(line)["round"] for line in rows.read_text().splitlines()] == list(range(done + 1))


# --- the base install, and who may import whom ----------------------------------------------------

EXTRAS = ("torch", "transformers", "peft", "pandas", "pyarrow", "matplotlib", "datasets")


def without_extras(code: str) -> subprocess.CompletedProcess[str]:
    block = f"import sys\nfor name in {EXTRAS!r}:\n    sys.modules[name] = None\n"
    return subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True, check=False)


def test_the_base_install_imports_codec_link_and_command_line() -> None:
    done = without_extras(
        "import airlora, airlora.codec, airlora.link, airlora.factors, airlora.config, airlora.cli\n"
        "sys.argv = ['airlora', '--help']\nairlora.cli.main()\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: airlora" in done.stdout


@pytest.mark.slow
def test_the_base_install_inspects_an_update(finished: Path) -> None:
    update = finished / "updates" / "round-0000.safetensors"
    done = without_extras(
        f"import airlora.cli\nsys.argv = ['airlora', 'inspect', {str(update)!r}]\nairlora.cli.main()\n"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "layers" in done.stdout


def test_the_base_install_says_what_a_run_needs(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = without_extras(
        f"import airlora.cli\nsys.argv = ['airlora', 'run', '--out', {str(out)!r}]\nairlora.cli.main()\n"
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "pip install 'airlora[train]'" in done.stderr
    assert not out.exists()


def imports_of(file: Path, top_level_only: bool = False) -> set[str]:
    """Modules that a file imports, inside functions too; ``from a import b`` counts as ``a`` and ``a.b``."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute here"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


HEAVY = ("torch", "transformers", "peft")
DOORS = tuple(f"airlora.{door}" for door in ("run", "compare", "report", "cli", "progress", "env", "__main__"))
MUST_NOT_KNOW: dict[str, tuple[str, ...]] = {  # DESIGN's room table
    "codec": (*HEAVY, *(f"airlora.{room}" for room in ("link", "policy", "workload", "adapter")), *DOORS),
    "link": (*HEAVY, *(f"airlora.{room}" for room in ("codec", "policy", "workload", "adapter", "factors")), *DOORS),
    "workload": (*(f"airlora.{room}" for room in ("link", "policy", "codec", "adapter")), *DOORS),
    "adapter": (*(f"airlora.{room}" for room in ("codec", "link", "policy")), *DOORS),
    "policy": (
        *("transformers", "peft", "socket", "airlora.adapter"),
        *(f"airlora.workload.{module}" for module in ("base", "models", "classify", "lm", "data", "builtin")),
        *DOORS,
    ),
    "report": (*HEAVY, "airlora.run", "airlora.compare", "airlora.cli", "airlora.job", "airlora.adapter"),
}
MAY_KNOW = {  # door -> those who may open it
    "airlora.run": ("run", "progress", "compare", "cli"),
    "airlora.progress": ("progress", "cli"),
    "airlora.compare": ("compare", "cli"),
    "airlora.report": ("report", "run", "progress", "compare", "cli"),
    "airlora.cli": ("cli", "__main__"),
}


@pytest.mark.parametrize("room", MUST_NOT_KNOW)
def test_a_room_does_not_import_what_it_must_not_know(room: str) -> None:
    files = sorted((SOURCE / room).rglob("*.py"))
    assert files
    for file in files:
        wrong = {module for module in imports_of(file) if within(module, *MUST_NOT_KNOW[room])}
        assert not wrong, f"{file.relative_to(SOURCE)} imports {sorted(wrong)}"


@pytest.mark.parametrize("door", MAY_KNOW)
def test_nobody_imports_a_door_but_other_doors(door: str) -> None:
    for file in sorted(SOURCE.rglob("*.py")):
        first = file.relative_to(SOURCE).parts[0].removesuffix(".py")
        if first not in MAY_KNOW[door]:
            wrong = {module for module in imports_of(file) if within(module, door)}
            assert not wrong, f"{file.relative_to(SOURCE)} imports {sorted(wrong)}"


def test_the_base_modules_import_base_packages_at_the_top() -> None:
    base = {"numpy", "safetensors", "constriction", "tomli_w", "typer", "click", "rich", "airlora"}
    base |= set(sys.stdlib_module_names)
    files = [*(SOURCE / "codec").rglob("*.py"), *(SOURCE / "link").rglob("*.py")]
    names = (
        "__init__",
        "__main__",
        "adapterfile",
        "cli",
        "cli_inspect",
        "config",
        "errors",
        "extras",
        "factors",
        "spec",
    )
    files += [SOURCE / f"{name}.py" for name in (*names, "updates")]
    for file in files:
        foreign = {module.split(".")[0] for module in imports_of(file, top_level_only=True)} - base
        assert not foreign, f"{file.relative_to(SOURCE)} imports {sorted(foreign)}"
