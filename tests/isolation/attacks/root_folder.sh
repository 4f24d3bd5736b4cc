# List folders of the host's disk.
. "${0%/*}/module.sh"

attack() { ls -d /var/lib /root /home 2>/dev/null; }

serve
