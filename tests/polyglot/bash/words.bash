#!/usr/bin/env bash
# Count words. jq knows JSON, and bash reads the lines. One request at a time: while it waits, it reads on for a cancel.

# Everything but the waiting: one line in, the lines of the reply out. For `wait` it is no reply but: wait MICROSECONDS SECONDS ID.
program='
def failure($code; $message): {ok: false, error: {code: $code, message: $message}};
def argument($name; $kind; $expected):
  .[$name] | if type == $kind then . else error("args.\($name): expected \($expected)") end;
def parts($by): map(split($by)[]);  # jq 1.6 takes minutes to split a long text by a regular expression
def words_of:
  argument("text"; "string"; "a string") | [.] | parts(" ") | parts("\t") | parts("\r") | parts("\n") | map(select(. != ""));

def count:
  words_of as $words
  | (reduce $words[] as $word (""; if ($word | length) > length then $word else . end)) as $longest
  | {ok: true, result: {words: ($words | length), characters: (.text | length), longest: $longest}};

def report($resume):
  argument("tool"; "string"; "a string") as $tool
  | argument("texts"; "array"; "a list of strings") as $texts
  | ($resume.state // {asked: 0, words: 0}) as $state
  | ($resume.results // [{ok: true, result: {words: 0}}])[0] as $counted
  | ($state.words + $counted.result.words) as $words
  | if $counted.ok | not then
      failure("report_failed"; "text \($state.asked) was not counted") | .error.details = {cause: $counted.error}
    elif $state.asked == ($texts | length) then {ok: true, result: {$words}}
    else {pending: {
      syscalls: [
        {name: "invoke", args: {path: $tool, op: "count", args: {text: $texts[$state.asked]}}},
        {name: "emit", args: {event: "words:counted", data: {text: ($state.asked + 1)}}}
      ],
      state: {asked: ($state.asked + 1), $words}
    }} end;

def tell: words_of | ({chunk: {word: .[]}}, {ok: true, result: {words: length}});

def fail:
  argument("details"; "object"; "an object") as $details | failure("out_of_ink"; "buy some") | .error += {$details};

def invoke:
  .op as $op | .resume as $resume | .args // {}
  | if $op == "count" then count
    elif $op == "report" then report($resume)
    elif $op == "tell" then tell
    elif $op == "wait" then argument("seconds"; "number"; "a number") | "wait \(. * 1000000 | floor) \(.)"
    elif $op == "fail" then fail
    else failure("unsupported_op"; "words does not know \($op)") end;

.id as $id
| if .method == "health" then {ok: true, result: {status: "ok"}}
  elif .method == "describe" then {ok: true, result: $description[0]}
  elif .method == "invoke" then try (.params | invoke) catch failure("bad_request"; .)
  else empty end  # a cancel that comes too late
| if type == "string" then "\(.) \($id | tojson)" else {$id} + . end
'

lines=()    # requests that came while another one waited
unread=     # the beginning of a line

receive() { # receive [SECONDS]: keep the next line. 0: a line, 1: the end of stdin, more: the time is over
    local status=0 read=
    IFS= read -r ${1:+-t "$1"} read || status=$?
    unread+=$read
    if ((status == 0)); then
        lines+=("$unread")
        unread=
    fi
    return "$status"
}

is_cancelled() { # is_cancelled ID: whether one of the lines that were read says so
    ((${#lines[@]})) && printf '%s\n' "${lines[@]}" | jq -es --argjson id "$1" 'any(.method == "cancel" and .params.id == $id)' >/dev/null
}

wait_for() { # wait_for MICROSECONDS SECONDS ID
    local end=$((${EPOCHREALTIME/./} + $1)) left
    while left=$((end - ${EPOCHREALTIME/./})) && ((left > 0)); do
        if is_cancelled "$3"; then
            printf '{"id":%s,"ok":false,"error":{"code":"cancelled","message":"nobody waits any more"}}\n' "$3"
            return
        fi
        receive "$(printf '%d.%06d' $((left / 1000000)) $((left % 1000000)))"
        (($? != 1)) || exit 0
    done
    printf '{"id":%s,"ok":true,"result":{"seconds":%s}}\n' "$3" "$2"
}

while ((${#lines[@]})) || receive; do
    reply=$(jq -rc --slurpfile description ../describe.json "$program" <<<"${lines[0]}")
    lines=("${lines[@]:1}")
    case $reply in
    wait\ *)
        read -r _ microseconds seconds id <<<"$reply"
        wait_for "$microseconds" "$seconds" "$id"
        ;;
    ?*) printf '%s\n' "$reply" ;;
    esac
done
