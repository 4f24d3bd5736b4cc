# Write a setting of the operating system, with its present value.
. "${0%/*}/module.sh"

attack() {
    value=$(cat /proc/sys/vm/swappiness) && echo "$value" >/proc/sys/vm/swappiness && echo written
}

serve
