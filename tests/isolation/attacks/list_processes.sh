# See who else runs.
. "${0%/*}/module.sh"

attack() { grep -a sleep "/proc/$VICTIM/cmdline"; }

serve
