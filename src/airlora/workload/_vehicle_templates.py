"""The sentences of ``builtin:vehicle-commands``: lines of every intent.

Several intents share most of their words on purpose (temperature and volume, route and call, window
and trunk), so that they differ in one word that stands anywhere in the sentence.
"""

from __future__ import annotations

from airlora.workload.grammar import alternatives

LINES = {
    intent: alternatives(text)
    for intent, text in {
        "temperature_up": """
            {raise} the temperature {amount} | {raise} the heat on the {side} side {amount} | make it warmer in here |
            it is too cold (in the car|in here|back here) | I am (freezing|getting cold|shivering) |
            set the temperature {amount} higher | a higher temperature on the {side} seat |
            more warmth (in the cabin|for the {side} side) | warm up the (cabin|car|interior) {amount} |
            the temperature should go up to {degrees} degrees | let it get warmer, {degrees} degrees say |
            the cabin is chilly, {raise} the climate setting""",
        "temperature_down": """
            {lower} the temperature {amount} | {lower} the heat on the {side} side {amount} | make it cooler in here |
            it is too hot (in the car|in here|back here) | I am (sweating|getting hot|boiling) |
            set the temperature {amount} lower | a lower temperature on the {side} seat |
            less warmth (in the cabin|for the {side} side) | cool down the (cabin|car|interior) {amount} |
            the temperature should go down to {degrees} degrees | let it get cooler, {degrees} degrees say |
            the cabin is stuffy and warm, {lower} the climate setting""",
        "volume_up": """
            {raise} the volume {amount} | {raise} the sound on the {side} speakers {amount} | make it louder in here |
            it is too quiet (in the car|in here|back here) | I can hardly hear the (music|radio|song) |
            set the volume {amount} higher | a higher volume on the {side} speakers |
            more sound (in the cabin|for the {side} side) | the (music|radio) {must} be louder | louder {amount} |
            let the (song|radio) get louder | I cannot hear it, {raise} the audio level""",
        "volume_down": """
            {lower} the volume {amount} | {lower} the sound on the {side} speakers {amount} |
            make it quieter in here | it is too loud (in the car|in here|back here) |
            the (music|radio|song) hurts my ears | set the volume {amount} lower |
            a lower volume on the {side} speakers | less sound (in the cabin|for the {side} side) |
            the (music|radio) {must} be quieter | quieter {amount} | let the (song|radio) get softer |
            it is deafening, {lower} the audio level""",
        "fan_speed": """
            {raise} the fan {amount} | {lower} the fan {amount} | set the fan to level (two|three|four|five) |
            more air from the {side} vents | less air from the {side} vents | the blower should run (faster|slower) |
            change the fan speed {amount} | blow (harder|softer) on the {side} side |
            the air flow is too (strong|weak) | fan level (one|two|six) | adjust the blower on the {side} vents |
            I need (more|less) air flow""",
        "seat_heating_on": """
            {enable} the seat heating on the {side} side | heat my seat | {enable} the {side} seat heater |
            warm the {side} seat | my seat is cold | I would love a heated seat |
            set the seat heating to level (one|two|three) | the {side} seat {must} be heated |
            seat heater (on|to full) for the {side} seat | warm up the seats |
            my back is cold, heat the {side} chair | {enable} heating for the {side} seat cushion""",
        "defrost_on": """
            {enable} the defroster | defrost the (windscreen|windshield) |
            the windscreen is (foggy|fogged up|icy|frozen) | clear the ice from the {side} window |
            {enable} the {side} window heating | I cannot see through the (windscreen|windshield) |
            demist the {side} window | get rid of the fog on the glass | melt the ice on the windscreen |
            {enable} demisting | the glass is misting over | defog the {side} window""",
        "open_window": """
            {opens} the {side} window | {opens} the window {amount} | {opens} all the windows |
            window down on the {side} side | let some fresh air in through the {side} window |
            the {side} window {must} be open | {need} the {side} window open | get the {side} window down |
            {side} window halfway down | {need} an open window | leave the {side} window open {amount} |
            windows down {amount}""",
        "close_window": """
            {closes} the {side} window | {closes} the window {amount} | {closes} all the windows |
            window up on the {side} side | it is drafty, {closes} the {side} window |
            the {side} window {must} be closed | {need} the {side} window closed | get the {side} window up |
            {side} window all the way up | no open windows any more | leave no window open | windows up {amount}""",
        "open_trunk": """
            {unlatch} the trunk | {unlatch} the boot {amount} | {unlatch} the tailgate | trunk open |
            let me load my bags into the trunk | the tailgate {must} be open | {need} the boot open |
            get the trunk open | {unlatch} the rear hatch | {need} an open tailgate |
            I need to get at the luggage in the boot | unlock the (trunk|boot|tailgate)""",
        "open_sunroof": """
            {slide} the sunroof | {slide} the roof {amount} | {slide} the glass roof | sunroof open |
            let some sky in through the roof | the sunroof {must} be open | {need} the roof open |
            get the sunroof open {amount} | tilt the sunroof | {need} an open roof | slide the panoramic roof back |
            leave the sunroof open {amount}""",
        "lights_on": """
            {enable} the lights | {enable} the headlights | {enable} the {side} reading light |
            it is dark, lights on | {need} the (headlights|fog lights|high beam) | put the high beam on |
            light up the {side} side | {enable} the ambient lighting | I cannot see the road, headlights on |
            lights on in the (front|back|cabin) | the {side} lamp {must} be on |
            {need} some light (in the back|on the {side} side)""",
        "lights_off": """
            {disable} the lights | {disable} the headlights | {disable} the {side} reading light |
            it is bright, lights off | I do not need the (headlights|fog lights|high beam) | take the high beam off |
            no more light on the {side} side | {disable} the ambient lighting | the lamp dazzles me, headlights off |
            lights out in the (front|back|cabin) | the {side} lamp {must} be off |
            make it dark (in the back|on the {side} side)""",
        "wipers_on": """
            {enable} the wipers | {enable} the windscreen wipers | wipe the (windscreen|windshield|{side} window) |
            there are drops on the windscreen, wipers on | wipers (faster|on|to full speed) |
            {put} the wipers to interval | the rear wiper should run | it is pouring, {enable} the wiper |
            {need} the wipers | get the rain off the windscreen | wash and wipe the {side} window |
            clean the windscreen with the wipers""",
        "navigate_to": """
            (navigate|drive|take me|guide me) to {place} | (start|set|plan|find) a route to {place} |
            how do I get to {place} | {wish} go to {place} | the destination is {place} | {tell} the way to {place} |
            directions to {place} | set {place} as the destination | we are going to {place} |
            bring us to {place} (by the fastest route|) | new route to {place} | let us head for {place}""",
        "cancel_route": """
            {abort} the route | {abort} the navigation | {abort} the route to {place} | {disable} the route guidance |
            I do not want to go to {place} any more | no more directions | we are not going to {place} |
            delete the destination {place} | leave the route | I know the way to {place}, {abort} the guidance |
            remove {place} from the route | the route to {place} is no longer needed""",
        "find_charger": """
            {seek} a charging station | where can I charge the car | (show|find) the nearest charger |
            is there a charger near {place} | {seek} a fast charger on the route | {need} a charging point |
            {tell} the charging stations near {place} | we need to charge on the way to {place} |
            {seek} a free charger | add a charging stop to the route | take me to a charging station |
            any charging points close to {place}""",
        "arrival_time": """
            when will we (arrive|be there) | how long to {place} | {tell} the arrival time |
            how many minutes until {place} | how far is it to {place} | {tell} the time of arrival |
            are we at {place} soon | when do we reach {place} | what time will I be at {place} |
            how much longer does the route take | is there a delay on the way to {place} |
            will I get to {place} in time""",
        "play_music": """
            play {music} | put on {music} | {wish} hear {music} | (start|begin) {music} | {wish} listen to {music} |
            I am in the mood for {music} | how about {music} | stream {music} on the {side} speakers |
            {music} would be nice | give us {music} | find {music} and play it | shuffle {music}""",
        "next_track": """
            next {track} | skip this {track} | play the next {track} | I do not like this {track} |
            {move} the next {track} | another {track} | skip ahead | jump over this {track} | change the {track} |
            not this {track} again | move on to the following {track} | the {track} after this one""",
        "radio_station": """
            tune to {station} | flip the radio over to {station} | change the station to {station} |
            put the radio on {station} | {wish} listen to {station} on the radio | find {station} on the radio |
            radio station {station} | {put} the radio to {station} | go to {station} |
            the radio should play {station} | is {station} on the radio | select the station {station}""",
        "call_contact": """
            call {person} | (ring|phone|dial) {person} | {dial} a call to {person} | I need to speak to {person} |
            get {person} on the phone | give {person} a call | {dial} a call with {person} |
            connect me with {person} | {wish} talk to {person} | {dial} a phone call to {person} |
            dial the number of {person} | {wish} phone {person}""",
        "cancel_call": """
            {abort} the call | {abort} the phone call | {abort} the call to {person} | hang up |
            I do not want to talk to {person} any more | no more calls | we are not calling {person} |
            put the phone down | leave the call | I am done talking to {person}, {abort} the call |
            hang up on {person} | the call with {person} is no longer needed""",
        "read_messages": """
            read my messages | read the message from {person} | what did {person} write | do I have new messages |
            read out the last text | any text from {person} | what does the message say |
            let me hear the message from {person} | open my messages | {tell} the text from {person} |
            has {person} sent me a message | check my inbox""",
        "start_charging": """
            {enable} charging | begin to charge the battery | charge the car to {percent} percent |
            {enable} the charging process | charge up to {percent} percent | charge the battery {soon} |
            I have plugged in, begin charging | the battery {must} be charged | let the car charge |
            fill the battery to {percent} percent | resume charging | charging on""",
        "stop_charging": """
            {disable} charging | stop to charge the battery | do not charge beyond {percent} percent |
            {disable} the charging process | {abort} charging at {percent} percent | charge no more |
            {wish} unplug, stop charging | the battery is charged enough | let the car stop charging |
            the battery has {percent} percent, that is enough | interrupt charging | charging off""",
        "range_left": """
            how much range is left | how far can I drive with this battery | {tell} the battery level |
            how full is the battery | will the battery last until {place} | how many miles are left |
            {tell} the remaining range | can I reach {place} with this charge | {tell} the remaining charge |
            is the battery low | how much charge is left | does the range suffice for {place}""",
        "cruise_set": """
            {enable} cruise control | set cruise control to {speed} | hold the speed at {speed} |
            keep {speed} miles per hour | cruise at {speed} | drive {speed} automatically | {enable} adaptive cruise |
            maintain a speed of {speed} | set the speed to {speed} | follow the car ahead |
            the speed should stay at {speed} | take over the pedals at {speed}""",
        "lane_assist_on": """
            {enable} lane assist | {enable} the lane keeping assistant | keep me in the lane |
            help me stay in my lane | hold the lane | {enable} the steering assistant |
            warn me when I leave the lane | I need help with steering in the lane | stay between the lines |
            the lane assistant {must} be on | watch the lane markings | lane keeping on""",
        "park_assist": """
            park the car | {enable} the parking assistant | help me park | {seek} a parking space |
            park for me (on the {side} side|) | {enable} the parking sensors | {tell} the parking camera |
            back into this parking space | steer into the space on the {side} | I cannot get into this parking spot |
            parallel park here | park us near {place}""",
        "tyre_pressure": """
            check the tyre pressure | how are the tyres | {tell} the pressure in the {side} tyre |
            is the {side} tyre flat | {tell} the tyre pressures | do I need to pump up the {side} tyre |
            the {side} tyre feels soft | {tell} the pressure of all tyres | are the tyres low |
            how much air is in the {side} tyre | does the {side} wheel need air | tyre status""",
        "explain_warning": """
            what does this warning light mean | why is that light on in the dashboard | explain the warning |
            {tell} the (red|yellow|orange) symbol | there is a (red|yellow|orange) light on the display |
            is something wrong with the (engine|battery|brakes) | read the fault code | what is this error |
            tell me about the warning message | which fault does the car have | why does the car beep |
            can I drive on with this warning""",
        "lock_doors": """
            lock the doors | lock the {side} door | lock the car | (close|shut|pull shut) and lock the {side} door |
            the doors {must} be locked | make sure the {side} door is locked | secure the car |
            {enable} the central locking | {need} the doors locked | keep the {side} door locked |
            {enable} the child lock | bolt the {side} door""",
        "unlock_doors": """
            unlock the doors | unlock the {side} door | unlock the car | let {person} in through the {side} door |
            the doors {must} be unlocked | make sure the {side} door is not locked | release the locks |
            {disable} the central locking | {need} the doors unlocked | do not keep the {side} door locked |
            {disable} the child lock | undo the lock of the {side} door""",
    }.items()
}
"""Twelve lines an intent; ``_vehicle_commands.vehicle_templates`` makes templates of them."""
