import ntpath
import os
import posixpath
import re
import time
from itertools import product
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from tests.core.oracle import WORDS, includes, permits
from tests.core.strategies import thorough

from amplifier_core._protocol.capability import (
    _canonical_path,
    canonical,
    covers,
    enforced_by_kernel,
    reach,
    system_calls,
)

BASE = Path("/base")

# The table of section 6, row by row. {tmp} is a real folder with its links resolved.
ACCEPTED = [
    ("fs:read:{tmp}", "fs:read:{tmp}"),
    ("fs:write:{tmp}/new", "fs:write:{tmp}/new"),
    ("fs:read:corpus", "fs:read:{tmp}/corpus"),
    ("fs:read:./corpus", "fs:read:{tmp}/corpus"),
    ("fs:read:.", "fs:read:{tmp}"),
    ("fs:read:./a/../b", "fs:read:{tmp}/b"),
    ("fs:read:a//b/./c/", "fs:read:{tmp}/a/b/c"),
    ("fs:read:/", "fs:read:/"),
    ("fs:read:/..", "fs:read:/"),
    ("fs:read:a:b", "fs:read:{tmp}/a:b"),
    ("fs:read:*", "fs:read:{tmp}/*"),
    ("fs:read:~", "fs:read:{tmp}/~"),
    ("fs:read:$HOME", "fs:read:{tmp}/$HOME"),
    ("fs:read:$tmpx", "fs:read:{tmp}/$tmpx"),
    ("fs:read:a/$tmp", "fs:read:{tmp}/a/$tmp"),
    ("fs:read:$tmp", "fs:read:$tmp"),
    ("fs:write:$tmp", "fs:write:$tmp"),
    ("fs:write:$tmp/", "fs:write:$tmp"),
    ("fs:write:$tmp/a/../b", "fs:write:$tmp/b"),
    ("fs:write:$tmp/a/..", "fs:write:$tmp"),
    ("fs:write:$tmp//a/.", "fs:write:$tmp/a"),
    ("net:connect:*", "net:connect:*"),
    ("net:listen:*", "net:listen:*"),
    ("net:connect:example.org:443", "net:connect:example.org:443"),
    ("net:connect:127.0.0.1:1", "net:connect:127.0.0.1:1"),
    ("net:connect:a_b-c:65535", "net:connect:a_b-c:65535"),
    ("net:connect:[::1]:80", "net:connect:[::1]:80"),
    ("net:connect:[::ffff:1.2.3.4]:80", "net:connect:[::ffff:1.2.3.4]:80"),
    ("env:PATH", "env:PATH"),
    ("env:_a1", "env:_a1"),
    *((f"sys:{name}", f"sys:{name}") for name in sorted(system_calls())),
    ("sys:invoke:/mnt/tools/*", "sys:invoke:/mnt/tools/*"),
    ("sys:invoke:/mnt/tools/a", "sys:invoke:/mnt/tools/a"),
    ("sys:emit:my:event", "sys:emit:my:event"),
    ("x-a:b", "x-a:b"),
    ("x-gpu.v2_1:use:0:all of it", "x-gpu.v2_1:use:0:all of it"),
    ("x-a:*", "x-a:*"),
]

REFUSED = [
    *(("", "fs", "read", "fs:", "fs::", "fs:read", "fs:write", "fs:read:", "fs:exec:/x", "fs:Read:/x", "FS:read:/x")),
    *(
        (
            "fs :read:/x",
            " fs:read:/x",
            "fs:read:a\0b",
            "fs:read:$tmp/..",
            "fs:read:$tmp/../x",
            "fs:write:$tmp/a/../../b",
        )
    ),
    *(("net", "net:", "net:connect", "net:connect:", "net:connect:host", "net:connect::80", "net:connect:*:80")),
    *(("net:connect:h:*", "net:connect:h:0", "net:connect:h:65536", "net:connect:h:123456", "net:connect:h:-1")),
    *(("net:connect:h:80:81", "net:connect:h:80\n", "net:connect:::1:80", "net:connect:[::1]", "net:connect:[]:80")),
    *(("net:connect:a/b:80", "net:connect:ä:80", "net:connect:**", "net:listen", "net:listen:", "net:listen:80")),
    *(("net:bind:*", "net:*", "env", "env:", "env:A=B", "env:A B", "env:A\n", "env:A:B", "env:A\0")),
    *(
        (
            "sys",
            "sys:",
            "sys:invoke:",
            "sys:nothing",
            "sys:Invoke",
            "sys:invokex",
            "sys:session",
            "sys:*",
            "sys:read:/x",
        )
    ),
    *(
        (
            "x",
            "x-",
            "x-a",
            "x-a:",
            "x-:b",
            "x-a::",
            "x-a::b",
            "x-a:b:",
            "x--a:b",
            "x-A:b",
            "x_a:b",
            "x-a b:c",
            "x-a:b\0",
        )
    ),
    *(("exec:run", "gpu:use", "*", "*:*", "fs:*:/x", ":", "::", "\n", "read:/x")),
]


@pytest.mark.parametrize(("word", "expected"), ACCEPTED)
def test_every_word_of_the_table_has_one_spelling(word, expected, tmp_path):
    folder = tmp_path.resolve()
    spelling = canonical(word.format(tmp=folder), folder)
    assert spelling == expected.format(tmp=folder)
    assert canonical(spelling, Path("/elsewhere")) == spelling


@pytest.mark.parametrize("word", REFUSED, ids=ascii)
def test_any_other_word_is_refused_with_what_was_expected(word):
    with pytest.raises(ValueError, match=r"^expected ") as caught:
        canonical(word, BASE)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("fs:read:", "expected a path after fs:read: or fs:write:"),
        ("fs:read:$tmp/..", "expected a path inside $tmp, got '$tmp/..'"),
        ("net:listen:80", "expected net:listen:*, got 'net:listen:80'"),
        ("net:connect:h", "expected net:connect:* or net:connect:HOST:PORT, got 'net:connect:h'"),
        ("net:connect:h:65536", "expected a port from 1 to 65535, got 'net:connect:h:65536'"),
        ("env:", "expected env:NAME, got 'env:'"),
        # BUG: the word is shortened before it is quoted
        ("sys:*", "expected sys:NAME[:PATTERN] with a system call's name, got 'sys:*'"),
        ("sys:no:**", "expected sys:NAME[:PATTERN] with a system call's name, got 'sys:no:**'"),
        ("sys:no", "expected sys:NAME[:PATTERN] with a system call's name, got 'sys:no'"),
        ("sys:emit:a*X", "expected a pattern with * only at its end, got 'sys:emit:a*X'"),
        ("x-a:", "expected x-NAMESPACE:ACTION[:RESOURCE], got 'x-a:'"),
        (
            "gpu:use",
            "expected one of fs:read:PATH, fs:write:PATH, net:connect:…, net:listen:*, env:NAME, sys:NAME, x-…:…, got "
            + repr("gpu:use"),
        ),
    ],
)
def test_a_refusal_says_what_was_expected(word, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        canonical(word, BASE)


@pytest.mark.parametrize("word", ["net:connect:h:٨٠", "net:connect:h:080"], ids=ascii)
def test_a_port_has_one_spelling(word):
    with pytest.raises(ValueError, match=r"^expected "):
        canonical(word, BASE)


@pytest.mark.parametrize("word", ["env:*", "env:A*"])
def test_there_is_no_pattern_for_variables(word):
    with pytest.raises(ValueError, match="^expected env:NAME"):
        canonical(word, BASE)


@pytest.mark.parametrize(
    "word",
    ["x-a:\ud800", "sys:invoke:\udfff", "env:\ud800", "fs:read:/\udc80", "fs:write:/\ud800", "fs:read:$tmp/\ud800"],
    ids=ascii,
)
def test_a_word_with_a_lone_surrogate_is_refused(word):
    with pytest.raises(ValueError, match="surrogate|expected"):
        canonical(word, BASE)


@pytest.mark.parametrize("word", ["x-a:b\nc", "sys:invoke:\n", "x-a:b\r", "fs:read:/a\nb"], ids=ascii)
def test_a_word_of_two_lines_is_refused(word):
    with pytest.raises(ValueError, match=r"^expected "):
        canonical(word, BASE)


@given(st.text(max_size=12) | st.lists(st.sampled_from([*"fsnetvyx-:*/.$ab0", "read", "sys"]), max_size=9).map("".join))
@thorough
def test_any_text_is_a_capability_or_a_value_error(word):
    try:
        spelling = canonical(word, BASE)
    except ValueError:
        return
    assert canonical(spelling, Path("/elsewhere")) == spelling
    assert covers(spelling, spelling)


@pytest.fixture
def tree(tmp_path):
    """Make a folder with `data/in`, `secret`, and links into and out of `data`."""
    root = tmp_path.resolve()
    for folder in ("data/in", "secret/deep"):
        (root / folder).mkdir(parents=True)
    links = {
        "data/out": root / "secret",
        "data/up": "..",
        "in": "data/in",
        "data/dangling": root / "none",
        "loop": "loop",
    }
    for link, target in links.items():
        (root / link).symlink_to(target)
    return root


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("in", "data/in"),
        ("in/..", "data"),  # below the link's target, not below the folder that holds the link
        ("in/../..", "."),
        ("data/out/deep", "secret/deep"),
        ("data/out/../data/in", "data/in"),
        ("data/up/secret", "secret"),
        ("data/dangling/x", "none/x"),
        ("data/none/../in", "data/in"),
    ],
)
def test_links_and_dots_are_resolved_as_the_system_does(tree, path, real):
    for word in (f"fs:read:{path}", f"fs:read:{tree / path}"):
        assert canonical(word, tree) == f"fs:read:{(tree / real).resolve()}"


def test_a_link_that_leads_to_itself_is_a_path_like_another(tree):
    assert canonical("fs:read:loop", tree).startswith(f"fs:read:{tree}")


def test_a_base_behind_a_link_is_resolved(tree):
    assert canonical("fs:read:x", tree / "in") == f"fs:read:{tree}/data/in/x"


@pytest.mark.parametrize(
    ("wanted", "inside"),
    [
        ("data/in", True),
        ("data/in/../in", True),
        ("in", True),
        ("data/up/data", True),
        ("data/out", False),
        ("data/out/deep", False),
        ("data/../secret", False),
        ("data/up", False),
        ("datax", False),
        (".", False),
    ],
)
def test_a_path_covers_what_lies_below_it_once_links_and_dots_are_resolved(tree, wanted, inside):
    grant = canonical("fs:read:data", tree)
    assert covers(grant, canonical(f"fs:read:{wanted}", tree)) is inside


# BUG: two lines get through: canonical refuses its own result, and no hook can name it
@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
@pytest.mark.parametrize("name", [b"\xff", b"a\nb", b"a\r"], ids=ascii)
def test_a_link_to_a_name_that_is_no_line_of_text_is_refused(tmp_path, name):
    (tmp_path / "link").symlink_to(os.fsdecode(name))
    with pytest.raises(ValueError, match="surrogate|expected"):
        canonical("fs:read:link", tmp_path)


def test_covers_is_inclusion_of_what_is_permitted():
    wrong = [
        (grant, wanted)
        for grant, wanted in product(WORDS, WORDS)
        if covers(grant, wanted) is not includes(grant, wanted)
    ]
    assert not wrong


def test_the_one_spelling_permits_the_same_as_the_word():
    assert [permits(canonical(word, BASE)) for word in WORDS] == [permits(word) for word in WORDS]


@pytest.mark.parametrize(
    ("grant", "wanted", "covered"),
    [
        ("sys:emit", "sys:emit:my:event", True),
        ("sys:emit:my", "sys:emit:my:event", True),
        ("sys:emit:my", "sys:emit:myx:event", False),
        ("sys:invoke:/mnt/tools/*", "sys:invoke:/mnt/tools/a*", True),
        ("sys:invoke:/mnt/tools/a*", "sys:invoke:/mnt/tools/*", False),
        ("sys:mount", "sys:mounts", False),
        ("env:A", "env:AB", False),
        ("net:connect:*", "net:connect:[::1]:80", True),
        ("net:connect:*", "net:listen:*", False),
        ("net:connect:h:80", "net:connect:h:8080", False),
        ("x-a:b*", "x-a:bc", False),
        ("x-a:b:*", "x-a:b:c", False),
        ("x-a:b:c", "x-a:b", False),
        ("fs:read:/a", "fs:read:/a b", False),
        ("fs:read:/", "fs:read:$tmp", False),
        ("fs:read:$tmp", "fs:write:$tmp", False),
        ("fs:read:/base", "x-base:fs", False),
    ],
)
def test_pairs_that_the_oracle_does_not_draw(grant, wanted, covered):
    assert canonical(grant, BASE) == grant
    assert canonical(wanted, BASE) == wanted
    assert covers(grant, wanted) is covered


tails = st.lists(st.sampled_from(["a", "ab", "*", "/", ":", "a:b", "b"]), max_size=4).map("".join)
paths = st.lists(st.sampled_from(["a", "b", "ab", "..", "."]), max_size=4).map("/".join)
spellings = (
    st.builds("fs:{}:{}{}".format, st.sampled_from(["read", "write"]), st.sampled_from(["/", "$tmp/", "./"]), paths)
    | st.builds("sys:{}{}".format, st.sampled_from(["emit", "invoke", "invoke:/mnt/", "invoke:"]), tails)
    | st.builds("x-{}:{}".format, st.sampled_from(["a", "ab"]), tails)
    | st.builds("net:connect:{}".format, st.sampled_from(["*", "a:1", "a:11", "ab:1"]))
    | st.sampled_from(["net:listen:*", "env:A", "env:AB"])
)


def known(word):
    try:
        return bool(canonical(word, BASE))
    except ValueError:
        return False


words = (spellings.filter(known) | st.sampled_from(WORDS)).map(lambda word: canonical(word, BASE))


@thorough
@given(words)
def test_a_capability_covers_itself(word):
    assert covers(word, word)


@thorough
@given(words, words)
def test_two_that_cover_each_other_are_one(one, other):
    assume(one != other)
    assert not (covers(one, other) and covers(other, one))


@pytest.mark.parametrize(
    ("one", "other"), [("sys:invoke", "sys:invoke:*"), ("sys:invoke:/mnt/*", "sys:invoke:/mnt/**")]
)
def test_two_spellings_of_one_pattern_are_one(one, other):
    assert canonical(one, BASE) == canonical(other, BASE)


@thorough
@given(words, words, words)
@example(*(canonical(f"sys:invoke:/a{tail}", BASE) for tail in ("**", "*", "b")))
def test_covering_is_transitive(wide, middle, narrow):
    if covers(wide, middle) and covers(middle, narrow):
        assert covers(wide, narrow)


# BUG: the pattern "my:" becomes "my" and all below it
def test_the_one_spelling_is_never_wider_than_the_word():
    assert not covers(canonical("sys:emit:my:*", BASE), "sys:emit:my")
    assert covers(canonical("sys:emit:my:*", BASE), "sys:emit:my:event")
    assert not covers(canonical("sys:invoke:/mnt/tools/a*", BASE), "sys:invoke:/mnt/tools/")


def test_the_kernel_enforces_system_calls_alone():
    assert [word for word in WORDS if enforced_by_kernel(word)] == [word for word in WORDS if word[:4] == "sys:"]


WINDOWS = [
    (r"C:\data", "C:/data"),
    ("C:/data/", "C:/data"),
    (r"C:\data\..\other", "C:/other"),
    ("corpus/new", "D:/modules/corpus/new"),
    (r".\corpus", "D:/modules/corpus"),
    (r"..\..\..\x", "D:/x"),
    ("C:\\", "C:/"),
    (r"\x", "D:/x"),
    (r"\\server\share\x", "//server/share/x"),
    (r"$tmp\a\.\b", "$tmp/a/b"),
    ("$tmp/a/../b", "$tmp/b"),
    ("$tmp", "$tmp"),
    ("$tmpx", "D:/modules/$tmpx"),
]


@pytest.mark.parametrize(("path", "expected"), WINDOWS)
def test_paths_of_windows_have_one_spelling_too(path, expected):
    spelling = _canonical_path(path, PureWindowsPath(r"D:\modules"), ntpath)
    assert spelling == expected
    assert _canonical_path(spelling, PureWindowsPath("E:/"), ntpath) == expected
    assert covers(f"fs:read:{spelling}", f"fs:read:{spelling.removesuffix('/')}/below")


@pytest.mark.parametrize("path", [r"$tmp\..", r"$tmp/a\..\..\x", "$tmp\\..\\..\\x"])
def test_backslashes_do_not_lead_out_of_the_scratch_folder(path):
    with pytest.raises(ValueError, match="expected a path inside"):
        _canonical_path(path, PureWindowsPath("C:/"), ntpath)


def test_a_drive_is_below_no_other_and_a_folder_below_none_of_the_same_beginning():
    for other in ("D:/data", "C:/database", "C:/"):
        assert not covers("fs:write:C:/data", f"fs:write:{other}")
    assert covers("fs:write:C:/", "fs:read:C:/data")


def test_a_backslash_is_a_letter_on_posix(tmp_path):
    base = tmp_path.resolve()
    assert _canonical_path("a\\..\\b", base, posixpath) == f"{base}/a\\..\\b"


@pytest.mark.parametrize("word", ["sys:emit:" + "*" * 30_000 + "a", "fs:read:/" + "a/" * 3000, "x-a:" + "b" * 5000])
def test_a_long_word_is_refused_by_its_length(word):
    with pytest.raises(ValueError, match=f"^expected at most 4352 characters in a capability, got {len(word)}$"):
        canonical(word, BASE)


def test_the_longest_word_is_read_at_once():
    word = "sys:emit:" + "*" * 4342 + "a"
    with pytest.raises(ValueError, match="only at its end") as caught:
        canonical(word, BASE)
    assert len(str(caught.value)) < 300
    assert canonical("sys:emit:a" + "*" * 4000, BASE) == "sys:emit:a*"


def test_a_path_can_be_taken_by_its_letters(tmp_path):
    (tmp_path / "link").symlink_to("/etc")
    assert canonical(f"fs:read:{tmp_path}/link", BASE, resolve=False) == f"fs:read:{tmp_path}/link"
    assert canonical("fs:read:link/../b", tmp_path, resolve=False) == f"fs:read:{tmp_path}/b"
    assert canonical("fs:read://etc//b/", None, resolve=False) == "fs:read:/etc/b"
    assert canonical("fs:write:$tmp/a", None, resolve=False) == "fs:write:$tmp/a"
    with pytest.raises(ValueError, match="^expected an absolute path, got 'a'$"):
        canonical("fs:read:a", None, resolve=False)


def test_a_host_has_one_spelling():
    assert canonical("net:connect:API.Example:443", BASE) == "net:connect:api.example:443"


@pytest.mark.parametrize("length", [1, 4000])
def test_two_long_lists_are_compared_in_no_time(length):
    grants = [f"fs:read:/{'x' * length}{n}" for n in range(256)]
    within = reach(grants)
    began = time.process_time()
    assert not any(within.covers(f"{grant}x/y") for grant in grants)
    assert all(within.covers(f"{grant}/y") for grant in grants)
    assert time.process_time() - began < 0.1
