# Tell a process of the host something through a pipe that has a path.
. "${0%/*}/module.sh"

attack() { echo hello 1<>"$FIFO" >&1 && test -p "$FIFO" && echo written; }

serve
