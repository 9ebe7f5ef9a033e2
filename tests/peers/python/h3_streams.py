"""Streams over HTTP/3 that stay open while something happens to the relay: aioquic as the caller.

Prints a line of JSON for each step: `{"open": N}` when a first piece of every stream is there; with --goodbye
`{"goaway": ID}` once the relay has named the last request that it serves, and `{"later": …}`, what became of one
that was sent after it; in the end `{"ends": …}`, how each stream ended, and everything else that was heard.
"""

import argparse
import asyncio
import json

import h3_peer

# What RFC 9114, section 5.2, has a server say first: no more requests, please, but none is refused yet.
ANY_STREAM = (1 << 62) - 4


def tell(**step):
    print(json.dumps(step), flush=True)


async def end_of(exchange):
    """How it ended, and the end of what came before that."""
    ended = {"end": "complete"}
    text = b""
    try:
        await exchange.head()
        async for data in exchange.chunks():
            text = (text + data)[-200:]
    except (h3_peer.StreamReset, h3_peer.ConnectionGone) as error:
        ended = {"end": "reset" if isinstance(error, h3_peer.StreamReset) else "gone", "code": error.code}
    return {**ended, "status": exchange.status, "tail": text.decode(errors="replace")}


async def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("url", help="the relay, https://HOST:PORT, the port being one of UDP")
    arguments.add_argument("--key", required=True)
    arguments.add_argument("--streams", type=int, default=1)
    arguments.add_argument("--sandbox", required=True, help="the scenario of each stream")
    arguments.add_argument("--goodbye", action="store_true", help="wait for GOAWAY, and ask once more")
    options = arguments.parse_args()
    async with h3_peer.connect(options.url) as caller:
        headers = {"authorization": f"Bearer {options.key}", "content-type": "application/json"}
        chat = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "one two three"}]}
        fields = {**headers, "x-sandbox": options.sandbox}
        body = json.dumps(chat).encode()
        asked = [caller.request("POST", "/v1/chat/completions", fields, body) for _ in range(options.streams)]
        for exchange in asked:
            await exchange.until(b"data: ")
        tell(open=len(asked), ids=[exchange.headers["x-aiproxy-request-id"] for exchange in asked])
        if options.goodbye:
            tell(goaway=await caller.goaway(lambda last: last != ANY_STREAM))
            tell(later=await end_of(caller.request("GET", "/v1/models", headers)))
        ends = [await end_of(exchange) for exchange in asked]
        # Whoever drains closes the connection; else this side does.
        if options.goodbye:
            await caller.wait_closed()
        closed = caller.ended.code if caller.ended else None
        tell(ends=ends, goaways=caller.goaways, closed=closed)


if __name__ == "__main__":
    asyncio.run(asyncio.wait_for(main(), 60))
