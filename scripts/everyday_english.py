"""The corpus that ``builtin:tiny-opt`` is pretrained on: everyday English from a grammar of our own.

Home, office, weather, travel, cooking, shopping, school, health, animals, stories, dialogue, questions,
requests and numbers; nothing about commanding a vehicle. Not shipped in the package: only
``pretrain_tiny_opt.py`` and the model's test need it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from airlora.workload.grammar import alternatives, expand, misspell

_SLOTS = {
    name: alternatives(text)
    for name, text in {
        "name": """
            Anna | Tom | Maria | Peter | Lucy | James | Nina | Oliver | Sara | David | Emma | Paul | Julia | Mark |
            Clara | Ben | Sophie | Henry | Alice | Daniel | Laura | Simon | Helen | Max | Rosa | Felix""",
        "kin": """
            mother | father | sister | brother | aunt | uncle | grandmother | grandfather | cousin | son | daughter |
            wife | husband | neighbour | friend | teacher | boss | colleague""",
        "person": "{name} | {name} | my {kin} | her {kin} | the {job} | a {age} {who} | {name} and {name}",
        "who": "man | woman | boy | girl | child | student | traveller | visitor",
        "age": "young | old | tall | quiet | cheerful | tired | busy | clever | polite | nervous | patient",
        "job": """doctor | nurse | baker | farmer | writer | painter | lawyer | cook | waiter | teacher | gardener |
            engineer | manager | singer | postman | librarian | plumber | tailor | pilot | fisherman""",
        "room": """
            kitchen | living room | bedroom | bathroom | garden | cellar | attic | hall | garage | balcony | office |
            library | classroom""",
        "furniture": """
            table | chair | shelf | sofa | lamp | bed | cupboard | mirror | carpet | desk | drawer | window | door |
            curtain | stove | fridge | sink | heater""",
        "thing": """
            book | letter | key | bag | box | cup | plate | bottle | coat | hat | umbrella | phone | radio | clock |
            picture | pencil | knife | basket | blanket | ticket | newspaper | camera | guitar | ball | candle | map""",
        "things": """
            books | letters | keys | bags | boxes | cups | plates | bottles | shoes | gloves | flowers | apples |
            papers | pictures | tickets | toys | stones | coins | photos | chairs""",
        "colour": "red | blue | green | yellow | white | black | brown | grey | orange | purple | pink",
        "quality": """small | big | old | new | heavy | light | beautiful | broken | clean | dirty | expensive | cheap |
            strange | soft | round | empty | full | wooden | warm | cold""",
        "food": """bread | soup | rice | cheese | salad | fish | chicken | cake | pasta | porridge | pancakes | stew |
            omelette | pie | sandwiches | noodles | potatoes | beans""",
        "ingredient": """flour | sugar | salt | butter | onions | garlic | tomatoes | eggs | milk | pepper | carrots |
            mushrooms | lemon juice | olive oil | honey | cream | apples | spinach""",
        "drink": "tea | coffee | water | milk | juice | lemonade | hot chocolate",
        "place": """
            park | market | station | school | hospital | museum | library | beach | bakery | bank | church | forest |
            river | lake | village | harbour | theatre | cinema | restaurant | hotel | post office | zoo | airport""",
        "city": """
            London | Paris | Rome | Berlin | Madrid | Vienna | Oslo | Lisbon | Dublin | Athens | Prague | Boston |
            Chicago | Toronto | Tokyo | Cairo""",
        "animal": "dog | cat | horse | bird | rabbit | fox | mouse | cow | sheep | duck | owl | bear | squirrel | frog",
        "day": "Monday | Tuesday | Wednesday | Thursday | Friday | Saturday | Sunday",
        "month": """January | February | March | April | May | June | July | August | September | October | November |
            December""",
        "season": "spring | summer | autumn | winter",
        "daypart": "morning | afternoon | evening | night",
        "when": """
            yesterday | today | tomorrow | last {day} | next {day} | on {day} | in the {daypart} | in {month} |
            last week | next month | at {clock} | after lunch | before dinner | every {day} | this {daypart} |
            {number} days ago""",
        "past": "yesterday | last {day} | last week | in {month} | {number} days ago | one {daypart} | this {daypart}",
        "future": "tomorrow | next {day} | next week | in {number} days | this {daypart} | soon | at {clock}",
        "clock": "{hour} o'clock | half past {hour} | quarter to {hour} | noon | midnight | {digit}:{minute}",
        "hour": "one | two | three | four | five | six | seven | eight | nine | ten | eleven | twelve",
        "minute": "00 | 05 | 10 | 15 | 20 | 30 | 40 | 45 | 50",
        "digit": "1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9",
        "number": """
            two | three | four | five | six | seven | eight | nine | ten | twelve | fifteen | twenty | thirty |
            forty | fifty | a hundred""",
        "count": "{digit} | {digit}{digit} | {digit}0 | {digit}00 | {digit}{digit}{digit}",
        "weather": "sunny | rainy | cloudy | windy | foggy | snowy | stormy | hot | cold | mild | humid | dry",
        "weathers": "rain | snow | wind | fog | sunshine | thunder | hail | frost",
        "feeling": """
            happy | sad | angry | tired | proud | afraid | surprised | bored | excited | lonely | calm | worried |
            hungry | thirsty | curious | grateful""",
        "adverb": """
            slowly | quickly | quietly | carefully | happily | suddenly | gently | loudly | often | always | never |
            usually | rarely | finally | already | together""",
        "goes": "went | walked | ran | drove | cycled | hurried | travelled | moved | returned | flew",
        "acts": "{did} {object}",
        "did": """
            found | bought | sold | lost | carried | opened | closed | cleaned | painted | repaired | broke | hid |
            borrowed | washed | dropped | forgot | took | brought | showed | wanted | liked | needed""",
        "do": """
            find | buy | sell | carry | open | close | clean | paint | repair | hide | borrow | wash | forget | take |
            bring | show | move | check | keep | share""",
        "doing": """
            finding | buying | selling | carrying | opening | closing | cleaning | painting | repairing | hiding |
            borrowing | washing | moving | checking""",
        "object": """
            the {thing} | a {quality} {thing} | the {colour} {thing} | {number} {things} | some {food} |
            the {furniture} | her {thing} | his {quality} {thing} | a {thing} for {person} | the {quality} \
                {furniture}""",
        "where": """
            in the {room} | at the {place} | near the {place} | on the {furniture} | under the {furniture} |
            in {city} | behind the {furniture} | next to the {furniture} | in front of the {place} | at home | \
                outside""",
        "subject": """
            sport | music | history | science | art | the weather | the news | the price of {food} | the old {place} |
            the new {job} | the party | the holiday | the exam | the garden | the {animal}""",
        "hobby": """reading | swimming | dancing | cooking | painting | fishing | running | chess | football | tennis |
            gardening | photography | singing | knitting | hiking""",
        "body": "head | back | arm | leg | foot | hand | stomach | knee | throat | tooth | eye | ear",
        "subjects": "he | she | they | I | we | {person}",
        "task": """
            the report | the invoice | the meeting notes | the budget | the letter to the {job} | the presentation |
            the plan | the list of {things} | the contract | the schedule""",
        "reason": """it was {weather} | the {place} was closed | {person} was {feeling} | there was no {drink} left |
            the {thing} was broken | it was too late | the {animal} had run away | {name} had forgotten the {thing}""",
        "adjective": "good | bad | nice | terrible | interesting | easy | difficult | important | funny | quiet \
            | useful",
    }.items()
}

_TOPICS = {
    topic: tuple(line.strip() for line in text.strip().splitlines())
    for topic, text in {
        "home": """
            {name#1} (was|sat|stood|slept|waited) {where}.
            The {quality} {furniture} (stands|is|was) in the {room}.
            {name#1} {did} {object} and put it {where}.
            There (is|was) a {colour} {thing} {where}.
            In the {daypart}, {name#1} {did} {object}.
            Please {do} the {thing} and put it back {where}.
            We have to {do} the {furniture} before {person} comes home.
            The {room} is {quality}, but the {room} is {quality}.
            (Who|When did {name#1}|Why did {name#1}) {do} the {thing}?
            {name#1} turned (on|off) the (lamp|radio|heater|stove|light) in the {room}.
            My {kin} is {doing} the {furniture}.
            The {thing} that {name#1} {did} is {where}.
            It is (too warm|too cold|quite dark|very quiet) in the {room}.
            She looked for the {thing} {where}, but it was {where}.
            {name#1} has {number} {things} and a {quality} {thing}.
            The (roof|wall|floor) of the house is {colour} and {quality}.""",
        "office": """
            {name#1} has to finish {task} {future}.
            The meeting (starts|ends|begins) at {clock}.
            Our (boss|manager|team|customer) wants to see {task} {future}.
            {name#1} sent {task} to {name#2} {past}.
            Could you (send|show|print|read) me {task}, please?
            There are {count} (pages|people|emails|orders|mistakes) in {task}.
            The company sold {count} {things} in {month}.
            {name#2} (called|answered|thanked|invited) {name#1} {past}.
            I am sorry, but {name#1} is not in the office {when}.
            The printer is (broken|empty|new|on the second floor).
            We (discussed|changed|cancelled|accepted) {task} because {reason}.
            {name#1} works as a {job} in {city}.
            The {adjective} news is that {task} is (ready|late|finished|lost).
            If {name#2} agrees, we will (sign|change|send) {task} {future}.
            The price rose from {count} to {count} euros.""",
        "weather": """
            It (is|was|will be) {weather} and {weather} in {city}.
            {season} in {city} (is|was) {weather}.
            The (forecast|radio|newspaper) says that it will be {weather} {future}.
            There was (a lot of|some|no|heavy) {weathers} {past}.
            The temperature (rose|fell) to {digit} degrees in the {daypart}.
            Because of the {weathers}, {person} stayed {where}.
            Take an umbrella with you, it is going to (rain|snow) {future}.
            {name#1} likes {weather} days, but {name#2} likes {weathers}.
            After the {weathers} the {place} was {quality}.
            The sun (rises|sets) at {clock} in {month}.
            A {quality} wind came from the (north|south|east|west).
            The sky (turned|was|became) {colour} over the {place}.
            It has been {weather} for {number} days.
            What will the weather be like in {city} {future}?""",
        "travel": """
            {name#1} {goes} to the {place} {past}.
            The train to {city} leaves at {clock}.
            {name#1} and {name#2} travelled from {city} to {city} by (train|bus|boat|plane|bicycle).
            The {place} is {count} (metres|kilometres|miles) from the {place}.
            (Excuse me|Hello|Sorry), where is the {place}?
            Go straight on, turn (left|right) at the {place}, and you will see the {place}.
            We stayed in a {quality} hotel near the {place} for {number} nights.
            The tickets cost {count} euros, but {name#1} paid {count}.
            In {month} many people visit the {place} in {city}.
            The (flight|bus|boat) was {number} hours late because {reason}.
            {name#1} packed {number} {things}, a {thing} and a {colour} coat.
            They {goes} along the (river|coast|road) until {clock}.
            How (long|far) is it from {city} to {city}?
            {name#2} has never been to {city}, but {name#1} has been there {number} times.
            The (bridge|street|road) to the {place} was closed.""",
        "cooking": """
            {name#1} cooked {food} with {ingredient} and {ingredient}.
            (First|Then|Next|After that), add the {ingredient} and stir {adverb}.
            You need {count} grams of {ingredient} and {number} spoons of {ingredient}.
            Cut the {ingredient} into {quality} pieces.
            Bake the {food} for {number} minutes.
            The {food} (tastes|tasted|smells|smelled) {adjective}.
            Boil the {ingredient} in {quality} water for {count} minutes.
            Mix the {ingredient}, the {ingredient} and the {ingredient} in a {quality} bowl.
            {name#1} would like some {food} and a cup of {drink}.
            Serve the {food} with {ingredient} and a glass of {drink}.
            There is no {ingredient} left, so we will use {ingredient}.
            For {number} people you need {number} eggs.
            {name#2} does not like {food}, because there is {ingredient} in it.
            Put the {food} in the (oven|fridge|pan|pot) until it is (brown|cold|hot|soft|ready).
            What did {name#1} (eat|cook|have) for (breakfast|lunch|dinner)?""",
        "shopping": """
            {name#1} bought {object} at the {place} for {count} euros.
            How much (is|was) the {colour} {thing}?
            The {thing} costs {count} euros, and the {thing} costs {count}.
            This {thing} is too {quality}, do you have a {quality} one?
            The shop (opens|closes) at {clock} on {day}.
            I would like {number} {things} and some {food}, please.
            {name#1} paid with a {quality} coin.
            The {thing} was {quality}, so {name#1} brought it back {when}.
            On {day} everything at the market is {quality}.
            {name#2} sells {food}, {things} and {ingredient} {where}.
            Can I pay for the {thing} {future}?
            {name#1} needs a new {thing}, because the old one is {quality}.""",
        "school": """
            {name#1} is learning (English|French|Spanish|mathematics|history|music) at school.
            The teacher asked {name#2} a {adjective} question about {subject}.
            There are {number} students in the class of {name#1}.
            {name#1} wrote a {adjective} story about a {animal}.
            The exam is {future}, and {name#1} is {feeling}.
            {digit} plus {digit} is more than {digit}.
            {number} and {number} make a {adjective} number.
            {name#2} reads {number} pages every {daypart}.
            The lesson about {subject} was {adjective}.
            Please open your books on page {count}.
            Who (knows|can tell me|remembers) the answer?
            {name#1} {adverb} (forgets|does|copies|finishes) the homework.
            The {adjective} student sits next to the {furniture}.
            We learned that a {animal} can (swim|run|see|hear|sleep) {adverb}.""",
        "health": """
            {name#1} has a pain in the {body}.
            The doctor told {name#1} to (rest|drink {drink}|stay in bed|eat less {food}) for {number} days.
            My {body} hurts, because I fell {where}.
            {name#2} {goes} to the hospital {past}.
            You should (drink|sleep|walk|rest) more (often|every day|in the {daypart}).
            {name#1} takes {number} (pills|drops|spoons) every {daypart}.
            How do you feel (today|now|this {daypart})?
            I feel {feeling} and a little {feeling}.
            The nurse looked at the {body} of the {who}.
            After {number} hours of {hobby}, {name#1} was {feeling}.
            {hobby} is good for the {body} and the {body}.""",
        "animals": """
            The {colour} {animal} (lives|sleeps|hides|plays) {where}.
            A {quality} {animal} (ran|jumped|walked|crept) {adverb} to the {place}.
            {name#1} has a {animal} and {number} birds.
            The {animal} is more {quality} than the {animal}, said {name#1}.
            The {animal} was {feeling}, because the {animal} was {feeling}.
            Every {daypart} the {animal} waits for {name#1} {where}.
            The {animal} ate all the {food} {where}.
            Have you seen my {animal}? It is {colour} and {quality}.
            In {season} the {animal} looks for {food}.
            The {animal} and the {animal} are (friends|enemies|neighbours).
            {name#2} gave the {animal} some {drink} and some {food}.
            Nobody knows why the {animal} is so {feeling}.""",
        "story": """
            Once upon a time there was a {age#1} {who#1} who lived near the {place}.
            One {daypart} {name#1} found a {quality} {thing#1} {where}.
            {name#1} {goes} to the {place}, because {reason}.
            "Where is my {thing#1}?" asked {name#1}.
            "I do not know," said {name#2}, "but I saw it {where}."
            {name#2} was {feeling} and {adverb} {did} the {thing#1}.
            Suddenly the {animal#1} {goes} {where}.
            The {age#1} {who#1} {did} {object} and smiled.
            They {adverb} {did} {object}, and {name#2} was {feeling}.
            At {clock} it was dark, and only the {animal#1} was awake.
            {name#1} told the {job} about the {thing#1}.
            "Thank you," said the {animal#1}, "you are very (kind|brave|clever|strong)."
            From that day on, {name#1} and the {animal#1} were friends.
            In the end, the {thing#1} was {where}.
            When {name#1} opened the {thing#1}, there were {number} {things} inside.
            {name#2} (promised|decided|tried|hoped|began) to {do} the {thing#1}.
            But the {who#1} did not (hear|see|believe|understand) {name#2}.""",
        "plans": """
            {subjects} will {do} {object} {future}.
            {name#1} wants to {do} the {thing} {future}.
            I think that {name#1} {goes} to the {place}.
            We (could|should|might|must) {do} {object} {when}.
            Would you like to go to the {place} {future}?
            {name#1} is interested in {hobby} and {subject}.
            They talked about {subject} for {number} hours.
            If it is {weather} {future}, we will go to the {place}.
            {name#2} has been {doing} {object} since {clock}.
            Let us meet at the {place} at {clock}.
            {person} {acts} {past}, and {person} {acts} {past}.
            I have not (seen|met|heard from|called) {name#1} since {day}.
            {name#1} is more {age} than {name#2}, but {name#2} is more {feeling}.
            Either {name#1} or {name#2} {acts} {where}.
            Nobody {acts} {where}.
            {person} said that {person} {acts}.
            The {who} who {acts} is {feeling}.
            {person} {acts}, although {reason}.
            Before {name#1} {acts}, {name#2} {acts}.
            {hobby} is {adjective}, but {hobby} is more {adjective}.""",
    }.items()
}

_EXCHANGES = tuple(
    tuple(part.strip() for part in line.split("/"))
    for line in """
        Where did you {do} the {thing#1}? / I {did} the {thing#1} {where}. / That is {adjective}.
        What time is it? / It is {clock}. / Then we have to go to the {place}.
        How are you? / I am {feeling}, because {reason}. / I am {feeling} too.
        Who is {name#1}? / {name#1} is my {kin}, a {job} from {city}. / Is {name#1} {age}? / Yes, and {age} too.
        Do you like {food#1}? / (Yes, I like|No, I do not like) {food#1}, but I prefer {food}.
        Can you help me? / Of course, what do you need? / I need {object}.
        What is the weather like in {city#1}? / It is {weather} in {city#1}, and {weather} {where}.
        Where is the {place#1}? / The {place#1} is next to the {place}, {count} metres from here. / Thank you.
        How much is the {thing#1}? / The {thing#1} costs {count} euros. / That is too {quality}.
        When does the {place#1} open? / It opens at {clock} on {day}, but not on {day}.
        Did {name#1} {do} the {thing}? / No, {name#1} {did} the {thing}. / Why? / Because {reason}.
        What colour is the {thing#1}? / It is {colour} and {colour}. / And is it {quality}? / Yes, it is.
        What are you doing? / I am {doing} {object}. / Can I help you?
        Are you going to the {place#1} {future}? / Yes, with {name}. / No, {name} is {doing} the {thing}.
        Why is {name#1} {feeling}? / Because {reason}. / Oh, that is {adjective}.
        Would you like some {drink#1}? / Yes, please, and some {food}. / No, thank you, I do not drink {drink#1}.
        What did you eat {past}? / {food#1} with {ingredient}. / Was the {food#1} {adjective}? / It was {adjective}.
        How many {things#1} do you have? / I have {number} {things#1}, and {name} has {number}.
        Hello, this is {name#1}, may I speak to {name#2}? / {name#2} is not here {when}. / Then I will call {future}.
        What is your favourite season? / I like {season#1} best, because it is {weather}. / In {season#1} I \
            like {hobby}.
    """.strip().splitlines()
)

_REQUESTS = alternatives("""
    (please|could you|can you|would you) {do} the {thing} | {do} {object} (please|now|{future}|) |
    what is (in|on|under|behind) the {furniture} | I want to {do} {object} |
    tell me (about {subject}|a story|the time) | show me the (way|road) to the {place} |
    (wake me|call me|visit me) at {clock} | play some (music|{hobby}) with {name} |
    turn the (lamp|radio|heater|light) (on|off) | put the {thing} {where} | when is {name} coming {where} |
    I need {number} {things} {future} | find me a {quality} {thing} | is it {weather} in {city} |
    bring {name} the {colour} {thing} | do not {do} the {furniture} | let us go to the {place} |
    (I am|we are|they are) {feeling} | how do I {do} a {thing} | why is it so {quality} {where} |
    give the {animal} some {food} | read me the {thing} | stop {doing} {object} | which {thing} is {quality} |
    remember the {thing} {future} | it is too {weather} here | wait for {name} {where} |
    (open|close|shut) the {furniture}""")


def documents(seed: int, misspelt_share: float = 0.06) -> Iterator[str]:
    """Endless documents: a paragraph on one topic, a dialogue, or a short request.

    Args:
        seed: of every draw.
        misspelt_share: share of the documents with typing errors, 0 … 1.
    """
    rng = random.Random(seed)
    topics = list(_TOPICS)
    while True:
        kind = rng.random()
        bound: dict[str, str] = {}
        if kind < 0.6:
            sentences = _TOPICS[topics[int(rng.random() * len(topics))]]
            count = 1 + int(rng.random() * 6)
            text = " ".join(
                _capital(expand(sentences[int(rng.random() * len(sentences))], _SLOTS, rng, bound))
                for _ in range(count)
            )
        elif kind < 0.8:
            turns = _EXCHANGES[int(rng.random() * len(_EXCHANGES))]
            text = "\n".join("- " + _capital(expand(turn, _SLOTS, rng, bound)) for turn in turns)
        else:
            text = expand(_REQUESTS[int(rng.random() * len(_REQUESTS))], _SLOTS, rng, bound)
        if rng.random() < 0.2:
            text = text.lower()
        if rng.random() < misspelt_share:
            text = misspell(text, 0.15, rng)
        yield text


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
