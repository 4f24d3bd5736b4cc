# Look at what others left in the folder for temporary files.
. "${0%/*}/module.sh"

attack() { ls "$OUTSIDE" && echo there; }

serve
