"""A transport without bytes, to the module of the check in this process; and one for each flaw of transports."""

import asyncio

from amplifier_core import Internal, Unreachable
from amplifier_core.hookspecs import Connection, Message, decode, decode_message, hookimpl
from amplifier_core.testing import ProbeModule


class Direct(Connection):
    """It has no flaw."""

    local = False
    unenforced = ()

    def __init__(self, descriptor, notify):
        self.limit, self.token, self.notify = descriptor.message_bytes, descriptor.transport["token"], notify
        self.module, self.replies, self.tasks, self.closed = None, {}, set(), False

    async def start(self, granted, confinement):
        self.begin()

    def begin(self):
        self.module = ProbeModule()
        self.notify("module:start", {})

    async def request(self, method, params, chunks=None):
        if self.closed:
            raise Unreachable("the module was unmounted")
        if self.module is None:
            self.begin()
        reply = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self.carry(method, decode(params), chunks, reply))
        self.tasks.add(task)
        self.replies[task] = reply
        task.add_done_callback(self.forget)
        try:
            return await reply
        except asyncio.CancelledError:
            self.cancelled(task)
            raise

    def cancelled(self, task):
        task.cancel()

    def forget(self, task):
        self.tasks.discard(task)
        self.replies.pop(task, None)

    async def carry(self, method, params, chunks, reply):
        async def send(text):
            await self.chunk(decode_message(text.encode()), chunks)

        text = await self.module.answer(method, params, send)
        if text is None:
            self.module = None
            self.fail()
        elif not reply.done():
            try:
                reply.set_result(self.read(text))
            except (Internal, ValueError, TypeError) as error:
                reply.set_exception(error)

    async def chunk(self, message, chunks):
        if chunks is not None and not chunks.put(message.chunk, message.size):
            await chunks.room()

    def read(self, text):
        if len(text) > self.limit:
            raise Internal("the message is too large")
        try:
            return decode_message(text.encode())
        except ValueError as error:
            raise Internal(f"the module broke its contract: {error}") from None

    def fail(self):
        for reply in self.replies.values():
            if not reply.done():
                reply.set_exception(Unreachable("the module went away"))

    async def close(self):
        self.closed = True
        self.fail()
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class NeedsStart(Direct):
    async def close(self):
        assert self.module.answer
        await super().close()


class NoStart(Direct):
    async def start(self, granted, confinement):
        raise Unreachable("no such module")


class BareHealth(Direct):
    async def request(self, method, params, chunks=None):
        reply = await super().request(method, params, chunks)
        return Message(result=reply.result) if method == "health" else reply


class NoMessage(Direct):
    async def request(self, method, params, chunks=None):
        return {"ok": True, "result": {"status": "ok", "name": "probe"}}


class Floats(Direct):
    def read(self, text):
        return super().read(text.replace("9007199254740993", "9007199254740992.0"))


class Cuts(Direct):
    def read(self, text):
        return super().read(text.replace("x" * 100_000, "x"))


class NoLimit(Direct):
    def read(self, text):
        return decode_message(text.encode()) if len(text) > self.limit else super().read(text)


class BreaksAtTheLimit(Direct):
    def read(self, text):
        if len(text) > self.limit:
            self.begin = self.module = None
        return super().read(text)


class OneAtATime(Direct):
    lock = None

    async def request(self, method, params, chunks=None):
        self.lock = self.lock or asyncio.Lock()
        async with self.lock:
            return await super().request(method, params, chunks)


class MixesUp(Direct):
    held = None

    async def request(self, method, params, chunks=None):
        reply = await super().request(method, params, chunks)
        if isinstance(reply.result, dict) and "n" in reply.result and "of" in reply.result:
            reply, self.held = self.held or reply, reply
        return reply


class NoDetails(Direct):
    def read(self, text):
        message = super().read(text)
        if message.error:
            message.error.details = {}
        return message


class NoState(Direct):
    def read(self, text):
        return super().read(text.replace('"state"', '"stated"'))


class NoEvents(Direct):
    def read(self, text):
        return super().read(text.replace('"events"', '"event"'))


class RaisesWhatever(Direct):
    def read(self, text):
        return decode_message(text.encode())


class BreaksOnce(Direct):
    def read(self, text):
        if "tru," in text:
            self.begin = self.module = None
        return super().read(text)


class Backwards(Direct):
    async def chunk(self, message, chunks):
        if chunks is not None:
            message.chunk["n"] = 99 - message.chunk["n"]
            await super().chunk(message, chunks)


class LateChunks(Direct):
    async def chunk(self, message, chunks):
        if chunks is not None:
            asyncio.get_running_loop().call_later(0.1, chunks.put, message.chunk, message.size)


class OtherReply(Direct):
    def read(self, text):
        return super().read(text.replace('"count": 100', '"count": 0'))


class NeverPauses(Direct):
    async def chunk(self, message, chunks):
        if chunks is not None:
            chunks.put(message.chunk, message.size)


class LosesChunks(Direct):
    async def chunk(self, message, chunks):
        if message.chunk["n"] != 150:
            await super().chunk(message, chunks)


class TellsNobody(Direct):
    def cancelled(self, task):
        pass


class Hides(Direct):
    async def request(self, method, params, chunks=None):
        try:
            return await super().request(method, params, chunks)
        except asyncio.CancelledError:
            await asyncio.sleep(1.3)
            raise


class Answers(Direct):
    async def request(self, method, params, chunks=None):
        try:
            return await super().request(method, params, chunks)
        except asyncio.CancelledError:
            raise Unreachable("given up") from None


class OtherMessage(Direct):
    async def request(self, method, params, chunks=None):
        try:
            return await super().request(method, params, chunks)
        except asyncio.CancelledError:
            raise asyncio.CancelledError from None


class CancelsAll(Direct):
    def cancelled(self, task):
        self.fail()
        super().cancelled(task)


class LateReply(Direct):
    late = None

    async def carry(self, method, params, chunks, reply):
        await super().carry(method, params, chunks, reply)
        if params.get("op") == "finish" and reply.cancelled():
            self.late = Message(ok=True, result="finished all the same")

    async def request(self, method, params, chunks=None):
        if b'"echo"' in params and self.late is not None:
            return self.late
        return await super().request(method, params, chunks)


class HangsAtTheEnd(Direct):
    failed = False

    def fail(self):
        if self.closed:
            super().fail()


class LeavesOthers(Direct):
    async def carry(self, method, params, chunks, reply):
        if params.get("op") != "die":
            await super().carry(method, params, chunks, reply)
        else:
            self.module = None
            reply.set_exception(Unreachable("the module went away"))


class OtherError(Direct):
    def fail(self):
        for reply in self.replies.values():
            if not reply.done():
                reply.set_exception(OSError("broken pipe"))


class OneError(Direct):
    def fail(self):
        error = Unreachable("the module went away")
        for reply in self.replies.values():
            if not reply.done():
                reply.set_exception(error)


class StartsTwice(Direct):
    async def request(self, method, params, chunks=None):
        if self.module is None:
            self.notify("module:start", {})
            await asyncio.sleep(0)
        return await super().request(method, params, chunks)


class StaysDown(Direct):
    async def request(self, method, params, chunks=None):
        if self.module is None and not self.closed:
            raise Unreachable("it has ended")
        return await super().request(method, params, chunks)


class Shows(Direct):
    def __repr__(self):
        return f"<Shows {self.token}>"


class ShowsInErrors(Direct):
    def fail(self):
        for reply in self.replies.values():
            if not reply.done():
                reply.set_exception(Unreachable("it went away", details={"headers": {"authorization": self.token}}))


class Chatty(Direct):
    def begin(self):
        super().begin()
        self.notify("module:progress", {})


class ClosesOnce(Direct):
    async def close(self):
        if self.closed:
            raise ValueError("it is closed")
        await super().close()


class LeavesRequests(Direct):
    def fail(self):
        if not self.closed:
            super().fail()

    async def close(self):
        self.closed = True


class LeavesTask(Direct):
    async def close(self):
        if not self.closed:
            self.task = asyncio.create_task(asyncio.sleep(3), name="keeps alive")
        await super().close()


class AnswersOn(Direct):
    async def request(self, method, params, chunks=None):
        return Message(ok=True, result={}) if self.closed else await super().request(method, params, chunks)


@hookimpl
def open_transport(descriptor, notify):
    return globals()[descriptor.transport["kind"]](descriptor, notify)
