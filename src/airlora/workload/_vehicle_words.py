"""The words of ``builtin:vehicle-commands``, each list from common to rare.

A text of narrow vocabulary draws from the front of each list.
"""

from __future__ import annotations

from airlora.workload.grammar import alternatives

ACTION_SLOTS = {
    name: alternatives(text)
    for name, text in {
        "raise": "turn up | raise | increase | bump up | crank up | boost | push up | step up | lift | dial up",
        "lower": """
            turn down | lower | decrease | reduce | bring down | drop | cut back | dial down | ease off | tone down""",
        "enable": "turn on | switch on | start | activate | enable | engage | put on | fire up | power up",
        "disable": "turn off | switch off | stop | deactivate | disable | shut off | kill | end | power down | cut",
        "opens": "open | lower | roll down | crack open | slide down | let down | wind down",
        "unlatch": "open | pop open | release | undo | unlatch | swing open",
        "slide": "open | slide open | slide back | crack open | pop open | move back",
        "closes": "close | shut | roll up | wind up | seal | put up | pull up | bring up",
        "abort": "cancel | stop | end | abort | drop | forget | quit | terminate | scrap | call off",
        "wish": "I want to | let me | I would like to | I need to | I am going to | we want to",
        "need": "I need | I want | give me | we need | get me | I would like",
        "tell": "tell me | show me | what is | show | give me | check | read out",
        "must": "should | must | shall",
        "seek": "find | look for | search for | get | show me | I need",
        "move": "go to | jump to | move to | switch to | change to",
        "dial": "make | start | place | begin",
        "put": "set | put | change | switch",
    }.items()
}
"""Verbs and openings: another choice makes another template."""

SLOTS = {
    name: alternatives(text)
    for name, text in {
        "side": """
            driver | passenger | left | right | rear | front | rear left | rear right | back | offside | nearside |
            second row""",
        "amount": """
            a bit | a little | a lot | by two | slightly | by three steps | a touch | a notch | quite a bit |
            by ten percent""",
        "place": """
            home | work | the airport | the station | the supermarket | the city centre | the hospital | the hotel |
            the stadium | the harbour | Baker Street | the ski resort | my dentist | the pharmacy |
            the nearest beach | the garden centre | the ferry terminal | Maple Avenue""",
        "person": """
            Anna | Tom | mum | dad | my boss | the office | Doctor Klein | my sister | Ravi | the school | Beatrix |
            my landlord | uncle Joseph | Ms Okafor | the plumber | Giovanni""",
        "music": """
            some jazz | the Beatles | my playlist | rock music | something calm | the new album | classical music |
            a podcast | hip hop from the nineties | Vivaldi | the audiobook | bossa nova | Scandinavian folk |
            a lullaby""",
        "station": """
            BBC One | ninety five point five | the news channel | Radio Nova | the jazz station | FM four |
            Antenna Bavaria""",
        "track": "song | track | title | tune | piece | number",
        "degrees": "twenty | twenty one | 19 | 22 | eighteen | 23.5 | seventeen and a half | 25",
        "speed": "100 | 80 | 120 | ninety | a hundred and ten | 65 | seventy | fifty five",
        "percent": "eighty | ninety | 100 | seventy | 60 | ninety five | half",
        "soon": "now | right away | immediately | when you can | straight away | as soon as possible | this instant",
        "because": """
            it is freezing | it is boiling | I am late | the kids are asleep | it is raining | it smells in here |
            I cannot concentrate | we are nearly there | my hands are full | the sun is low""",
        "prelude": """
            | please | hey car | listen | excuse me | okay computer | hello there | one more thing | right then |
            I say | attention | by the way | good morning""",
        "coda": """
            |  | please | thanks | {soon} | , because {because} | if possible | before the next exit |
            , thank you very much | once we have left the motorway""",
    }.items()
}
"""Everything else, and the polite frame around a command: filled anew in every text."""
