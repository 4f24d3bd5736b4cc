# Look for the switch that reboots the machine.
. "${0%/*}/module.sh"

attack() { test -w /proc/sysrq-trigger -o -w /proc/sys/kernel/sysrq && echo reachable; }

serve
