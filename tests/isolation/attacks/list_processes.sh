# See another process of the host.
. "${0%/*}/module.sh"

attack() { grep -a sleep "/proc/$VICTIM/cmdline"; }

serve
