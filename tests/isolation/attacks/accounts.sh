# Read the host's accounts.
. "${0%/*}/module.sh"

attack() { grep '^daemon:' /etc/passwd; }

serve
