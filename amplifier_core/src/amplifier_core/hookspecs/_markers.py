"""The names of the groups of entry points, and the markers of pluggy."""

import pluggy

PROJECT = "amplifier_core"
TRANSPORTS = "amplifier_core.transports"
SINKS = "amplifier_core.sinks"
ISOLATIONS = "amplifier_core.isolations"

hookspec: pluggy.HookspecMarker = pluggy.HookspecMarker(PROJECT)
hookimpl: pluggy.HookimplMarker = pluggy.HookimplMarker(PROJECT)
