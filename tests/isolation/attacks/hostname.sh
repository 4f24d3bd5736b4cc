# Rename the machine, to what it is called.
. "${0%/*}/module.sh"

attack() { hostname "$(hostname)" && echo renamed; }

serve
