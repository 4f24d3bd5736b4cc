# Set the host's name, to its present one.
. "${0%/*}/module.sh"

attack() { hostname "$(hostname)" && echo renamed; }

serve
