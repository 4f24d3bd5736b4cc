# Look at the machine's devices.
. "${0%/*}/module.sh"

attack() { ls /sys/class/net; }

serve
