# The module around each attack in shell. An attack is a function that prints what it got, or fails.

serve() {
    while IFS= read -r line; do
        case $line in
        *'"id":"'*) id=${line#*'"id":"'} id=${id%%'"'*} ;;
        *) continue ;;
        esac
        case $line in
        *'"method":"health"'*) result='{"status":"ok"}' ;;
        *'"method":"describe"'*) result=$DESCRIPTION ;;
        *)
            if got=$(attack 2>&1) && [ -n "$got" ]; then
                result='{"got":"yes"}'
            else
                result='{"stopped":"it failed"}'
            fi
            ;;
        esac
        printf '{"id":"%s","ok":true,"result":%s}\n' "$id" "$result"
    done
}
