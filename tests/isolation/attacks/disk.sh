# Read the disk itself, below all permissions.
. "${0%/*}/module.sh"

attack() {
    device=$(df --output=source "$SECRET" | tail -n 1)
    head -c 16 "$device" >/dev/null && echo read
}

serve
