"""A client that finds HTTP/3 by itself: niquests begins over TCP, reads `Alt-Svc` and goes on over QUIC (with qh3,
which is not aioquic). SSL_CERT_FILE names the authority."""

import json
import os

import niquests
import peer
from peer import CHINESE, check, equal, that

CHAT = "/v1/chat/completions"
# As niquests calls versions.
HTTP_1, HTTP_2, HTTP_3 = 11, 20, 30


def session(**more):
    made = niquests.Session(**more)
    made.verify = os.environ["SSL_CERT_FILE"]
    made.trust_env = False
    made.headers["authorization"] = f"Bearer {peer.relay_key()}"
    return made


def models(caller):
    return caller.get(peer.relay_url() + "/v1/models", timeout=20)


def over_http_3(caller):
    """Asks until it has found HTTP/3; the versions on the way."""
    versions = []
    for _ in range(3):
        answer = models(caller)
        equal(answer.status_code, 200, "status")
        versions.append(answer.http_version)
    equal(versions[1:], [HTTP_3, HTTP_3], f"versions after the first, of {versions}")
    return versions[0]


@check
def follows_from_http_2():
    with session() as caller:
        equal(over_http_3(caller), HTTP_2, "the first version")
        tag, headers = peer.tagged()
        chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": CHINESE}]}
        answer = caller.post(peer.relay_url() + CHAT, json=chat, headers=headers, timeout=20)
        equal((answer.status_code, answer.http_version), (200, HTTP_3), "status and version of a POST")
        equal(answer.json()["choices"][0]["message"]["content"], f"You said: {CHINESE}")
        peer.record(tag, "complete")


@check
def follows_from_http_1():
    with session(disable_http2=True) as caller:
        equal(over_http_3(caller), HTTP_1, "the first version")


@check
def streams_over_http_3():
    with session() as caller:
        over_http_3(caller)
        tag, headers = peer.tagged("hold={id}")
        chat = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "one two three"}]}
        answer = caller.post(peer.relay_url() + CHAT, json=chat, headers=headers, stream=True, timeout=20)
        equal((answer.status_code, answer.http_version), (200, HTTP_3), "status and version of a stream")
        lines = answer.iter_lines()
        first = peer.take_until(lambda lines: [line for line in lines if line.startswith(b"data: ")], lines)
        peer.still_open(tag)
        peer.release(tag)
        events = [line[6:] for line in [*first, *lines] if line.startswith(b"data: ")]
        equal(events[-1], b"[DONE]", "the last event")
        deltas = [choice["delta"] for event in events[:-1] for choice in json.loads(event)["choices"]]
        equal("".join(delta.get("content") or "" for delta in deltas), "You said: one two three")


@check
def is_told_of_one_place():
    with session(disable_http3=True) as caller:
        answer = models(caller)
        that(answer.headers["alt-svc"].startswith('h3=":'), f"Alt-Svc: {answer.headers['alt-svc']}")
        equal(models(caller).http_version, HTTP_2, "the version of a caller that cannot")


if __name__ == "__main__":
    peer.run()
