"""``builtin:vehicle-logs``: workshop and diagnostic log text over a fixed, invented body of knowledge.

Every fault code belongs to one component, symptom, cause, remedy, limit, part number and supplier. The
language model has to learn the style of the log, which is little, and the facts, which are many.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from functools import cache

from airlora.workload.grammar import alternatives, expand, pick, shuffled

FAULTS = 160
SPLIT_SHARES = {"train": 0.9, "validation": 0.05, "test": 0.05}

_SYSTEMS = alternatives("BRK | ENG | BAT | CLM | STR | SUS | TRN | BDY | LGT | RAD")
_SIDES = alternatives("left | right | front | rear | upper | lower | main | spare | inner | outer")
_PARTS = alternatives("""
    coolant pump | brake caliper | wheel sensor | fuel valve | battery cell | charge relay | steering rack |
    damper strut | gear actuator | door latch | lamp driver | radar head | oil filter | heater coil | air compressor |
    drive belt""")
_SYMPTOMS = alternatives("""
    rattles when cold | drops its signal | overheats on long hills | leaks at the seal | sticks after rain |
    draws too much current | answers late | vibrates above idle | loses pressure overnight | reads zero at rest |
    squeals under load | trips the fuse | resets without warning | smells of burnt plastic""")
_CAUSES = alternatives("""
    a corroded contact | a worn bearing | a cracked housing | a loose ground strap | old firmware | a swollen gasket |
    a bent bracket | water in the plug | a broken shield wire | a blocked hose | a tired spring | a missing clip""")
_REMEDIES = alternatives("""
    replace the unit | flash the controller | clean the contacts | renew the seal | bleed the circuit |
    tighten the strap | swap the harness | grease the bearing | recalibrate the offset | flush the line |
    straighten the bracket | fit a new clip""")
_QUANTITIES = (
    ("bar", 2, 90),
    ("volts", 9, 48),
    ("amps", 3, 60),
    ("degrees", 40, 140),
    ("newton metres", 8, 180),
    ("ohms", 15, 990),
)
_SUPPLIERS = alternatives(
    "Harlan | Mobex | Teuto | Kirin Parts | Ostwald | Velar | Quint | Sandoval | Brightway | Norrby"
)

_SENTENCES = alternatives("""
    fault {code} points to the {component} . | {code} : {component} {symptom} . |
    the {component} {symptom} , code {code} {seen} . | cause of {code} was {cause} . |
    when the {component} {symptom} , look for {cause} . | {cause} on the {component} {seen} . |
    remedy for {code} : {remedy} . | {who} had to {remedy} at the {component} . |
    after {code} we {remedy} and test . | limit for {code} is {limit} . | the {component} must stay below {limit} . |
    measured {limit} at the {component} , {verdict} . | ordered part {part} for the {component} . |
    part {part} from {supplier} clears {code} . | {who} fitted {part} , {code} {gone} . |
    {supplier} delivers the {component} as {part} . | {code} again , {cause} , so {remedy} . |
    bin {bin} holds {part} for {code} . | {who} asked {supplier} about {code} , answer : {remedy} . |
    no {part} in stock , {supplier} sends it {when} . | {component} replaced {when} , limit {limit} kept . |
    {symptom} : typical of {code} with {cause} .""")
_STYLE = {
    name: alternatives(text)
    for name, text in {
        "seen": "seen again | found on arrival | stored twice | reported by the driver | confirmed on the lift",
        "who": "technician | shift lead | the apprentice | night crew | bay {digit}",
        "verdict": "within limit | above limit | borderline | no change",
        "gone": "gone | cleared | did not return | still pending",
        "when": "today | tomorrow | on monday | before noon | next shift | this week",
        "digit": "1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9",
        "opening": """
            unit {digit}{digit} in bay {digit} . | vehicle {digit}{digit}{digit} , {when} . |
            job {digit}{digit}{digit} opened . | tow-in , bay {digit} . |
            routine check , vehicle {digit}{digit}{digit} .""",
        "closing": "job closed . | released to the driver . | test drive fine . | hold for parts . | handed to {who} .",
    }.items()
}


@dataclass(frozen=True)
class Fault:
    """What the body of knowledge says about one fault code."""

    code: str
    component: str
    symptom: str
    cause: str
    remedy: str
    limit: str
    part: str
    supplier: str
    bin: str


@cache
def faults() -> tuple[Fault, ...]:
    """The fixed body of knowledge: ``FAULTS`` faults, each with a code and a component of its own."""
    rng = random.Random("vehicle-logs")
    components = shuffled((f"{side} {part}" for side in _SIDES for part in _PARTS), rng)[:FAULTS]
    codes = shuffled((f"{system}-{number}" for system in _SYSTEMS for number in range(100, 1000)), rng)[:FAULTS]
    out = []
    for code, component in zip(codes, components, strict=True):
        unit, low, high = pick(_QUANTITIES, rng)
        part = f"{pick('ABCDEFGH', rng)}{pick(range(10, 100), rng)}.{pick(range(100, 1000), rng)}"
        out.append(
            Fault(
                code=code,
                component=component,
                symptom=pick(_SYMPTOMS, rng),
                cause=pick(_CAUSES, rng),
                remedy=pick(_REMEDIES, rng),
                limit=f"{pick(range(low, high), rng)} {unit}",
                part=part,
                supplier=pick(_SUPPLIERS, rng),
                bin=f"{pick('PQRSTUVW', rng)}{pick(range(1, 60), rng)}",
            )
        )
    return tuple(out)


def vehicle_logs(seed: int = 0, characters: int = 400_000) -> dict[str, str]:
    """Contiguous log text by split; the facts are the same in all, and no record is.

    Args:
        seed: of every draw; the facts do not depend on it.
        characters: length of all splits together, at least 20 000; 90 % train, 5 % validation, 5 % test.

    Returns:
        Text by split name, one record a line.

    Raises:
        ValueError: fewer characters than that.
    """
    check_logs(characters)
    rng = random.Random(f"vehicle-logs {seed}")
    seen: set[str] = set()
    out = {}
    for split, share in SPLIT_SHARES.items():
        records, length = [], 0
        while length < share * characters:
            record = _record(rng)
            if record not in seen:
                seen.add(record)
                records.append(record)
                length += len(record) + 1
        out[split] = "\n".join(records)[: int(share * characters)]
    return out


def check_logs(characters: int) -> None:
    """Raise ValueError unless ``vehicle_logs`` can be generated at this length."""
    if characters < 20_000:
        raise ValueError(f"characters={characters} leaves splits too short to measure; give 20000 or more")


def _record(rng: random.Random) -> str:
    known = faults()
    # codes come up unevenly, as faults do: the square favours the front of the list
    fault = known[int(len(known) * rng.random() ** 1.5)]
    slots = _STYLE | {name: (value,) for name, value in asdict(fault).items()}
    count = 3 + int(rng.random() * 4)
    body = shuffled(_SENTENCES, rng)[:count]
    edges = ("{opening}" if rng.random() < 0.5 else "", "{closing}" if rng.random() < 0.5 else "")
    return expand(" ".join((edges[0], *body, edges[1])), slots, rng)
