"""Section 6 of the protocol by brute force: an oracle for the gate, which shares no code with it.

Written from the text of the protocol alone. A capability is the set of all uses that it permits in a world small
enough to enumerate. So "covers" is set inclusion, and "granted" is a union; there are no rules about words here.
"""

from functools import cache
from itertools import product

NAMES = ("a", "b", "ab")
"""Path parts. `ab` starts with `a`, and still is not below it."""


def _sequences(parts, longest):
    return [sequence for length in range(longest + 1) for sequence in product(parts, repeat=length)]


FILES = [("", *parts) for parts in _sequences(NAMES, 3)] + [("$tmp", *parts) for parts in _sequences(NAMES, 2)]
"""`$tmp` is a scratch folder that is below no other folder, not even below `/`."""

MODULES = [("mnt", *parts) for parts in _sequences(("tools", "toolsy", "agents", "a", "unnamed"), 2)]

WORLD = frozenset(
    [("fs", access, file) for access in ("read", "write") for file in FILES]
    + [("net", "connect", host, port) for host in ("h", "k.example", "unnamed") for port in ("1", "80", "65535")]
    + [("net", "listen", port) for port in ("1", "80")]
    + [("env", name) for name in ("A", "AB", "PATH", "unnamed")]
    + [("sys", call, module) for call in ("invoke", "mount", "emit", "context.get") for module in MODULES]
    + [("aside", name, *rest) for name in ("x-a", "x-ab") for rest in _sequences(NAMES, 4)]
)

# Words are one level less deep than the world, so that a word and one below it never permit the same set.
WORDS = [
    *(f"fs:{access}:/{'/'.join(parts)}" for access in ("read", "write") for parts in _sequences(NAMES, 2)),
    *(f"fs:{access}:$tmp{tail}" for access in ("read", "write") for tail in ("", "/a", "/ab")),
    *("net:connect:*", "net:listen:*", "net:connect:h:1", "net:connect:h:80", "net:connect:k.example:80"),
    *("env:A", "env:AB", "env:PATH"),
    *("sys:invoke", "sys:mount", "sys:emit", "sys:context.get"),
    *("sys:invoke:*", "sys:invoke:/mnt/*", "sys:invoke:/mnt/tools/*", "sys:invoke:/mnt/toolsy/*"),
    *("sys:invoke:/mnt/tools", "sys:invoke:/mnt/tools/a", "sys:mount:/mnt/tools/*", "sys:mount:/mnt/tools/a"),
    *(":".join(("x-a", *rest)) for rest in _sequences(NAMES, 3) if rest),
    *("x-ab:a", "x-ab:a:b"),
]


@cache
def permits(word):
    """Return all uses in the world that the canonical capability `word` permits."""
    return frozenset(use for use in WORLD if _permits(word.split(":"), use))


def _permits(parts, use):  # noqa: PLR0911 - one return for each row of the table
    match parts, use:
        case ["fs", "write", path], ("fs", "read" | "write", file):
            return _holds(path, file)
        case ["fs", "read", path], ("fs", "read", file):
            return _holds(path, file)
        case ["net", action, "*"], ("net", used, *_):
            return action == used
        case ["net", "connect", host, port], ("net", "connect", used_host, used_port):
            return (host, port) == (used_host, used_port)
        case ["env", name], ("env", used):
            return name == used
        case ["sys", call], ("sys", used, _):
            return call == used
        case ["sys", call, pattern], ("sys", used, module):
            return call == used and _matches(pattern, "/" + "/".join(module))
        case [space, *rest], ("aside", used, *used_rest):
            return (
                space == used
                and all(mine == theirs for mine, theirs in zip(rest, used_rest, strict=False))
                and (len(rest) <= len(used_rest))
            )
    return False


def _holds(path, file):
    folder = file
    while folder:  # from the file to its parents, as in a file system
        if "/".join(folder) == path.rstrip("/"):
            return True
        folder = folder[:-1]
    return False


def _matches(pattern, text):
    head, star, tail = pattern.partition("*")
    return (text.startswith(head) and text.endswith(tail)) if star else text == pattern


def includes(granted, wanted):
    """Say whether one capability permits all that another permits."""
    return permits(wanted) <= permits(granted)


def judge(wanted, answers, *, fork=False):
    """Return (allowed, uses granted, scope) for the words `wanted`.

    An answer is None for a hook that failed, was late or gave no valid answer; else (decision, words or None, scope,
    own), where `own` is true if the fork registered the hook. Granted is what is wanted, and what each hook permits
    that allows at all; only the hooks that are not the fork's own make an allow of it.
    """
    nothing: tuple[bool, frozenset, str] = (False, frozenset(), "call")
    if any(answer is None or answer[0] == "deny" for answer in answers):
        return nothing
    allows = [answer for answer in answers if answer[0] == "allow"]
    counted = [answer for answer in allows if not (fork and answer[3])]
    granted: frozenset = frozenset()
    for want in wanted:
        got = permits(want) if counted else frozenset()
        for _, words, _, _ in allows:
            if words is not None:
                got &= frozenset().union(*map(permits, words))
        if not got:
            return nothing
        granted |= got
    session_wide = bool(counted) and all(answer[2] == "session" for answer in answers)
    return (True, granted, "session" if session_wide else "call")


def well_formed(answer):
    """Say whether a JSON value has the form of an answer of section 6. The words in `capabilities` are not checked."""
    return (
        isinstance(answer, dict)
        and answer.get("decision") in ("allow", "deny", "abstain")
        and ("scope" not in answer or answer["scope"] in ("call", "session", None))
        and ("reason" not in answer or isinstance(answer["reason"], str | None))
        and (
            "capabilities" not in answer
            or (isinstance(answer["capabilities"], list) and all(isinstance(c, str) for c in answer["capabilities"]))
        )
    )
