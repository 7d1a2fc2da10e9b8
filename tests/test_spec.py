"""SPECs: name:first,key=value."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from airlora.errors import SpecError
from airlora.spec import build, split_spec


@dataclass(frozen=True)
class Thing:
    kind: ClassVar[str] = "not a key"

    path: Path
    count: int = 3
    rate: float | None = None
    mode: Literal["slow", "fast"] = "slow"
    loud: bool = False
    note: str | None = None
    derived: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError(f"count={self.count} must be at least 0")
        if self.count > 9:
            raise SpecError(f"count is {self.count}; 0 to 9 are allowed")


@dataclass(frozen=True)
class Empty:
    pass


THINGS = {"thing": Thing, "empty": Empty}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fit", ("fit", None, {})),
        ("fit:", ("fit", None, {})),
        (" fit : bits = 4 , margin=0.5 ", ("fit", None, {"bits": "4", "margin": "0.5"})),
        ("trace:/a/b:c.csv", ("trace", "/a/b:c.csv", {})),
        ("trace: a.csv ,unit=Mbps", ("trace", "a.csv", {"unit": "Mbps"})),
        ("trace:path=a=b.csv", ("trace", None, {"path": "a=b.csv"})),
        ("x:key=", ("x", None, {"key": ""})),
    ],
)
def test_split(text: str, expected: tuple[str, str | None, dict[str, str]]) -> None:
    assert split_spec(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no name"),
        (":a=1", "has no name"),
        ("x:a=1,a=2", "gives 'a' twice"),
        ("x:a=1, a=2", "gives 'a' twice"),
        ("x:a=1,2", "'2' is not key=value"),
        ("x:1,2", "'2' is not key=value"),
        ("x:,a=1", "'' is not key=value"),
        ("x:a=1,", "'' is not key=value"),
    ],
)
def test_split_refuses(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        split_spec(text)
    assert message in str(caught.value)


def test_values_are_converted_by_their_annotation() -> None:
    thing = build(THINGS, "thing:a/b.csv,count=7,rate=1e3,mode=fast,loud=True,note=x", "thing")
    assert thing == Thing(Path("a/b.csv"), 7, 1000.0, "fast", True, "x")
    assert build(THINGS, "thing:path=p", "thing") == Thing(Path("p"))
    assert build(THINGS, "empty", "thing") == Empty()


@pytest.mark.parametrize("word", ["none", "auto", "None"])
def test_an_optional_value_may_be_none_or_auto(word: str) -> None:
    thing = build(THINGS, f"thing:p,rate={word},note={word}", "thing")
    assert (thing.rate, thing.note) == (None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other", "unknown thing 'other'; there are: empty, thing"),
        ("thing", "needs a value for 'path'; its keys are: path, count, rate, mode, loud, note"),
        ("thing:p,speed=1", "has no key 'speed'; its keys are: path, count, rate, mode, loud, note"),
        ("thing:p,derived=1", "has no key 'derived'"),
        ("thing:p,kind=1", "has no key 'kind'"),
        ("thing:p,path=q", "gets 'path' twice: 'p' and 'q'"),
        ("thing:p,count=1.5", "count is '1.5'; a number (int) is needed"),
        ("thing:p,count=none", "count is 'none'; a number (int) is needed"),
        ("thing:p,rate=fast", "rate is 'fast'; a number (float) is needed"),
        ("thing:p,mode=quick", "mode is 'quick'; allowed: slow, fast"),
        ("thing:p,loud=1", "loud is '1'; allowed: true, false"),
        ("thing:p,count=-1", "count=-1 must be at least 0"),
        ("thing:p,count=10", "count is 10; 0 to 9 are allowed"),
        ("empty:1", "'empty' takes no value, found '1'"),
        ("empty:a=1", "'empty' has no key 'a'; its keys are: none"),
    ],
)
def test_build_refuses(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(THINGS, text, "thing")
    assert message in str(caught.value)
