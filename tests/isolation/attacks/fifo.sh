# Write to a process of the host through a named pipe.
. "${0%/*}/module.sh"

attack() { echo hello 1<>"$FIFO" >&1 && test -p "$FIFO" && echo written; }

serve
