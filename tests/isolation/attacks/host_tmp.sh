# List the files of others in the host's temporary folder.
. "${0%/*}/module.sh"

attack() { ls "$OUTSIDE" && echo there; }

serve
