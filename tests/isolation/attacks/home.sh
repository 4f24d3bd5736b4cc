# Look around at home.
. "${0%/*}/module.sh"

attack() { ls -A "$HOME_OF_HOST"; }

serve
