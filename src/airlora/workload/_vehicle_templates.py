"""The wording of ``builtin:vehicle-commands``: templates of every intent, slots and polite frames.

Slots are ordered from common to rare: a text of narrow vocabulary draws from the front of each list.
Several intents share most of their words on purpose (temperature and volume, route and call, window
and trunk), so that they differ in one word that stands anywhere in the sentence.
"""

from __future__ import annotations

from airlora.workload.grammar import alternatives

SLOTS = {
    name: alternatives(text)
    for name, text in {
        "raise": "turn up | raise | increase | bump up | crank up | boost | push up | step up | lift | dial up",
        "lower": "turn down | lower | decrease | reduce | bring down | drop | cut back | dial down | ease off | tone down",
        "enable": "turn on | switch on | start | activate | enable | engage | put on | fire up | power up | get going",
        "disable": "turn off | switch off | stop | deactivate | disable | shut off | kill | end | power down | cut",
        "opens": "open | lower | roll down | crack open | slide open | pop open | let down | undo",
        "closes": "close | shut | roll up | wind up | seal | put up | pull up | bring up",
        "abort": "cancel | stop | end | abort | drop | forget | quit | terminate | scrap | call off",
        "side": """driver | passenger | left | right | rear | front | rear left | rear right | back | offside | nearside |
            second row""",
        "amount": "a bit | a little | a lot | by two | slightly | by three steps | a touch | a notch | quite a bit | by ten percent",
        "place": """home | work | the airport | the station | the supermarket | the city centre | the hospital | the hotel |
            the stadium | the harbour | Baker Street | the ski resort | my dentist | the pharmacy | the nearest beach |
            the garden centre | the ferry terminal | Maple Avenue""",
        "person": """Anna | Tom | mum | dad | my boss | the office | Doctor Klein | my sister | Ravi | the school | Beatrix |
            my landlord | uncle Joseph | Ms Okafor | the plumber | Giovanni""",
        "music": """some jazz | the Beatles | my playlist | rock music | something calm | the new album | classical music | a podcast |
            hip hop from the nineties | Vivaldi | the audiobook | bossa nova | Scandinavian folk | a lullaby""",
        "station": "BBC One | ninety five point five | the news channel | Radio Nova | the jazz station | FM four | Antenna Bavaria",
        "track": "song | track | title | tune | piece | number",
        "degrees": "twenty | twenty one | 19 | 22 | eighteen | 23.5 | seventeen and a half | 25",
        "speed": "100 | 80 | 120 | ninety | a hundred and ten | 65 | seventy | fifty five",
        "percent": "eighty | ninety | 100 | seventy | 60 | ninety five | half",
        "soon": "now | right away | immediately | when you can | straight away | as soon as possible | this instant",
        "because": """it is freezing | it is boiling | I am late | the kids are asleep | it is raining | it smells in here |
            I cannot concentrate | we are nearly there | my hands are full | the sun is low""",
        "prelude": """ | please | hey car | listen | excuse me | okay computer | hello there | one more thing | right then |
            I say | attention | by the way | good morning""",
        "coda": """ | | please | thanks | {soon} | , because {because} | if possible | before the next exit |
            , thank you very much | once we have left the motorway""",
    }.items()
}

_INTENTS = {
    "temperature_up": """
        {raise} the temperature {amount}
        {raise} the heat on the {side} side {amount}
        make it warmer in here
        it is too cold (in the car|in here|back here)
        I am (freezing|getting cold|shivering)
        set the temperature {amount} higher
        a higher temperature on the {side} seat
        more warmth (in the cabin|for the {side} side)
        warm up the (cabin|car|interior) {amount}
        the temperature should go up to {degrees} degrees
        let it get warmer, {degrees} degrees say
        the cabin is chilly, {raise} the climate setting""",
    "temperature_down": """
        {lower} the temperature {amount}
        {lower} the heat on the {side} side {amount}
        make it cooler in here
        it is too hot (in the car|in here|back here)
        I am (sweating|getting hot|boiling)
        set the temperature {amount} lower
        a lower temperature on the {side} seat
        less warmth (in the cabin|for the {side} side)
        cool down the (cabin|car|interior) {amount}
        the temperature should go down to {degrees} degrees
        let it get cooler, {degrees} degrees say
        the cabin is stuffy and warm, {lower} the climate setting""",
    "volume_up": """
        {raise} the volume {amount}
        {raise} the sound on the {side} speakers {amount}
        make it louder in here
        it is too quiet (in the car|in here|back here)
        I can hardly hear the (music|radio|song)
        set the volume {amount} higher
        a higher volume on the {side} speakers
        more sound (in the cabin|for the {side} side)
        the (music|radio) should be louder
        louder {amount}
        let the (song|radio) get louder
        I cannot hear it, {raise} the audio level""",
    "volume_down": """
        {lower} the volume {amount}
        {lower} the sound on the {side} speakers {amount}
        make it quieter in here
        it is too loud (in the car|in here|back here)
        the (music|radio|song) hurts my ears
        set the volume {amount} lower
        a lower volume on the {side} speakers
        less sound (in the cabin|for the {side} side)
        the (music|radio) should be quieter
        quieter {amount}
        let the (song|radio) get softer
        it is deafening, {lower} the audio level""",
    "fan_speed": """
        {raise} the fan {amount}
        {lower} the fan {amount}
        set the fan to level (two|three|four|five)
        more air from the {side} vents
        less air from the {side} vents
        the blower should run (faster|slower)
        change the fan speed {amount}
        blow (harder|softer) on the {side} side
        the air flow is too (strong|weak)
        fan level (one|two|six)
        adjust the blower on the {side} vents
        I need (more|less) air flow""",
    "seat_heating_on": """
        {enable} the seat heating on the {side} side
        heat my seat
        {enable} the {side} seat heater
        warm the {side} seat
        my seat is cold
        I would love a heated seat
        set the seat heating to level (one|two|three)
        the {side} seat should be heated
        seat heater (on|to full) for the {side} seat
        warm up the seats
        my back is cold, heat the {side} chair
        {enable} heating for the {side} seat cushion""",
    "defrost_on": """
        {enable} the defroster
        defrost the (windscreen|windshield)
        the windscreen is (foggy|fogged up|icy|frozen)
        clear the ice from the {side} window
        {enable} the {side} window heating
        I cannot see through the (windscreen|windshield)
        demist the {side} window
        get rid of the fog on the glass
        melt the ice on the windscreen
        {enable} demisting
        the glass is misting over
        defog the {side} window""",
    "open_window": """
        {opens} the {side} window
        {opens} the window {amount}
        {opens} all the windows
        window down on the {side} side
        let some fresh air in through the {side} window
        the {side} window should be open
        I want the {side} window open
        get the {side} window down
        {side} window halfway down
        give me an open window
        leave the {side} window open {amount}
        windows down {amount}""",
    "close_window": """
        {closes} the {side} window
        {closes} the window {amount}
        {closes} all the windows
        window up on the {side} side
        it is drafty, {closes} the {side} window
        the {side} window should be closed
        I want the {side} window closed
        get the {side} window up
        {side} window all the way up
        no open windows any more
        leave no window open
        windows up {amount}""",
    "open_trunk": """
        {opens} the trunk
        {opens} the boot {amount}
        {opens} the tailgate
        trunk open
        let me load my bags into the trunk
        the tailgate should be open
        I want the boot open
        get the trunk open
        {opens} the rear hatch
        give me an open tailgate
        I need to get at the luggage in the boot
        release the (trunk|boot|tailgate)""",
    "open_sunroof": """
        {opens} the sunroof
        {opens} the roof {amount}
        {opens} the glass roof
        sunroof open
        let some sky in through the roof
        the sunroof should be open
        I want the roof open
        get the sunroof open {amount}
        tilt the sunroof
        give me an open roof
        slide the panoramic roof back
        leave the sunroof open {amount}""",
    "lights_on": """
        {enable} the lights
        {enable} the headlights
        {enable} the {side} reading light
        it is dark, lights on
        I need the (headlights|fog lights|high beam)
        put the high beam on
        light up the {side} side
        {enable} the ambient lighting
        I cannot see the road, headlights on
        lights on in the (front|back|cabin)
        the {side} lamp should be on
        give me some light (in the back|on the {side} side)""",
    "lights_off": """
        {disable} the lights
        {disable} the headlights
        {disable} the {side} reading light
        it is bright, lights off
        I do not need the (headlights|fog lights|high beam)
        take the high beam off
        no more light on the {side} side
        {disable} the ambient lighting
        the lamp dazzles me, headlights off
        lights out in the (front|back|cabin)
        the {side} lamp should be off
        make it dark (in the back|on the {side} side)""",
    "wipers_on": """
        {enable} the wipers
        {enable} the windscreen wipers
        wipe the (windscreen|windshield|{side} window)
        there are drops on the windscreen, wipers on
        wipers (faster|on|to full speed)
        set the wipers to interval
        the rear wiper should run
        it is pouring, {enable} the wiper
        I need the wipers
        get the rain off the windscreen
        wash and wipe the {side} window
        clean the windscreen with the wipers""",
    "navigate_to": """
        (navigate|drive|take me|guide me) to {place}
        (start|set|plan|find) a route to {place}
        how do I get to {place}
        I want to go to {place}
        the destination is {place}
        show me the way to {place}
        directions to {place}
        set {place} as the destination
        we are going to {place}
        bring us to {place} (by the fastest route|)
        new route to {place}
        let us head for {place}""",
    "cancel_route": """
        {abort} the route
        {abort} the navigation
        {abort} the route to {place}
        {disable} the route guidance
        I do not want to go to {place} any more
        no more directions
        we are not going to {place}
        delete the destination {place}
        leave the route
        I know the way to {place}, {abort} the guidance
        remove {place} from the route
        the route to {place} is no longer needed""",
    "find_charger": """
        find a charging station
        where can I charge the car
        (show|find) the nearest charger
        is there a charger near {place}
        look for a fast charger on the route
        I need a charging point
        list the charging stations near {place}
        we need to charge on the way to {place}
        search for a free charger
        add a charging stop to the route
        take me to a charging station
        any charging points close to {place}""",
    "arrival_time": """
        when will we (arrive|be there)
        how long to {place}
        what is the arrival time
        how many minutes until {place}
        how far is it to {place}
        tell me the time of arrival
        are we at {place} soon
        when do we reach {place}
        what time will I be at {place}
        how much longer does the route take
        is there a delay on the way to {place}
        will I get to {place} in time""",
    "play_music": """
        play {music}
        put on {music}
        I want to hear {music}
        (start|begin) {music}
        let me listen to {music}
        I am in the mood for {music}
        how about {music}
        stream {music} on the {side} speakers
        {music} would be nice
        give us {music}
        find {music} and play it
        shuffle {music}""",
    "next_track": """
        next {track}
        skip this {track}
        play the next {track}
        I do not like this {track}
        go to the next {track}
        another {track}
        skip ahead
        jump over this {track}
        change the {track}
        not this {track} again
        move on to the following {track}
        the {track} after this one""",
    "radio_station": """
        tune to {station}
        switch the radio to {station}
        change the station to {station}
        put the radio on {station}
        I want to listen to {station} on the radio
        find {station} on the radio
        radio station {station}
        set the radio to {station}
        go to {station}
        the radio should play {station}
        is {station} on the radio
        select the station {station}""",
    "call_contact": """
        call {person}
        (ring|phone|dial) {person}
        make a call to {person}
        I need to speak to {person}
        get {person} on the phone
        give {person} a call
        start a call with {person}
        connect me with {person}
        I want to talk to {person}
        place a call to {person}
        dial the number of {person}
        let me phone {person}""",
    "cancel_call": """
        {abort} the call
        {abort} the phone call
        {abort} the call to {person}
        hang up
        I do not want to talk to {person} any more
        no more calls
        we are not calling {person}
        put the phone down
        leave the call
        I am done talking to {person}, {abort} the call
        hang up on {person}
        the call with {person} is no longer needed""",
    "read_messages": """
        read my messages
        read the message from {person}
        what did {person} write
        do I have new messages
        read out the last text
        any text from {person}
        what does the message say
        let me hear the message from {person}
        open my messages
        show the text from {person}
        has {person} sent me a message
        check my inbox""",
    "start_charging": """
        {enable} charging
        begin to charge the battery
        charge the car to {percent} percent
        {enable} the charging process
        charge up to {percent} percent
        charge the battery {soon}
        I have plugged in, begin charging
        the battery should be charged
        let the car charge
        fill the battery to {percent} percent
        resume charging
        charging on""",
    "stop_charging": """
        {disable} charging
        stop to charge the battery
        do not charge beyond {percent} percent
        {disable} the charging process
        {abort} charging at {percent} percent
        charge no more
        I want to unplug, stop charging
        the battery is charged enough
        let the car stop charging
        the battery has {percent} percent, that is enough
        interrupt charging
        charging off""",
    "range_left": """
        how much range is left
        how far can I drive with this battery
        what is the battery level
        how full is the battery
        will the battery last until {place}
        how many miles are left
        tell me the remaining range
        can I reach {place} with this charge
        show the battery level
        is the battery low
        how much charge is left
        does the range suffice for {place}""",
    "cruise_set": """
        {enable} cruise control
        set cruise control to {speed}
        hold the speed at {speed}
        keep {speed} miles per hour
        cruise at {speed}
        drive {speed} automatically
        {enable} adaptive cruise
        maintain a speed of {speed}
        set the speed to {speed}
        follow the car ahead
        the speed should stay at {speed}
        take over the pedals at {speed}""",
    "lane_assist_on": """
        {enable} lane assist
        {enable} the lane keeping assistant
        keep me in the lane
        help me stay in my lane
        hold the lane
        {enable} the steering assistant
        warn me when I leave the lane
        I need help with steering in the lane
        stay between the lines
        the lane assistant should be on
        watch the lane markings
        lane keeping on""",
    "park_assist": """
        park the car
        {enable} the parking assistant
        help me park
        find a parking space
        park for me (on the {side} side|)
        {enable} the parking sensors
        show me the parking camera
        back into this parking space
        steer into the space on the {side}
        I cannot get into this parking spot
        parallel park here
        park us near {place}""",
    "tyre_pressure": """
        check the tyre pressure
        how are the tyres
        what is the pressure in the {side} tyre
        is the {side} tyre flat
        show the tyre pressures
        do I need to pump up the {side} tyre
        the {side} tyre feels soft
        tell me the pressure of all tyres
        are the tyres low
        how much air is in the {side} tyre
        does the {side} wheel need air
        tyre status""",
    "explain_warning": """
        what does this warning light mean
        why is that light on in the dashboard
        explain the warning
        what is the (red|yellow|orange) symbol
        there is a (red|yellow|orange) light on the display
        is something wrong with the (engine|battery|brakes)
        read the fault code
        what is this error
        tell me about the warning message
        which fault does the car have
        why does the car beep
        can I drive on with this warning""",
    "lock_doors": """
        lock the doors
        lock the {side} door
        lock the car
        {closes} and lock the {side} door
        the doors should be locked
        make sure the {side} door is locked
        secure the car
        {enable} the central locking
        I want the doors locked
        keep the {side} door locked
        {enable} the child lock
        bolt the {side} door""",
    "unlock_doors": """
        unlock the doors
        unlock the {side} door
        unlock the car
        let {person} in through the {side} door
        the doors should be unlocked
        make sure the {side} door is not locked
        release the locks
        {disable} the central locking
        I want the doors unlocked
        do not keep the {side} door locked
        {disable} the child lock
        undo the lock of the {side} door""",
}

TEMPLATES: dict[str, tuple[str, ...]] = {
    intent: tuple(line.strip() for line in lines.strip().splitlines()) for intent, lines in _INTENTS.items()
}
"""Templates by intent; a text of one split never comes from a template of another (``vehicle_templates``)."""
