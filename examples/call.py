"""Calls a realtime model through AIProxy over WebRTC: sound both ways, and events on a data channel.

    cargo run --bin aiproxy -- demo                    # in another terminal
    pip install aiortc
    AIPROXY_KEY=$(cat data/demo/proxy-key) python examples/call.py

Sends a sound file (without --wav a tone) and a text, prints what is answered and writes the sound that comes
back to answer.wav. The demo's platform says back what it hears.
通过 AIProxy 以 WebRTC 呼叫实时模型：发送一段声音和文字，打印回答，并把收到的声音写入 answer.wav。
"""

import argparse
import asyncio
import fractions
import json
import math
import os
import struct
import urllib.error
import urllib.parse
import urllib.request

from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaPlayer, MediaRecorder
from av import AudioFrame

RATE = 48000
FRAME = RATE // 50  # 20 ms.


class Tone(MediaStreamTrack):
    """A sine wave of 440 Hz."""

    kind = "audio"
    at = 0

    async def recv(self):
        await asyncio.sleep(FRAME / RATE)
        samples = (math.sin(2 * math.pi * 440 * (self.at + i) / RATE) for i in range(FRAME))
        frame = AudioFrame(format="s16", layout="mono", samples=FRAME)
        frame.planes[0].update(b"".join(struct.pack("<h", int(12000 * sample)) for sample in samples))
        frame.sample_rate, frame.pts, frame.time_base = RATE, self.at, fractions.Fraction(1, RATE)
        self.at += FRAME
        return frame


def post(url, key, kind, body):
    """The answer's location and body. Blocks, so it runs in a thread."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": kind}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body.encode(), headers), timeout=30) as answer:
            return answer.headers["Location"], answer.read().decode()
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{url}: {error.code} {error.read().decode()}") from None


async def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--url", default=os.environ.get("AIPROXY_URL", "http://127.0.0.1:8080"))
    arguments.add_argument("--model", default="gpt-realtime")
    arguments.add_argument("--text", default="你好 hello")
    arguments.add_argument("--wav", help="sound to send, in any format that FFmpeg reads")
    arguments.add_argument("--seconds", type=float, default=3, help="how long to listen")
    arguments.add_argument("--out", default="answer.wav", help="where the sound goes that comes back")
    options = arguments.parse_args()
    key = os.environ["AIPROXY_KEY"]

    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connection.addTrack(MediaPlayer(options.wav).audio if options.wav else Tone())
    recorder = MediaRecorder(options.out)
    connection.on("track", recorder.addTrack)
    events = connection.createDataChannel("oai-events")
    answered = asyncio.Event()

    @events.on("open")
    def speak():
        content = [{"type": "input_text", "text": options.text}]
        item = {"type": "message", "role": "user", "content": content}
        events.send(json.dumps({"type": "conversation.item.create", "item": item}))
        events.send(json.dumps({"type": "response.create"}))

    @events.on("message")
    def hear(message):
        event = json.loads(message)
        if event["type"] in ("response.output_text.delta", "response.output_audio_transcript.delta"):
            print(event["delta"], end="", flush=True)
        elif event["type"] == "error":
            print(f"error: {event['error']['message']}")
        elif event["type"] == "response.done":
            print(f"\n{event['response']['usage']['total_tokens']} tokens")
            answered.set()

    # All that differs from calling the platform itself: the address and the key. Sound and events go to the
    # addresses in the answer, which are AIProxy's.
    await connection.setLocalDescription(await connection.createOffer())
    url = f"{options.url.rstrip('/')}/v1/realtime/calls?model={urllib.parse.quote(options.model)}"
    location, answer = await asyncio.to_thread(post, url, key, "application/sdp", connection.localDescription.sdp)
    await connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await recorder.start()
    try:
        await asyncio.wait_for(answered.wait(), 20)
        await asyncio.sleep(options.seconds)
    except asyncio.TimeoutError:
        raise SystemExit(f"no answer: the connection is {connection.connectionState}") from None
    finally:
        await asyncio.to_thread(post, urllib.parse.urljoin(url, location + "/hangup"), key, "application/json", "{}")
        await recorder.stop()
        await connection.close()
    print(f"sound in {options.out}")


if __name__ == "__main__":
    asyncio.run(main())
