"""The unmodified Anthropic SDK against the relay: only base_url and the key differ."""

import functools

import anthropic

import peer
from peer import CHINESE, check, equal, relay_check, tagged, that

MODEL = "claude-sandbox"


@functools.cache
def client():
    return anthropic.Anthropic(base_url=peer.relay_url(), api_key=peer.relay_key(), max_retries=0, timeout=20)


@functools.cache
def bearer_client():
    return anthropic.Anthropic(base_url=peer.relay_url(), auth_token=peer.relay_key(), max_retries=0, timeout=20)


def message(text, **more):
    return {"model": MODEL, "max_tokens": 256, "messages": [{"role": "user", "content": text}], **more}


def delta_text(events):
    return "".join(e.delta.text for e in events if e.type == "content_block_delta")


def checked_answer(answer, text):
    equal((answer.type, answer.role, answer.stop_reason), ("message", "assistant", "end_turn"))
    equal("".join(block.text for block in answer.content), text)
    that(answer.usage.input_tokens > 0 and answer.usage.output_tokens > 0, f"usage: {answer.usage}")


@check
def message_plain():
    answer = client().messages.create(**message("Hello " + CHINESE))
    checked_answer(answer, "You said: Hello " + CHINESE)


@check
def message_plain_bearer():
    tag, headers = tagged()
    answer = bearer_client().messages.create(**message("Hello"), extra_headers=headers)
    checked_answer(answer, "You said: Hello")
    that(peer.record(tag, "complete")["authorized"], "the sandbox did not accept the key")


@check
def message_stream():
    with client().messages.stream(**message("Hello " + CHINESE + " and more")) as stream:
        text = list(stream.text_stream)
        answer = stream.get_final_message()
    that(len(text) > 1, f"{len(text)} text deltas")
    equal("".join(text), "You said: Hello " + CHINESE + " and more")
    checked_answer(answer, "".join(text))


@check
def message_stream_bearer():
    with bearer_client().messages.stream(**message("Hello")) as stream:
        checked_answer(stream.get_final_message(), "You said: Hello")


@check
def message_stream_first_chunk_while_upstream_holds():
    tag, headers = tagged("hold={id}")
    with client().messages.create(**message("one two three"), stream=True, extra_headers=headers) as stream:
        events = peer.take_until(delta_text, stream)
        peer.still_open(tag)
        that(delta_text(events) != "You said: one two three", "nothing was held back")
        peer.release(tag)
        events += stream
    equal(events[0].type, "message_start")
    that(events[0].message.usage.input_tokens > 0, "usage of message_start")
    equal(events[-1].type, "message_stop")
    equal(delta_text(events), "You said: one two three")
    closing = [e for e in events if e.type == "message_delta"]
    equal([e.delta.stop_reason for e in closing], ["end_turn"])
    that(closing[0].usage.output_tokens > 0, "usage of message_delta")
    peer.record(tag, "complete")


@check
def message_stream_cancelled():
    tag, headers = tagged("hold={id}")
    try:
        with client().messages.create(**message("never read whole"), stream=True, extra_headers=headers) as stream:
            peer.take_until(delta_text, stream)
            peer.still_open(tag)
        peer.record(tag, "cut", seconds=10)
    finally:
        peer.release(tag)


@check
def upstream_429():
    tag, headers = tagged("status=429;retry-after=7")
    with peer.raises(anthropic.RateLimitError) as caught:
        client().messages.create(**message("Hello"), extra_headers=headers)
    error = caught.error
    equal((error.status_code, error.body["type"]), (429, "error"))
    equal(error.body["error"]["type"], "rate_limit_error")
    that(error.body["error"]["message"], "no message")
    equal(error.response.headers.get("retry-after"), "7", "Retry-After")
    equal(len(peer.records(tag)), 1, "requests at the sandbox")


@check
def platform_request_id():
    response = client().messages.with_raw_response.create(**message("Hello"))
    that(response.headers.get("request-id"), "no request-id")
    equal(response.parse()._request_id, response.headers["request-id"])


@relay_check
def aiproxy_request_id():
    response = client().messages.with_raw_response.create(**message("Hello"))
    that(response.headers.get("x-aiproxy-request-id"), "no x-aiproxy-request-id")
    with peer.raises(anthropic.RateLimitError) as caught:
        client().messages.create(**message("Hello"), extra_headers={"x-sandbox": "status=429"})
    that(caught.error.response.headers.get("x-aiproxy-request-id"), "no x-aiproxy-request-id on the error")


@check
def wrong_key():
    for caller in (
        client().with_options(api_key="not-a-proxy-key", max_retries=2),
        bearer_client().with_options(auth_token="not-a-proxy-key", max_retries=2),
    ):
        with peer.raises(anthropic.AuthenticationError) as caught:
            caller.messages.create(**message("Hello"))
        error = caught.error
        equal((error.status_code, error.body["type"]), (401, "error"))
        equal(error.body["error"]["type"], "authentication_error")
        that(error.body["error"]["message"], "no message")
        equal(error.request.headers["x-stainless-retry-count"], "0", "retries taken")


@relay_check
def wrong_key_is_the_relays_refusal():
    tag, headers = tagged()
    with peer.raises(anthropic.AuthenticationError) as caught:
        client().with_options(api_key="not-a-proxy-key").messages.create(**message("Hello"), extra_headers=headers)
    answer = caught.error.response
    equal(answer.headers.get("x-should-retry"), "false", "x-should-retry")
    that(answer.headers.get("x-aiproxy-request-id"), "no x-aiproxy-request-id")
    that("not-a-proxy-key" not in answer.text, "the answer repeats the key")
    equal(peer.records(tag), [], "requests at the sandbox")


if __name__ == "__main__":
    peer.run()
