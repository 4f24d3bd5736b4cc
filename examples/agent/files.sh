#!/bin/sh
# A tool in POSIX shell and sed: lists a folder, and removes a note (which the policy of this example never allows).
#
# It does not parse JSON in general: the kernel writes "id", "method", "op" and "args" in this order, and a string in JSON
# has no bare quote in it. It refuses a string with a backslash, which it would misread.

string() { # the text of a member of args
    printf '%s\n' "${line#*\"args\":}" | sed -n 's/.*"'"$1"'" *: *"\([^"\\]*\)".*/\1/p'
}
quote() { sed 's/[[:cntrl:]]/?/g; s/[\\"]/\\&/g; s/.*/"&"/'; } # turns each line of text into a JSON string
ok() { printf '{"id":"%s","ok":true,"result":%s}\n' "$id" "$1"; }
error() { printf '{"id":"%s","ok":false,"error":{"code":"%s","message":"%s"}}\n' "$id" "$1" "$2"; }

list() {
    folder=$(string path)
    case "/$folder/" in
    // | //* | */../*) error bad_request 'args.path: expected the relative path of a folder below this one' ;;
    *)
        if [ ! -d "$folder" ]; then
            error bad_request "args.path: there is no folder '$folder'"
            return
        fi
        names=$(
            for file in "$folder"/*; do
                [ ! -d "$file" ] || file=$file/
                [ ! -e "$file" ] || printf '%s\n' "${file#"$folder"/}" | quote
            done | sed -e ':more' -e '$!N' -e 's/\n/,/' -e 't more'
        )
        ok "{\"names\":[$names]}"
        ;;
    esac
}

remove() {
    name=$(string name)
    case $name in
    '' | .* | */*) error bad_request 'args.name: expected the name of a note' ;;
    *)
        if rm -- "notes/$name" 2>/dev/null; then ok '{}'; else error bad_request "there is no note '$name'"; fi
        ;;
    esac
}

path='{"type":"string","description":"Such as . or notes"}'
inputs='"list":{"description":"Lists the names in a folder; a slash ends those of folders."'
inputs=$inputs',"type":"object","required":["path"],"properties":{"path":'$path'}}'
inputs=$inputs',"remove":{"description":"Removes one of the notes, for good."'
inputs=$inputs',"type":"object","required":["name"],"properties":{"name":{"type":"string"}}}'
description='"name":"files","version":"0.1.0","kind":"tool","capabilities":["fs:read:.","fs:write:notes"]'
description="{$description,\"inputs\":{$inputs},\"outputs\":{\"list\":{\"type\":\"object\"},\"remove\":{\"type\":\"object\"}}}"

while IFS= read -r line; do
    id=$(printf '%s\n' "$line" | sed -n 's/^{"id":"\([^"]*\)".*/\1/p')
    method=$(printf '%s\n' "$line" | sed -n 's/^{"id":"[^"]*","method":"\([^"]*\)".*/\1/p')
    op=$(printf '%s\n' "$line" | sed -n 's/^{"id":"[^"]*","method":"invoke","params":{"op":"\([^"]*\)".*/\1/p')
    case $method/$op in
    health/*) ok '{"status":"ok"}' ;;
    describe/*) ok "$description" ;;
    invoke/list) list ;;
    invoke/remove) remove ;;
    invoke/*) error unsupported_op 'files knows list and remove' ;;
    esac # cancel has no id and gets no reply
done
