# Leave a granted folder by `..`.
. "${0%/*}/module.sh"

attack() { cat "$OPEN/../secret/secret.txt"; }

serve
