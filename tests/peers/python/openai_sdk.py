"""The unmodified OpenAI SDK against the relay: only base_url and api_key differ."""

import asyncio
import contextlib
import functools
import hashlib
import os

import openai

import peer
from peer import CHINESE, MIB, check, equal, relay_check, tagged, that

CHAT = "gpt-4o-mini"
EMBEDDING = "text-embedding-3-small"


@functools.cache
def client():
    return openai.OpenAI(base_url=peer.relay_url() + "/v1", api_key=peer.relay_key(), max_retries=0, timeout=20)


def user(text):
    return [{"role": "user", "content": text}]


def chat(text, **more):
    return client().chat.completions.create(model=CHAT, messages=user(text), **more)


def deltas(chunks):
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def output_text(events):
    return "".join(e.delta for e in events if e.type == "response.output_text.delta")


def refused(kind, scenario):
    """The error that a chat call gets when the platform plays `scenario`."""
    tag, headers = tagged(scenario)
    with peer.raises(kind) as caught:
        chat("Hello", extra_headers=headers)
    equal(type(caught.error), kind, "error class")
    equal(len(peer.records(tag)), 1, "requests at the sandbox")
    return caught.error


# --- models -----------------------------------------------------------------


@check
def models_list():
    ids = [model.id for model in client().models.list()]
    that(CHAT in ids and EMBEDDING in ids, f"models: {ids}")
    equal(len(ids), len(set(ids)), "distinct models")


@check
def models_retrieve():
    model = client().models.retrieve(CHAT)
    equal((model.id, model.object), (CHAT, "model"))


# --- chat completions ----------------------------------------------------------


@check
def chat_plain():
    answer = chat("Hello there")
    equal(answer.choices[0].message.content, "You said: Hello there")
    equal(answer.choices[0].finish_reason, "stop")
    usage = answer.usage
    that(usage.prompt_tokens > 0 and usage.completion_tokens > 0, f"usage: {usage}")
    equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, "total tokens")


@check
def chat_chinese():
    equal(chat(CHINESE).choices[0].message.content, "You said: " + CHINESE)


@check
def chat_stream():
    chunks = list(chat(CHINESE + " and five more words here", stream=True))
    that(len(chunks) > 3, f"{len(chunks)} chunks")
    equal(deltas(chunks), "You said: " + CHINESE + " and five more words here")
    equal([c.choices[0].finish_reason for c in chunks if c.choices][-1], "stop", "finish reason")
    that(not any(c.usage for c in chunks), "usage was not asked for")
    equal(len({c.id for c in chunks}), 1, "ids of one answer")


@check
def chat_stream_first_chunk_while_upstream_holds():
    tag, headers = tagged("hold={id}")
    with chat("one two three", stream=True, extra_headers=headers) as stream:
        chunks = peer.take_until(deltas, stream)
        peer.still_open(tag)
        that(deltas(chunks) != "You said: one two three", "nothing was held back")
        peer.release(tag)
        chunks += stream
    equal(deltas(chunks), "You said: one two three")
    peer.record(tag, "complete")


@check
def chat_stream_usage():
    chunks = list(chat("count me", stream=True, stream_options={"include_usage": True}))
    equal(deltas(chunks), "You said: count me")
    that(not any(c.usage for c in chunks[:-1]), "usage before the last chunk")
    equal(chunks[-1].choices, [], "choices of the usage chunk")
    usage = chunks[-1].usage
    that(usage.prompt_tokens > 0 and usage.completion_tokens > 0, f"usage: {usage}")


@check
def chat_stream_cancelled():
    tag, headers = tagged("hold={id}")
    try:
        with chat("never read whole", stream=True, extra_headers=headers) as stream:
            peer.take_until(deltas, stream)
            peer.still_open(tag)
        peer.record(tag, "cut", seconds=10)
    finally:
        peer.release(tag)


@check
def chat_async():
    async def scenario():
        tag, headers = tagged("hold={id}")
        async with openai.AsyncOpenAI(
            base_url=peer.relay_url() + "/v1", api_key=peer.relay_key(), max_retries=0, timeout=20
        ) as caller:
            plain, stream = await asyncio.gather(
                caller.chat.completions.create(model=CHAT, messages=user(CHINESE)),
                caller.chat.completions.create(
                    model=CHAT, messages=user("one two three"), stream=True, extra_headers=headers
                ),
            )
            equal(plain.choices[0].message.content, "You said: " + CHINESE)
            chunks = []
            while not deltas(chunks):
                chunks.append(await anext(stream))
            await asyncio.to_thread(peer.still_open, tag)
            await asyncio.to_thread(peer.release, tag)
            chunks += [chunk async for chunk in stream]
            equal(deltas(chunks), "You said: one two three")

    asyncio.run(scenario())


# --- embeddings, speech, responses ------------------------------------------------


@check
def embeddings():
    # The SDK asks for base64 unless told otherwise, and decodes it itself.
    texts = ["first text", CHINESE]
    packed = client().embeddings.create(model=EMBEDDING, input=texts)
    floats = client().embeddings.create(model=EMBEDDING, input=texts, encoding_format="float")
    equal([item.index for item in packed.data], [0, 1])
    that(len(packed.data[0].embedding) > 1, "empty embedding")
    that(packed.usage.prompt_tokens > 0, f"usage: {packed.usage}")
    for one, other in zip(packed.data, floats.data, strict=True):
        gap = max(abs(a - b) for a, b in zip(one.embedding, other.embedding, strict=True))
        that(gap < 1e-5, f"base64 and float differ by {gap}")


@check
def speech_to_file():
    path = peer.work_file("speech.mp3")
    tag, headers = tagged()
    try:
        with client().audio.speech.with_streaming_response.create(
            model="tts-1", voice="alloy", input="Hello " + CHINESE, extra_headers=headers
        ) as response:
            that(response.headers["content-type"].startswith("audio/"), response.headers["content-type"])
            response.stream_to_file(path)
        that(os.path.getsize(path) > 0, "empty audio")
        equal(os.path.getsize(path), peer.record(tag, "complete")["response_bytes"], "bytes of audio")
    finally:
        remove(path)


@check
def responses_plain():
    answer = client().responses.create(model=CHAT, input="Hello " + CHINESE)
    equal(answer.status, "completed")
    equal(answer.output_text, "You said: Hello " + CHINESE)
    that(answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0, f"usage: {answer.usage}")


@check
def responses_stream():
    tag, headers = tagged("hold={id}")
    with client().responses.create(model=CHAT, input="one two three", stream=True, extra_headers=headers) as stream:
        events = peer.take_until(output_text, stream)
        peer.still_open(tag)
        that(output_text(events) != "You said: one two three", "nothing was held back")
        peer.release(tag)
        events += stream
    equal(events[0].type, "response.created")
    equal(events[-1].type, "response.completed")
    equal(output_text(events), "You said: one two three")
    numbers = [e.sequence_number for e in events]
    equal(numbers, sorted(numbers), "sequence numbers")
    that(events[-1].response.usage.output_tokens > 0, "usage of the finished response")


# --- files ------------------------------------------------------------------


def remove(path):
    if os.path.exists(path):
        os.remove(path)


def transfer(size, watched):
    """Uploads `size` random bytes from disk and downloads them to disk,
    comparing sha256 at every station."""
    source, target = peer.work_file("up.bin"), peer.work_file("down.bin")
    watch = peer.memory_growth_below if watched else (lambda *_: contextlib.nullcontext())
    caller = client().with_options(timeout=120)
    try:
        sha256 = peer.random_file(source, size)

        tag, headers = tagged()
        with open(source, "rb") as file:
            with watch(8, f"upload of {size // MIB} MiB"):
                answer = caller.files.with_raw_response.create(
                    file=("up.bin", file), purpose="user_data", extra_headers=headers
                )
            # The SDK's own multipart body, rendered a second time from disk.
            body = hashlib.sha256()
            for block in answer.http_request.stream:
                body.update(block)
        seen = peer.record(tag, "complete")
        stored = answer.parse()
        equal(seen["request_sha256"], body.hexdigest(), "sha256 of the request body")
        equal(seen["request_bytes"], int(answer.http_request.headers["content-length"]), "bytes of the request body")
        equal((stored.bytes, stored.filename, stored.purpose), (size, "up.bin", "user_data"), "stored file")

        tag, headers = tagged()
        with watch(8, f"download of {size // MIB} MiB"):
            with caller.files.with_streaming_response.content(stored.id, extra_headers=headers) as response:
                response.stream_to_file(target)
        equal(os.path.getsize(target), size, "bytes downloaded")
        equal(peer.file_sha256(target), sha256, "sha256 of the download")
        equal(peer.record(tag, "complete")["response_bytes"], size, "bytes the sandbox sent")
        that(caller.files.delete(stored.id).deleted, "not deleted")
    finally:
        remove(source)
        remove(target)


@check
def files_64_mib_streamed():
    transfer(4 * MIB, watched=False)
    transfer(64 * MIB, watched=True)


@check
def files_list_and_delete():
    stored = client().files.create(file=("说明.txt", "内容".encode()), purpose="user_data")
    equal(client().files.retrieve(stored.id).filename, "说明.txt", "file name")
    that(stored.id in [f.id for f in client().files.list()], "not in the list")
    gone = client().files.delete(stored.id)
    equal((gone.id, gone.deleted), (stored.id, True), "answer to delete")
    that(stored.id not in [f.id for f in client().files.list()], "still in the list")
    with peer.raises(openai.NotFoundError):
        client().files.retrieve(stored.id)


# --- refusals ---------------------------------------------------------------


@check
def upstream_429():
    error = refused(openai.RateLimitError, "status=429;retry-after=7")
    equal((error.status_code, error.code), (429, "rate_limit_exceeded"))
    equal(error.body["type"], "requests", "type in the body")
    that(error.body["message"], "no message")
    equal(error.response.headers.get("retry-after"), "7", "Retry-After")


@check
def upstream_400():
    error = refused(openai.BadRequestError, "status=400;code=context_length_exceeded")
    equal((error.status_code, error.code), (400, "context_length_exceeded"))
    equal(error.type, "invalid_request_error")
    that(error.body["message"], "no message")


@check
def upstream_500():
    error = refused(openai.InternalServerError, "status=500")
    equal((error.status_code, error.type), (500, "server_error"))
    that(error.body["message"], "no message")


@check
def upstream_429_before_a_stream():
    tag, headers = tagged("status=429;retry-after=7")
    with peer.raises(openai.RateLimitError) as caught:
        chat("Hello", stream=True, extra_headers=headers)
    equal(caught.error.code, "rate_limit_exceeded")
    equal(caught.error.response.headers.get("retry-after"), "7", "Retry-After")


@relay_check
def wrong_proxy_key():
    tag, headers = tagged()
    stranger = client().with_options(api_key="not-a-proxy-key", max_retries=2)
    with peer.raises(openai.AuthenticationError) as caught:
        stranger.chat.completions.create(model=CHAT, messages=user("Hello"), extra_headers=headers)
    error = caught.error
    equal((error.status_code, error.code), (401, "invalid_key"))
    that(error.body["message"], "no message")
    that("not-a-proxy-key" not in error.response.text, "the answer repeats the key")
    equal(error.response.headers.get("x-should-retry"), "false", "x-should-retry")
    equal(error.request.headers["x-stainless-retry-count"], "0", "retries taken")
    equal(peer.records(tag), [], "requests at the sandbox")


# --- request ids ------------------------------------------------------------


def answers():
    """(what, response headers) of one call to each endpoint, errors too."""
    raw = {
        "models.list": lambda h: client().models.with_raw_response.list(extra_headers=h),
        "models.retrieve": lambda h: client().models.with_raw_response.retrieve(CHAT, extra_headers=h),
        "chat": lambda h: client().chat.completions.with_raw_response.create(
            model=CHAT, messages=user("Hello"), extra_headers=h
        ),
        "chat stream": lambda h: client().chat.completions.with_raw_response.create(
            model=CHAT, messages=user("Hello"), stream=True, extra_headers=h
        ),
        "embeddings": lambda h: client().embeddings.with_raw_response.create(
            model=EMBEDDING, input="Hello", extra_headers=h
        ),
        "speech": lambda h: client().audio.speech.with_raw_response.create(
            model="tts-1", voice="alloy", input="Hello", extra_headers=h
        ),
        "responses": lambda h: client().responses.with_raw_response.create(
            model=CHAT, input="Hello", extra_headers=h
        ),
        "files.list": lambda h: client().files.with_raw_response.list(extra_headers=h),
    }
    for what, call in raw.items():
        response = call({})
        response.http_response.close()
        yield what, response.headers
    for status in (400, 429, 500):
        with peer.raises(openai.APIStatusError) as caught:
            raw["chat"]({"x-sandbox": f"status={status}"})
        equal(caught.error.request_id, caught.error.response.headers.get("x-request-id"), "the SDK's request_id")
        yield f"status {status}", caught.error.response.headers


def distinct_ids(header):
    ids = {}
    for what, headers in answers():
        that(headers.get(header), f"{what}: no {header}")
        ids[what] = headers[header]
    equal(len(set(ids.values())), len(ids), f"distinct values of {header} in {ids}")


@check
def request_id_on_every_answer():
    distinct_ids("x-request-id")


@relay_check
def aiproxy_request_id_on_every_answer():
    distinct_ids("x-aiproxy-request-id")


@relay_check
def request_ids_on_the_relays_own_refusal():
    stranger = client().with_options(api_key="not-a-proxy-key")
    with peer.raises(openai.AuthenticationError) as caught:
        stranger.models.list()
    that(caught.error.response.headers.get("x-aiproxy-request-id"), "no x-aiproxy-request-id")
    that(caught.error.request_id, "no x-request-id")


if __name__ == "__main__":
    peer.run()
