#!/bin/sh
# An STDIO echo in POSIX shell and sed: what fits a hand that types requests.
#
# It reads no JSON in general: "id" and "method" stand before "params", and "op" before "args", as the kernel writes
# them, and args nest at most 8 deep.
#
# sh echo.sh [NAME]

name=${1:-echo}
string='"([^"\\]|\\.)*"'
inner="([^][{}\"]|$string)*"
for _ in 1 2 3 4 5 6 7; do
    inner="([^][{}\"]|$string|[[{]$inner[]}])*"
done

# The values of the first member of that name: a string or a number; an object.
scalar() { printf '%s\n' "${line#*\""$1"\":}" | sed -E 's/^ *("[^"]*"|[0-9]+).*/\1/'; }
object() { printf '%s\n' "${line#*\""$1"\":}" | sed -E "s/^ *([{]$inner[}]).*/\\1/"; }
reply() { printf '{"id":%s,%s}\n' "$id" "$1"; }

while IFS= read -r line; do
    id=$(scalar id)
    case $(scalar method) in
    '"health"') reply '"ok":true,"result":{"status":"ok"}' ;;
    '"describe"')
        reply '"ok":true,"result":{"name":"'"$name"'","version":"0.1.0","kind":"tool","capabilities":[],"inputs":{"echo":{}},"outputs":{"echo":{}}}'
        ;;
    '"invoke"')
        if [ "$(scalar op)" = '"echo"' ]; then
            reply '"ok":true,"result":'"$(object args)"
        else
            reply '"ok":false,"error":{"code":"unsupported_op","message":"echo knows echo alone"}'
        fi
        ;;
    esac # cancel gets no reply
done
