"""HTTP/3 from outside: aioquic as a caller. AIPROXY_URL is https://HOST:PORT, the port being one of UDP."""

import asyncio
import hashlib
import json
import os

import h3_peer
import peer
from h3_peer import CANCELLED, ErrorCode
from peer import CHINESE, MIB, equal, that

# In `system.cors.origins`, as in the demo's.
PAGE = "http://localhost:8000"
CHAT = "/v1/chat/completions"
SSE_END = b"data: [DONE]\n\n"
# A check that has not ended by then never will.
SECONDS = 150
BLOCK = 64 * 1024


def check(scenario):
    """A check on a connection of its own."""

    def run():
        async def connected():
            async with h3_peer.connect(peer.relay_url()) as caller:
                await scenario(caller)

        asyncio.run(asyncio.wait_for(connected(), SECONDS))

    run.__name__ = scenario.__name__
    peer.check(run)
    return scenario


def with_key(**headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"authorization": f"Bearer {peer.relay_key()}", **named}


def chat(text, **more):
    content = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **more}
    return json.dumps(content, ensure_ascii=False).encode()


def ask(caller, text, scenario=None, **more):
    """A streaming chat: (tag, exchange)."""
    tag, headers = peer.tagged(scenario)
    headers = {**with_key(content_type="application/json"), **headers}
    return tag, caller.request("POST", CHAT, headers, chat(text, stream=True, **more))


def said(stream):
    """The text of a chat's events."""
    lines = [line[6:] for line in stream.decode().split("\n") if line.startswith("data: {")]
    deltas = (choice["delta"] for line in lines for choice in json.loads(line)["choices"])
    return "".join(delta.get("content") or "" for delta in deltas)


async def record(tag, outcome):
    """As `peer.record`; the connection goes on meanwhile."""
    return await asyncio.to_thread(peer.record, tag, outcome)


async def works(caller):
    """The connection serves requests still."""
    exchange, _ = await caller.fetch("GET", "/v1/models", with_key())
    equal(exchange.status, 200, "status of a later request")


async def is_broken_off(exchange, *codes):
    with peer.raises(h3_peer.StreamReset) as caught:
        await exchange.body()
    that(caught.error.code in codes, f"code {caught.error.code:#x}")


# --- requests and answers ----------------------------------------------------


@check
async def get(caller):
    exchange, body = await caller.fetch("GET", "/v1/models", with_key())
    equal(exchange.status, 200, "status")
    equal(json.loads(body)["object"], "list")
    equal(int(exchange.headers["content-length"]), len(body), "content-length")
    for name in ("date", "x-aiproxy-request-id"):
        that(name in exchange.headers, f"no {name}")
    for name in ("connection", "transfer-encoding", "alt-svc"):
        that(name not in exchange.headers, f"{name} in an answer over HTTP/3")


@check
async def head(caller):
    exchange, body = await caller.fetch("HEAD", "/v1/models", {"authorization": "Bearer pk_none_1"})
    equal((exchange.status, body), (401, b""), "answer to HEAD")
    that(int(exchange.headers["content-length"]) > 0, "no content-length")


@check
async def post(caller):
    tag, headers = peer.tagged()
    sent = chat(CHINESE)
    headers = {**with_key(content_type="application/json", content_length=str(len(sent))), **headers}
    exchange, body = await caller.fetch("POST", CHAT, headers, sent)
    equal(exchange.status, 200, "status")
    equal(json.loads(body)["choices"][0]["message"]["content"], f"You said: {CHINESE}")
    seen = await record(tag, "complete")
    equal(seen["request_sha256"], hashlib.sha256(sent).hexdigest(), "sha256 of the request body")
    that(seen["authorized"], "the platform saw another key")


@check
async def sse(caller):
    tag, exchange = ask(caller, "one two three", "hold={id}")
    equal(await exchange.head(), 200, "status")
    that(exchange.headers["content-type"].startswith("text/event-stream"), "not an event stream")
    first = await exchange.chunk()
    that(b"data: " in first and SSE_END not in first, f"first chunk: {first!r}")
    peer.still_open(tag)
    peer.release(tag)
    stream = first + await exchange.body()
    that(stream.endswith(SSE_END), "the end of the stream")
    equal(said(stream), "You said: one two three")
    await record(tag, "complete")


@check
async def fifty_at_once(caller):
    asked = [ask(caller, f"number {number}", "hold={id}") for number in range(50)]
    firsts = [await exchange.until(b"data: ") for _, exchange in asked]
    for tag, _ in reversed(asked):
        peer.release(tag)
    for number, ((_, exchange), first) in enumerate(zip(asked, firsts)):
        equal(said(first + await exchange.body()), f"You said: number {number}")


@check
async def trailers_both_ways(caller):
    tag, headers = peer.tagged("trailers")
    headers = {**with_key(content_type="application/json", te="trailers", trailer="x-checksum"), **headers}
    exchange = caller.request("POST", CHAT, headers, chat("hi"), end=False)
    exchange.finish({"x-checksum": "abc"})
    equal(await exchange.head(), 200, "status")
    await exchange.body()
    equal(exchange.trailers, {"x-sandbox-trailer": "done"}, "trailers of the answer")
    equal((await record(tag, "complete"))["request_trailers"], {"x-checksum": "abc"}, "trailers of the request")


# --- bodies of 64 MiB --------------------------------------------------------


async def upload(caller, size):
    """A file of random bytes: (its id, its sha256)."""
    tag, headers = peer.tagged()
    start = (
        b'--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="up.bin"\r\n\r\n'
    )
    end = b"\r\n--x--\r\n"
    length = str(len(start) + size + len(end))
    headers = {**with_key(content_type="multipart/form-data; boundary=x", content_length=length), **headers}
    exchange = caller.request("POST", "/v1/files", headers, end=False)
    whole, file = hashlib.sha256(), hashlib.sha256()
    for part in [start, *(None for _ in range(size // BLOCK)), end]:
        if part is None:
            part = os.urandom(BLOCK)
            file.update(part)
        whole.update(part)
        that(await exchange.send(part), "the relay takes no more of the upload")
    exchange.finish()
    equal(await exchange.head(), 200, "status of the upload")
    stored = json.loads(await exchange.body())
    equal(stored["bytes"], size, "bytes stored")
    equal((await record(tag, "complete"))["request_sha256"], whole.hexdigest(), "sha256 of the request body")
    return stored["id"], file.hexdigest()


async def download(caller, file, size, sha256):
    tag, headers = peer.tagged()
    exchange = caller.request("GET", f"/v1/files/{file}/content", {**with_key(), **headers})
    equal(await exchange.head(), 200, "status of the download")
    digest, length = hashlib.sha256(), 0
    async for data in exchange.chunks():
        digest.update(data)
        length += len(data)
    equal((length, digest.hexdigest()), (size, sha256), "the download")
    equal((await record(tag, "complete"))["response_bytes"], size, "bytes the sandbox sent")


async def transfer(caller, size, watched):
    watch = peer.memory_growth_below if watched else (lambda *_: peer.contextlib.nullcontext())
    with watch(8, f"upload of {size // MIB} MiB over HTTP/3"):
        file, sha256 = await upload(caller, size)
    with watch(8, f"download of {size // MIB} MiB over HTTP/3"):
        await download(caller, file, size, sha256)
    exchange, _ = await caller.fetch("DELETE", f"/v1/files/{file}", with_key())
    equal(exchange.status, 200, "status of the removal")


@check
async def mib_64_up_and_down(caller):
    await transfer(caller, 4 * MIB, watched=False)
    await transfer(caller, 64 * MIB, watched=True)


# --- broken off --------------------------------------------------------------


@check
async def cancelled_answer(caller):
    tag, exchange = ask(caller, "one two three", "hold={id}")
    await exchange.until(b"data: ")
    peer.still_open(tag)
    exchange.cancel()
    await record(tag, "cut")
    await works(caller)


@check
async def cancelled_before_the_answer(caller):
    tag, headers = peer.tagged("hold={id}")
    exchange = caller.request("POST", CHAT, {**with_key(content_type="application/json"), **headers}, chat("hi"))
    while not peer.records(tag):
        await asyncio.sleep(0.02)
    exchange.cancel()
    await record(tag, "cut")
    await works(caller)


@check
async def upload_reset_halfway(caller):
    # What is read ahead for the sake of routing is less.
    for length in ({"content-length": str(8 * MIB)}, {}):
        tag, headers = peer.tagged()
        headers = {**with_key(content_type="multipart/form-data; boundary=x"), **length, **headers}
        exchange = caller.request("POST", "/v1/files", headers, end=False)
        await exchange.send(b'--x\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n')
        for _ in range(4 * MIB // BLOCK):
            await exchange.send(os.urandom(BLOCK))
        while not any(seen["request_bytes"] > MIB for seen in peer.records(tag)):
            await asyncio.sleep(0.02)
        exchange.reset()
        seen = await record(tag, "cut")
        equal(seen["request_sha256"], None, "the platform took half of it for all")
        # An answer may say so, or the stream end.
        try:
            that(await exchange.head() >= 400, f"status {exchange.status}")
        except h3_peer.StreamReset:
            pass
        await works(caller)


@check
async def platform_breaks_off(caller):
    _, exchange = ask(caller, "one two three four", "cut=2")
    equal(await exchange.head(), 200, "status")
    await is_broken_off(exchange, ErrorCode.H3_INTERNAL_ERROR)
    await works(caller)


@check
async def refused_upload(caller):
    """The refusal is all there, though the upload is not."""
    headers = {**with_key(content_length=str(64 * MIB)), "authorization": "Bearer pk_none_1"}
    exchange = caller.request("POST", "/v1/files", headers, end=False)
    await exchange.send(os.urandom(BLOCK))
    equal(await exchange.head(), 401, "status")
    equal(json.loads(await exchange.body())["error"]["code"], "invalid_key")
    while await exchange.send(os.urandom(BLOCK)):
        await asyncio.sleep(0.01)
    equal(exchange.stopped, ErrorCode.H3_NO_ERROR, "the code with which the rest is declined")
    await works(caller)


# --- refusals ----------------------------------------------------------------


@check
async def wrong_key(caller):
    for headers, code in (({"authorization": "Bearer pk_none_1"}, "invalid_key"), ({}, "missing_key")):
        exchange, body = await caller.fetch("GET", "/v1/models", headers)
        equal((exchange.status, json.loads(body)["error"]["code"]), (401, code))
        that(exchange.headers["content-type"].startswith("application/json"), "not JSON")


@check
async def preflight(caller):
    wanted = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    exchange, body = await caller.fetch("OPTIONS", CHAT, {"origin": PAGE, **wanted})
    equal((exchange.status, body), (204, b""), "answer to a preflight")
    equal(exchange.headers["access-control-allow-origin"], PAGE)
    exchange, _ = await caller.fetch("OPTIONS", CHAT, {"origin": PAGE + ".evil", **wanted})
    equal(exchange.status, 403, "status for another origin")
    exchange, _ = await caller.fetch("GET", "/v1/models", with_key(origin=PAGE))
    equal(exchange.headers["access-control-allow-origin"], PAGE)


# --- the connection ----------------------------------------------------------


@check
async def rebinds_midway(caller):
    """A NAT forgets the caller's port, several times; whichever thread the packets reach, they are understood."""
    alive = asyncio.ensure_future(signs_of_life(caller))
    try:
        await rebinding(caller)
    finally:
        alive.cancel()


async def signs_of_life(caller):
    """As browsers give them while they wait. The relay's question whether the new address is right may be lost, or
    be answered too late on a slow machine; then it goes back to the old one until something comes again."""
    while True:
        await asyncio.sleep(0.25)
        await caller.ping()


async def rebinding(caller):
    _, exchange = ask(caller, "go on", "chunks=60;delay=20")
    stream = await exchange.until(b"data: ")
    ports = [caller.port()]
    for _ in range(6):
        await caller.rebind()
        ports.append(caller.port())
        # Two, so that one at least was sent to the new port.
        stream += await exchange.chunk() + await exchange.chunk()
    stream += await exchange.body()
    that(stream.endswith(SSE_END), "the end of the stream")
    equal(len(set(ports)), 7, "ports")
    await works(caller)
    file, sha256 = await moving(caller, upload(caller, 4 * MIB))
    await moving(caller, download(caller, file, 4 * MIB, sha256))


async def moving(caller, task):
    """The result of a task, during which the caller moves; with another connection id each other time."""
    task = asyncio.ensure_future(task)
    for number in range(6):
        done, _ = await asyncio.wait([task], timeout=0.05)
        if done:
            break
        if number % 2:
            caller.change_connection_id()
        await caller.rebind()
    return await task


@check
async def new_keys_midway(caller):
    tag, exchange = ask(caller, "one two three", "hold={id}")
    first = await exchange.until(b"data: ")
    caller.request_key_update()
    await caller.ping()
    peer.release(tag)
    equal(said(first + await exchange.body()), "You said: one two three")


@peer.check
def resumes_without_early_data():
    async def scenario():
        tickets = []
        async with h3_peer.connect(peer.relay_url(), on_ticket=tickets.append) as caller:
            await works(caller)
        that(tickets, "no session ticket")
        that(not any(ticket.max_early_data_size for ticket in tickets), "early data is offered")
        async with h3_peer.connect(peer.relay_url(), session_ticket=tickets[-1]) as caller:
            await works(caller)
            equal((caller.resumed, caller.early), (True, False), "resumed, early data taken")

    asyncio.run(asyncio.wait_for(scenario(), SECONDS))


if __name__ == "__main__":
    peer.run()
