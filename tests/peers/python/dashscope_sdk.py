"""The unmodified dashscope SDK against the relay: only base_http_api_url and the key differ."""

import os

import peer
from peer import CHINESE, check, equal, relay_check, tagged, that

# The SDK reads these when it is imported; the machine's own settings must not leak in.
for name in list(os.environ):
    if name.startswith("DASHSCOPE_"):
        del os.environ[name]

import dashscope  # noqa: E402
from dashscope import Generation  # noqa: E402

MODEL = "qwen-plus"


def call(text, key=None, **more):
    dashscope.base_http_api_url = peer.relay_url() + "/api/v1"
    messages = [{"role": "user", "content": text}]
    return Generation.call(
        model=MODEL, messages=messages, api_key=key or peer.relay_key(), request_timeout=20, **more
    )


def checked(answer):
    equal(answer.status_code, 200, f"status ({answer.code}: {answer.message})")
    return answer


def contents(answers):
    return "".join(checked(a).output.choices[0].message.content for a in answers)


def checked_usage(usage):
    that(usage["input_tokens"] > 0 and usage["output_tokens"] > 0, f"usage: {usage}")


def streamed(text, **more):
    answers = [checked(a) for a in call(text, stream=True, result_format="message", **more)]
    that(len(answers) > 1, f"{len(answers)} answers")
    choices = [a.output.choices[0] for a in answers]
    equal(choices[-1].finish_reason, "stop", "finish reason")
    checked_usage(answers[-1].usage)
    return [c.message.content for c in choices]


def checked_growing(parts, whole):
    """Each answer repeats the one before and adds to it."""
    for shorter, longer in zip(parts, parts[1:]):
        that(longer.startswith(shorter), f"{longer!r} does not begin with {shorter!r}")
    equal(parts[-1], whole)


@check
def text_format():
    answer = checked(call("Hello " + CHINESE, result_format="text"))
    equal(answer.output.text, "You said: Hello " + CHINESE)
    equal(answer.output.finish_reason, "stop")
    that(answer.request_id, "no request_id")
    checked_usage(answer.usage)


@check
def message_format():
    answer = checked(call("Hello " + CHINESE, result_format="message"))
    choice = answer.output.choices[0]
    equal((choice.finish_reason, choice.message.role), ("stop", "assistant"))
    equal(choice.message.content, "You said: Hello " + CHINESE)
    checked_usage(answer.usage)


@check
def stream_incremental():
    parts = streamed(CHINESE + " and more words", incremental_output=True)
    equal("".join(parts), "You said: " + CHINESE + " and more words")


@check
def stream_cumulative_merged_by_the_sdk():
    # With False the SDK asks for increments and adds them up itself.
    parts = streamed(CHINESE + " and more words", incremental_output=False)
    checked_growing(parts, "You said: " + CHINESE + " and more words")


@check
def stream_cumulative_on_the_wire():
    # Without the parameter the platform's default applies: each event repeats the text so far.
    parts = streamed(CHINESE + " and more words")
    checked_growing(parts, "You said: " + CHINESE + " and more words")


@check
def stream_first_chunk_while_upstream_holds():
    tag, headers = tagged("hold={id}")
    stream = call("one two three", stream=True, incremental_output=True, result_format="message", headers=headers)
    answers = peer.take_until(contents, stream)
    peer.still_open(tag)
    that(contents(answers) != "You said: one two three", "nothing was held back")
    peer.release(tag)
    answers += stream
    equal(contents(answers), "You said: one two three")
    seen = peer.record(tag, "complete")
    equal(seen["headers"].get("x-dashscope-sse"), "enable", "X-DashScope-SSE at the sandbox")


@check
def bad_key():
    answer = call("Hello", key="not-a-proxy-key")
    equal(answer.status_code, 401, "status")
    that(answer.code and answer.message, f"code {answer.code!r}, message {answer.message!r}")
    equal(answer.output, None, "output")


@check
def bad_key_before_a_stream():
    answers = list(call("Hello", key="not-a-proxy-key", stream=True))
    equal([a.status_code for a in answers], [401], "statuses")
    that(answers[0].code, f"code {answers[0].code!r}")


@relay_check
def bad_key_is_the_relays_refusal():
    tag, headers = tagged()
    answer = call("Hello", key="not-a-proxy-key", headers=headers)
    equal(answer.status_code, 401, "status")
    sent = {name.lower(): value for name, value in answer.headers.items()}
    equal(sent.get("x-should-retry"), "false", "x-should-retry")
    that(sent.get("x-aiproxy-request-id"), "no x-aiproxy-request-id")
    equal(peer.records(tag), [], "requests at the sandbox")


@check
def upstream_429():
    tag, headers = tagged("status=429;retry-after=7")
    answer = call("Hello", headers=headers)
    equal(answer.status_code, 429, "status")
    that(answer.code and answer.message, f"code {answer.code!r}, message {answer.message!r}")
    sent = {name.lower(): value for name, value in answer.headers.items()}
    equal(sent.get("retry-after"), "7", "Retry-After")
    equal(len(peer.records(tag)), 1, "requests at the sandbox")


@relay_check
def temporary_keys_are_forbidden():
    tag, headers = tagged()
    headers["authorization"] = "Bearer " + peer.relay_key()
    status, sent, body = peer.post_json("/api/v1/tokens?expire_in_seconds=60", {}, headers)
    equal((status, body.get("code")), (403, "path_forbidden"), "answer")
    that("token" not in body, "a token was handed out")
    that(sent.get("x-aiproxy-request-id"), "no x-aiproxy-request-id")
    equal(peer.records(tag), [], "requests at the sandbox")


if __name__ == "__main__":
    peer.run()
