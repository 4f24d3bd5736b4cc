# Change a setting of the operating system, to what it is.
. "${0%/*}/module.sh"

attack() {
    value=$(cat /proc/sys/vm/swappiness) && echo "$value" >/proc/sys/vm/swappiness && echo written
}

serve
