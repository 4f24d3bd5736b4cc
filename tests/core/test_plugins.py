"""Plugins: found by name among those that are installed, loaded only then, with one line for each fault."""

import importlib
import sys
from pathlib import Path

import pytest

from amplifier_core import BadRequest, Internal, Kernel, KernelError, Plan, Unreachable
from amplifier_core._modules.plugins import Plugins
from amplifier_core.hookspecs import SINKS, TRANSPORTS

TRANSPORT = """
from pathlib import Path

from amplifier_core.hookspecs import Message, hookimpl

Path(__file__).with_suffix(".imported").write_bytes(b"yes")


class Here:
    local = False
    unenforced = ()

    def __init__(self, descriptor):
        self._descriptor = descriptor

    async def start(self, granted, isolation):
        pass

    async def request(self, method, params, chunks=None):
        described = {"name": self._descriptor.name, "kind": self._descriptor.kind, "inputs": {}, "outputs": {}}
        results = {
            "health": {"status": "ok"},
            "describe": {**described, "capabilities": []},
            "invoke": {"plugin": __name__},
        }
        return Message(ok=True, result=results[method])

    async def close(self):
        pass


@hookimpl
def open_transport(descriptor, notify):
    with Path(__file__).with_suffix(".opened").open("ab") as opened:
        opened.write(b"x")
    return Here(descriptor)
"""

SINK = """
from pathlib import Path

from amplifier_core.hookspecs import hookimpl

Path(__file__).with_suffix(".imported").write_bytes(b"yes")


class Lines:
    def __init__(self, path):
        self._file = Path(path).open("wb")

    def write(self, line):
        self._file.write(line)

    def close(self):
        self._file.close()


@hookimpl
def open_sink(options):
    Path(__file__).with_suffix(".opened").write_text(repr(dict(options)))
    return Lines(options["path"])
"""

HERE = "    return Here(descriptor)\n"
LINES = '    return Lines(options["path"])\n'
REQUEST = "    async def request(self, method, params, chunks=None):\n"


def named(transport, name="m"):
    return {"name": name, "kind": "tool", "capabilities": [], "transport": {"type": transport}}


def only_line(error):
    """Give the text of an error, which has to be one line."""
    assert len(error.message.splitlines()) == 1, error.message
    return error.message


async def refused(session, transport, kind=BadRequest):
    """Mount a module with a transport that cannot be opened, and give the error."""
    with pytest.raises(kind) as raised:
        await session.mount("/mnt/tools", named(transport))
    assert type(raised.value) is kind
    assert await session.mounts() == []
    return raised.value


async def refused_sinks(sinks, kind=BadRequest, *, log=False):
    """Open a kernel with sinks that cannot be opened, and give the error."""
    with pytest.raises(kind) as raised:
        async with Kernel(event_log=log, sinks=sinks):
            pass
    assert type(raised.value) is kind
    return raised.value


# Transports


async def test_a_transport_of_another_distribution_is_used_by_its_name(site, session):
    module = site.install(TRANSPORTS, "here", TRANSPORT)
    await session.mount("/mnt/tools", named("here"))
    assert await session.invoke("/mnt/tools/m", "any", {}) == {"plugin": module}


async def test_an_error_that_a_transport_made_itself_is_the_module_s(site, session):
    """It was not decoded from a line, so it has no size."""
    source = TRANSPORT.replace("import Message", "import ErrorBody, Message").replace(
        REQUEST,
        f"{REQUEST}        if method == 'invoke':\n"
        "            return Message(ok=False, error=ErrorBody(code='not_found', message='nobody here'))\n",
    )
    site.install(TRANSPORTS, "here", source)
    await session.mount("/mnt/tools", named("here"))
    with pytest.raises(KernelError, match="not_found: nobody here"):
        await session.invoke("/mnt/tools/m", "any", {})


async def test_an_object_may_be_a_plugin_too(site, session):
    source = TRANSPORT.replace(
        "@hookimpl\ndef open_transport(", "class Plugin:\n  @hookimpl\n  def open_transport(self, "
    )
    site.install(TRANSPORTS, "here", f"{source}\nplugin = Plugin()\n", target="{module}:plugin")
    await session.mount("/mnt/tools", named("here"))


async def test_the_error_of_an_unknown_name_has_the_installed_names_and_no_package(site, session, events):
    """Nobody owns a package of that name: an advice to install it would invite others to take the name."""
    site.install(TRANSPORTS, "a-first", TRANSPORT)
    error = await refused(session, "carrier-pigeon")
    assert only_line(error).startswith("transport 'carrier-pigeon' is not installed (installed: a-first, ")
    assert error.message.endswith(")")
    assert {"a-first", "stdio"} <= set(error.details["installed"])
    (add,) = events("mount:add")
    assert add["error"]["message"] == error.message


OURS = sorted(path.parent.name for path in Path(__file__).parents[2].glob("amplifier_*_*/pyproject.toml"))


@pytest.mark.parametrize("folder", [each for each in OURS if each.split("_")[1] in ("transport", "isolation", "sink")])
def test_a_plugin_of_ours_that_is_not_installed_is_named(site, monkeypatch, folder):
    _, noun, name = folder.split("_")
    monkeypatch.setattr(sys, "path", [])
    expected = r"\(installed: none\); try: pip install " + folder.replace("_", "-")
    with pytest.raises(BadRequest, match=rf"{expected}\Z"):
        Plugins().hook(f"amplifier_core.{noun}s", name)


async def test_a_plugin_that_is_installed_later_is_found(site, session):
    await refused(session, "here")
    site.install(TRANSPORTS, "here", TRANSPORT)
    await session.mount("/mnt/tools", named("here"))


@pytest.mark.parametrize("name", ["", "a b", "../here", pytest.param("a\nb")])
async def test_an_unknown_name_may_be_any_text(session, name):
    assert f"transport {name!r} is not installed" in only_line(await refused(session, name))


async def test_two_distributions_that_provide_one_name_are_both_named(site, session):
    first = site.install(TRANSPORTS, "here", TRANSPORT, distribution="outside-one")
    second = site.install(TRANSPORTS, "here", TRANSPORT, distribution="outside-two")
    error = await refused(session, "here")
    assert only_line(error) == "transport 'here' is provided by outside-one and outside-two: uninstall all but one"
    assert error.details["providers"] == ["outside-one", "outside-two"]
    assert not site.was("imported", first)
    assert not site.was("imported", second)


async def test_a_plugin_can_not_take_the_name_of_one_of_ours(site, session, module):
    site.install(TRANSPORTS, "stdio", TRANSPORT, distribution="outside")
    with pytest.raises(BadRequest, match=r"'stdio' is provided by amplifier-transport-stdio and outside: uninstall"):
        await session.mount("/mnt/tools", module("echo.py"), trusted=True)


async def test_one_distribution_in_two_folders_is_one(site, session, tmp_path, monkeypatch):
    """As if a checkout were installed over a release: Python takes the first."""
    site.install(TRANSPORTS, "here", TRANSPORT)
    second = tmp_path / "second"
    second.mkdir()
    monkeypatch.syspath_prepend(second)
    module = type(site)(second).install(TRANSPORTS, "here", TRANSPORT)
    await session.mount("/mnt/tools", named("here"))
    assert await session.invoke("/mnt/tools/m", "any", {}) == {"plugin": module}
    assert type(site)(second).was("opened", module)
    assert not site.was("opened", module)


@pytest.mark.parametrize(
    ("source", "target", "fault"),
    [
        (
            "import no_such_module_anywhere",
            "{module}",
            "ModuleNotFoundError: No module named 'no_such_module_anywhere'",
        ),
        (
            "from json import nothing_like_it",
            "{module}",
            "ImportError: cannot import name 'nothing_like_it' from 'json'",
        ),
        ("def (", "{module}", "SyntaxError: invalid syntax (outside_broken.py, line 1)"),
        ("raise RuntimeError('first line\\nsecond line')", "{module}", "RuntimeError: first line"),
        ("1 / 0", "{module}", "ZeroDivisionError: division by zero"),
        ("", "{module}:plugin", "AttributeError: module 'outside_broken' has no attribute 'plugin'"),
        ("", "no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
    ],
)
async def test_a_plugin_that_fails_to_import_is_an_error_with_the_cause(site, session, source, target, fault):
    site.install(TRANSPORTS, "broken", source, target=target)
    error = await refused(session, "broken")
    assert only_line(error).startswith(f"transport 'broken' of outside-broken fails to import: {fault}")
    assert type(error.__cause__).__name__ == fault.partition(":")[0]


def test_a_plugin_that_exits_when_it_is_imported_does_not_end_the_program(site):
    site.install(TRANSPORTS, "program", "import sys\nsys.exit('usage: program FILE')")
    with pytest.raises(BadRequest) as raised:
        Plugins().hook(TRANSPORTS, "program")
    assert only_line(raised.value).endswith("of outside-program fails to import: SystemExit: usage: program FILE")


def test_the_user_may_interrupt_an_import(site):
    site.install(TRANSPORTS, "slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Plugins().hook(TRANSPORTS, "slow")


async def test_a_plugin_that_could_not_be_imported_is_tried_again(site, session, tmp_path):
    gate = tmp_path / "repaired"
    site.install(TRANSPORTS, "here", f"open({str(gate)!r}).close()\n{TRANSPORT}")
    assert "FileNotFoundError" in (await refused(session, "here")).message
    gate.touch()
    await session.mount("/mnt/tools", named("here"))


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("", id="empty"),
        pytest.param(TRANSPORT.replace("@hookimpl\n", ""), id="unmarked"),
        pytest.param(TRANSPORT.replace("def open_transport", "def opentransport"), id="misspelt"),
        pytest.param(SINK, id="of another group"),
    ],
)
async def test_a_plugin_without_the_hook_is_refused(site, session, source):
    site.install(TRANSPORTS, "idle", source)
    error = await refused(session, "idle")
    assert only_line(error) == "transport 'idle': the plugin implements no hook of amplifier_core.transports"


async def test_a_hook_with_unknown_parameters_is_refused(site, session):
    site.install(TRANSPORTS, "odd", TRANSPORT.replace("(descriptor, notify)", "(descriptor, notify, loop)"))
    assert "loop" in only_line(await refused(session, "odd"))


async def test_a_hook_may_leave_parameters_out(site, session):
    site.install(TRANSPORTS, "here", TRANSPORT.replace("(descriptor, notify)", "(descriptor)"))
    await session.mount("/mnt/tools", named("here"))


async def test_a_hook_that_opens_nothing_is_refused(site, session):
    site.install(TRANSPORTS, "none", TRANSPORT.replace(HERE, "    return None\n"))
    error = await refused(session, "none")
    assert only_line(error) == "transport 'none': the plugin opens nothing for the given descriptor"


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(TRANSPORT.replace(HERE, "    return 5\n"), id="a number"),
        pytest.param(TRANSPORT.replace("    local = False\n", ""), id="without local"),
    ],
)
async def test_a_hook_that_returns_no_connection_is_refused(site, session, source):
    site.install(TRANSPORTS, "odd", source)
    assert "transport 'odd'" in only_line(await refused(session, "odd", Internal))


async def test_a_hook_that_raises_is_named_with_the_cause(site, session):
    source = (
        "    try:\n        {}['key']\n    except KeyError as error:\n        raise OSError('one\\ntwo') from error\n"
    )
    site.install(TRANSPORTS, "failing", TRANSPORT.replace(HERE, source))
    error = await refused(session, "failing", Internal)
    assert only_line(error) == "transport 'failing' raised OSError: one"
    assert error.details["causes"] == ["OSError: one", "KeyError: 'key'"]


async def test_a_field_that_does_not_fit_has_the_plugins_message(site, session):
    source = "    raise descriptor.misfit('.port', 'expected a number')\n"
    site.install(TRANSPORTS, "picky", TRANSPORT.replace(HERE, source))
    error = await refused(session, "picky")
    assert only_line(error) == "descriptor: $.transport.port: expected a number"
    assert error.details == {"path": "$.transport.port", "module": "/mnt/tools/m"}


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("    async def start(self, granted, isolation):\n", "        raise OSError('one\\ntwo')\n"),
        (REQUEST, "        raise OSError('one\\ntwo')\n"),
    ],
    ids=["start", "request"],
)
async def test_a_connection_that_raises_is_named_with_the_cause(site, session, method, body):
    site.install(TRANSPORTS, "failing", TRANSPORT.replace(method, method + body))
    error = await refused(session, "failing", Internal)
    assert only_line(error) == "transport 'failing' of /mnt/tools/m raised OSError: one"
    assert error.details["causes"] == ["OSError: one"]


async def test_a_connection_that_fails_to_close_fails_no_unmount(site, session):
    close = "    async def close(self):\n"
    site.install(TRANSPORTS, "clinging", TRANSPORT.replace(close, f"{close}        raise OSError\n"))
    await session.mount("/mnt/tools", named("clinging"))
    assert await session.unmount("/mnt/tools/m") == {"removed": ["/mnt/tools/m"]}


@pytest.mark.parametrize("reply", ["None", "{'ok': True, 'result': {'status': 'ok'}}"])
async def test_a_connection_that_returns_no_message_is_named(site, session, reply):
    site.install(TRANSPORTS, "odd", TRANSPORT.replace(REQUEST, f"{REQUEST}        return {reply}\n"))
    assert "transport 'odd'" in only_line(await refused(session, "odd", Internal))


async def test_a_result_that_was_never_encoded_is_bounded_in_the_log_too(site, session, events):
    site.install(TRANSPORTS, "here", TRANSPORT.replace('{"plugin": __name__}', '{"text": "x" * 100_000}'))
    await session.mount("/mnt/tools", named("here"))
    assert await session.invoke("/mnt/tools/m", "any", {}) == {"text": "x" * 100_000}
    (invocation,) = events("module:invoke")
    assert invocation["data"]["result"] == {"$omitted": 100_011}


async def test_a_result_that_is_not_json_is_the_transports_fault(site, session, events):
    site.install(TRANSPORTS, "odd", TRANSPORT.replace('{"plugin": __name__}', "object()"))
    await session.mount("/mnt/tools", named("odd"))
    with pytest.raises(Internal):
        await session.invoke("/mnt/tools/m", "any", {})
    assert events("module:invoke")[0]["status"] == "error"


async def test_a_report_that_is_not_json_leaves_no_gap(site, session, events):
    source = TRANSPORT.replace(HERE, f"    notify('module:start', {{'process': object(), 'pid': 1}})\n{HERE}")
    site.install(TRANSPORTS, "odd", source)
    await session.mount("/mnt/tools", named("odd"))
    assert events("module:start")[0]["data"]["pid"] == 1


async def test_an_error_whose_details_are_not_json_is_raised_all_the_same(site, session, events):
    source = (
        "    from amplifier_core import Unreachable\n    raise Unreachable('gone', details={'at': Path('x'), 'n': 1})\n"
    )
    site.install(TRANSPORTS, "odd", TRANSPORT.replace(HERE, source))
    await refused(session, "odd", Unreachable)
    (add,) = events("mount:add")
    assert (add["error"]["message"], add["error"]["details"]["n"]) == ("gone", 1)


async def test_a_connection_that_cancels_its_own_request_cancels_no_caller(site, session, events):
    source = TRANSPORT.replace("from pathlib", "import asyncio\nfrom pathlib", 1)
    site.install(
        TRANSPORTS,
        "odd",
        source.replace(
            "        return Message",
            "        if method == 'invoke':\n            raise asyncio.CancelledError\n        return Message",
        ),
    )
    await session.mount("/mnt/tools", named("odd"))
    with pytest.raises(KernelError):
        await session.invoke("/mnt/tools/m", "any", {})


async def test_a_plugin_is_loaded_only_when_it_is_named(site, session):
    here = site.install(TRANSPORTS, "here", TRANSPORT)
    other = site.install(TRANSPORTS, "other", TRANSPORT)
    sink = site.install(SINKS, "lines", SINK)
    broken = site.install(TRANSPORTS, "broken", "1 / 0")
    await session.mount("/mnt/tools", named("here"))
    assert site.was("imported", here)
    for module in (other, sink, broken):
        assert not site.was("imported", module)
        assert module not in sys.modules


async def test_the_named_plugin_alone_is_called(site, session):
    here = site.install(TRANSPORTS, "here", TRANSPORT)
    greedy = site.install(TRANSPORTS, "greedy", TRANSPORT)
    await session.mount("/mnt/tools", named("greedy", "first"))
    await session.mount("/mnt/tools", named("here", "second"))
    assert await session.invoke("/mnt/tools/second", "any", {}) == {"plugin": here}
    assert site.read("opened", greedy) == site.read("opened", here) == "x"


async def test_a_plugin_is_called_for_each_mount(site, session):
    module = site.install(TRANSPORTS, "here", TRANSPORT)
    for name in ("first", "second"):
        await session.mount("/mnt/tools", named("here", name))
    assert site.read("opened", module) == "xx"


async def test_one_module_may_be_a_transport_and_a_sink(site, tmp_path):
    both = f"{TRANSPORT}\n{SINK}"
    site.install(TRANSPORTS, "both", both, distribution="outside")
    site.install(SINKS, "both", both, distribution="outside")
    sinks = [{"type": "both", "path": str(tmp_path / "lines")}]
    async with Kernel(event_log=False, sinks=sinks) as kernel:
        session = await kernel.session.create(Plan(goal="test", inputs={}))
        await session.mount("/mnt/tools", named("both"))
    assert b"mount:add" in (tmp_path / "lines").read_bytes()


# Sinks


async def test_a_sink_of_another_distribution_gets_its_options_and_every_line(site, log, tmp_path):
    lines = site.install(SINKS, "lines", SINK)
    other = site.install(SINKS, "other", SINK)
    options = {"path": str(tmp_path / "lines"), "more": 5}
    async with Kernel(event_log=log, sinks=[{"type": "lines", **options}]) as kernel:
        session = await kernel.session.create(Plan(goal="test", inputs={}))
        session.emit("artifact:write", {"path": "out.txt"})
    assert site.read("opened", lines) == repr(options)
    assert (tmp_path / "lines").read_bytes() == log.read_bytes() != b""
    assert not site.was("imported", other)


async def test_no_sink_is_loaded_unless_it_is_named(site, log):
    lines = site.install(SINKS, "lines", SINK)
    async with Kernel(event_log=log):
        assert not site.was("imported", lines)


async def test_the_built_in_sink_has_a_name_too(log, tmp_path):
    async with Kernel(event_log=log, sinks=[{"type": "jsonl", "path": tmp_path / "folder" / "copy"}]) as kernel:
        await kernel.session.create(Plan(goal="test", inputs={}))
    assert (tmp_path / "folder" / "copy").read_bytes() == log.read_bytes() != b""


async def test_an_object_may_be_a_sink(site, log):
    module = importlib.import_module(site.install(SINKS, "lines", SINK))
    sink = module.Lines(Path(f"{log}.copy"))
    async with Kernel(event_log=log, sinks=(sink,)) as kernel:
        await kernel.session.create(Plan(goal="test", inputs={}))
    assert Path(f"{log}.copy").read_bytes() == log.read_bytes() != b""


@pytest.mark.parametrize("sink", [None, 5, "jsonl", [], {}, {"type": 5}, {"path": "x"}, Path("x"), object()])
async def test_an_object_that_is_no_sink_is_refused(sink):
    assert only_line(await refused_sinks([sink])).startswith("sinks: expected a sink or an object whose type is text")


@pytest.mark.parametrize("sinks", [None, 5, "jsonl", {"type": "jsonl", "path": "x"}])
async def test_sinks_that_are_no_list_are_refused(sinks):
    assert only_line(await refused_sinks(sinks)).startswith("sinks: expected a list")


@pytest.mark.parametrize("path", [None, 5, b"x", []])
async def test_the_built_in_sink_needs_a_path(path):
    assert only_line(await refused_sinks([{"type": "jsonl", "path": path}])).startswith("sinks: jsonl: path: expected")


@pytest.mark.parametrize(("name", "near"), [("parchment", ""), ("line", "; is lines meant?")])
async def test_the_error_of_an_unknown_sink_has_the_installed_names(site, name, near):
    site.install(SINKS, "lines", SINK)
    error = await refused_sinks([{"type": name}])
    assert only_line(error) == f"sink {name!r} is not installed (installed: jsonl, lines, otel){near}"
    assert error.details["installed"] == ["jsonl", "lines", "otel"]


async def test_a_transport_is_no_sink(site):
    module = site.install(TRANSPORTS, "here", TRANSPORT)
    assert "sink 'here' is not installed" in only_line(await refused_sinks([{"type": "here"}]))
    assert not site.was("imported", module)


async def test_two_distributions_that_provide_one_sink_are_both_named(site):
    site.install(SINKS, "jsonl", SINK, distribution="outside")
    assert only_line(await refused_sinks([{"type": "jsonl", "path": "x"}])) == (
        "sink 'jsonl' is provided by amplifier-kernel and outside: uninstall all but one"
    )


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("1 / 0", BadRequest, "sink 'odd' of outside-odd fails to import: ZeroDivisionError: division by zero"),
        ("", BadRequest, "sink 'odd': the plugin implements no hook of amplifier_core.sinks"),
        (
            SINK.replace(LINES, "    return None\n"),
            BadRequest,
            "sink 'odd': the plugin opens nothing for the given options",
        ),
        (SINK.replace(LINES, "    raise OSError('one\\ntwo')\n"), Internal, "sink 'odd' raised OSError: one"),
        (
            SINK.replace(
                LINES, "    from amplifier_core import BadRequest\n    raise BadRequest('sinks: odd: path')\n"
            ),
            BadRequest,
            "sinks: odd: path",
        ),
        pytest.param(SINK.replace(LINES, "    return 5\n"), Internal, "sink 'odd'"),
    ],
    ids=["import", "no hook", "nothing", "foreign", "refusal", "no sink"],
)
async def test_the_error_of_a_sink_that_does_not_open_has_the_cause(site, log, source, kind, message):
    site.install(SINKS, "odd", source)
    assert only_line(await refused_sinks([{"type": "odd"}], kind, log=log)).startswith(message)


async def test_a_sink_that_does_not_open_closes_those_before_it(site, log):
    closing = SINK.replace('Path(path).open("wb")', "Path(__file__)").replace(
        "self._file.close()", 'self._file.with_suffix(".closed").touch()'
    )
    first = site.install(SINKS, "first", closing)
    second = site.install(SINKS, "second", closing)
    before = [{"type": "first", "path": ""}, {"type": "second", "path": ""}]
    await refused_sinks([*before, {"type": "third"}], log=log)
    assert site.was("opened", first)
    assert site.was("closed", first)
    assert site.was("closed", second)


async def test_a_sink_that_fails_need_not_be_hashable(site):
    unhashable = SINK.replace("class Lines:\n", "class Lines:\n    __hash__ = None\n\n")
    failing = unhashable.replace('Path(path).open("wb")', "Path(path)").replace("self._file.close()", "pass")
    site.install(SINKS, "lines", failing)
    with pytest.raises(Internal, match="lost 4 events"):
        async with Kernel(event_log=False, sinks=[{"type": "lines", "path": ""}]) as kernel:
            await kernel.session.create(Plan(goal="test", inputs={}))


async def test_a_transport_cannot_report_other_events(site, session, events):
    source = TRANSPORT.replace(HERE, f"    notify('session:end', {{}})\n{HERE}")
    site.install(TRANSPORTS, "forger", source)
    error = await refused(session, "forger", Internal)
    assert "reported 'session:end', which is none of module:start, module:exit, module:noise" in only_line(error)
    assert not events("session:end")


async def test_the_kernel_waits_a_bounded_time_for_a_connection_to_close(site, session, monkeypatch):
    monkeypatch.setattr("amplifier_core._modules.module._CLOSE_SECONDS", 0.05)
    close = "    async def close(self):\n"
    hangs = f"{close}        import asyncio\n        await asyncio.Event().wait()\n"
    site.install(TRANSPORTS, "stuck", TRANSPORT.replace(close, hangs))
    await session.mount("/mnt/tools", named("stuck"))
    assert await session.unmount("/mnt/tools/m") == {"removed": ["/mnt/tools/m"]}


class Awaited:
    """A sink in the style of a library that is async."""

    def __init__(self):
        self.written = []

    async def write(self, line):
        self.written.append(line)

    async def close(self):
        pass


class AwaitedAtTheEnd(Awaited):
    def write(self, line):
        self.written.append(line)


@pytest.mark.parametrize(("sink", "method"), [(Awaited(), "write"), (AwaitedAtTheEnd(), "close")])
async def test_an_async_sink_is_refused_when_the_kernel_opens(sink, method):
    told = f"sinks: {type(sink).__name__}.{method} is async, and the kernel does not await it: make it a plain function"
    assert only_line(await refused_sinks([sink])).startswith(told)


async def test_an_async_sink_of_a_plugin_is_refused_too(site, tmp_path):
    site.install(SINKS, "lines", SINK.replace("    def write(", "    async def write("))
    options = {"type": "lines", "path": str(tmp_path / "lines")}
    assert "sinks: Lines.write is async" in only_line(await refused_sinks([options]))


class Hidden:
    """A sink whose methods are async, which only what they give tells."""

    def __init__(self, inner):
        self._inner = inner

    def write(self, line):
        return self._inner.write(line)

    def close(self):
        return self._inner.close()


async def test_what_an_async_method_gives_is_no_written_event_and_no_closed_sink(log, events):
    kernel = Kernel(event_log=log, sinks=[Hidden(Awaited())])
    await kernel.open()
    await kernel.session.create(Plan("x"))
    with pytest.raises(Internal, match="lost 4 events"):
        await kernel.close()
    (told,) = events("sink:error")
    assert "write is async, and the kernel does not await it" in told["error"]["message"]
    kernel = Kernel(event_log=False, sinks=[Hidden(AwaitedAtTheEnd())])
    await kernel.open()
    with pytest.raises(Internal, match="sink Hidden: TypeError: close is async, and the kernel does not await it"):
        await kernel.close()


async def test_a_sink_may_give_what_a_file_gives(tmp_path):
    with (tmp_path / "events").open("wb") as file:
        async with Kernel(event_log=False, sinks=[file]) as kernel:
            await kernel.session.create(Plan("x"))
    assert (tmp_path / "events").read_bytes().count(b"\n") == 4
