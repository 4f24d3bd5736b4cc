# List the user's home folder.
. "${0%/*}/module.sh"

attack() { ls -A "$HOME_OF_HOST"; }

serve
