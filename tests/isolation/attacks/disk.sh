# Read the disk's device, where the permissions of files do not apply.
. "${0%/*}/module.sh"

attack() {
    device=$(df --output=source "$SECRET" | tail -n 1)
    head -c 16 "$device" >/dev/null && echo read
}

serve
