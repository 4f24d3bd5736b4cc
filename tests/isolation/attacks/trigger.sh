# Look for the files by which a program can reboot the machine.
. "${0%/*}/module.sh"

attack() { test -w /proc/sysrq-trigger -o -w /proc/sys/kernel/sysrq && echo reachable; }

serve
