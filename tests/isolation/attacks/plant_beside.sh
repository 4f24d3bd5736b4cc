# Persist: plant a file beside its own program.
. "${0%/*}/module.sh"

attack() { echo planted >"${0%/*}/planted.py" && echo done; }

serve
