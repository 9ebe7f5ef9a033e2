"""Asks a model through AIProxy over HTTP/3 and prints the answer while it comes, with the package aioquic.

    cargo run --bin aiproxy -- demo                    # in another terminal
    pip install aioquic
    AIPROXY_KEY=$(cat data/demo/proxy-key) python examples/http3_client.py --ca data/demo/data/tls/self-signed.pem

Several questions share one connection, each on a stream of its own: one that waits holds up no other.
通过 AIProxy 以 HTTP/3 向模型提问，边接收边打印回答；多个问题共用一个连接，互不阻塞。
"""

import argparse
import asyncio
import json
import os
from urllib.parse import urlsplit

from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.h3.connection import H3_ALPN, ErrorCode, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamReset


class Http3(QuicConnectionProtocol):
    """An HTTP/3 connection. Requests may be under way at the same time."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.http = H3Connection(self._quic)
        self.answers = {}

    async def post(self, url, headers, body):
        """Sends a request; yields the answer's status, then its body piece by piece."""
        stream = self._quic.get_next_available_stream_id()
        events = self.answers[stream] = asyncio.Queue()
        path = url.path + ("?" + url.query if url.query else "")
        pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", url.netloc), (":path", path)]
        fields = [(name.encode(), value.encode()) for name, value in [*pseudo, *headers.items()]]
        self.http.send_headers(stream, fields)
        self.http.send_data(stream, body, end_stream=True)
        self.transmit()
        over = False
        try:
            while not over:
                event = await events.get()
                if isinstance(event, StreamReset):
                    over = True
                    raise ConnectionError(f"the answer was broken off (code {event.error_code:#x})")
                if isinstance(event, ConnectionTerminated):
                    over = True
                    raise ConnectionError(f"the connection ended (code {event.error_code:#x})")
                over = event.stream_ended
                if isinstance(event, DataReceived):
                    yield event.data
                # Trailers have no status.
                elif status := dict(event.headers).get(b":status"):
                    yield int(status)
        finally:
            del self.answers[stream]
            if not over:
                # Whoever loses interest says so: AIProxy then stops the platform's work.
                self._quic.stop_stream(stream, ErrorCode.H3_REQUEST_CANCELLED)
                self.transmit()

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            for events in self.answers.values():
                events.put_nowait(event)
        if isinstance(event, StreamReset) and event.stream_id in self.answers:
            self.answers[event.stream_id].put_nowait(event)
        for part in self.http.handle_event(event):
            if isinstance(part, (HeadersReceived, DataReceived)) and part.stream_id in self.answers:
                self.answers[part.stream_id].put_nowait(part)


async def ask(connection, url, key, model, question):
    """The answer's text, as it comes."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": question}]}
    answer = connection.post(url, headers, json.dumps(body).encode())
    status = await anext(answer)
    if status != 200:
        refusal = b"".join([piece async for piece in answer])
        raise SystemExit(f"{status}: {refusal.decode()}")
    # Pieces are cut anywhere; events end with an empty line.
    rest = b""
    async for piece in answer:
        *events, rest = (rest + piece).split(b"\n\n")
        for event in events:
            # The last one is "data: [DONE]".
            if event.startswith(b"data: {"):
                for choice in json.loads(event.removeprefix(b"data: "))["choices"]:
                    yield choice["delta"].get("content") or ""


async def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("questions", nargs="*", default=["你好 hello", "one two three"])
    arguments.add_argument("--url", default=os.environ.get("AIPROXY_URL", "https://127.0.0.1:8443"))
    arguments.add_argument("--ca", help="certificates to trust (PEM), where the system's do not do")
    arguments.add_argument("--model", default="gpt-4o-mini")
    options = arguments.parse_args()
    key = os.environ["AIPROXY_KEY"]

    url = urlsplit(options.url.rstrip("/") + "/v1/chat/completions")
    configuration = QuicConfiguration(alpn_protocols=H3_ALPN)
    configuration.load_verify_locations(options.ca)

    async def answered(connection, question):
        return "".join([text async for text in ask(connection, url, key, options.model, question)])

    async with connect(
        url.hostname, url.port or 443, configuration=configuration, create_protocol=Http3
    ) as connection:
        first, *others = options.questions
        waiting = [asyncio.create_task(answered(connection, question)) for question in others]
        async for text in ask(connection, url, key, options.model, first):
            print(text, end="", flush=True)
        print()
        for answer in waiting:
            print(await answer)


if __name__ == "__main__":
    asyncio.run(main())
