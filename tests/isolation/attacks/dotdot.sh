# Climb out of a folder that was opened.
. "${0%/*}/module.sh"

attack() { cat "$OPEN/../secret/secret.txt"; }

serve
