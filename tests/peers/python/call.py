"""A caller on aiortc: places a call, sends tones and messages, and prints one JSON object of what came back.

    python call.py http://127.0.0.1:8080/v1/realtime/calls?model=gpt-realtime --key pk_… --seconds 3

The exit code is 0 when the offer was answered, 3 when it was refused (the JSON says how).
"""

import argparse
import asyncio
import json
import os
import sys
import time
import urllib.parse

import aiohttp
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.codecs import CODECS

from rtc_peer import Ear, Tone, Wire, watch

# Nothing here leaves this machine; a proxy would swallow it.
for name in list(os.environ):
    if name.lower() in ("http_proxy", "https_proxy", "all_proxy"):
        del os.environ[name]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="where the offer goes, with its query")
    parser.add_argument("--key", help="sent as `Authorization: Bearer`")
    parser.add_argument("--header", action="append", default=[], metavar="NAME: VALUE")
    parser.add_argument("--session", help="a session in JSON: the offer goes as a form")
    parser.add_argument("--session-first", action="store_true", help="the form's session before its offer")
    parser.add_argument("--tracks", type=int, default=1, help="of sound: 440 Hz, 550 Hz, …; 0 for none")
    parser.add_argument("--codec", action="append", default=[], help="opus, PCMU, PCMA or G722, the best first")
    parser.add_argument("--number", type=int, help="the payload type of Opus in the offer")
    parser.add_argument("--channel", action="append", default=[], metavar="LABEL[,OPTION=VALUE…]",
                        help="a data channel; options: ordered (0, 1), maxRetransmits, maxPacketLifeTime, protocol")
    parser.add_argument("--messages", type=int, default=10, help="sent on each channel, texts and bytes in turn")
    parser.add_argument("--big", type=int, action="append", default=[], help="size of a message sent besides")
    parser.add_argument("--oversize", type=int, action="append", default=[],
                        help="size of a message that is sent although the other side said that it takes no such one")
    parser.add_argument("--send", action="append", default=[], help="a text sent besides, of which no echo is expected")
    parser.add_argument("--say", help="events: this text, and a response to it, on the channel that speaks events")
    parser.add_argument("--seconds", type=float, default=3, help="from the connection to the end")
    parser.add_argument("--echoes", type=float, default=0, help="the longest wait for what was sent on channels to come back, besides")
    parser.add_argument("--greetings", type=int, default=0, help="messages to wait for besides, on each channel of the other side")
    parser.add_argument("--setup", type=float, default=20, help="seconds until a connection is given up")
    parser.add_argument("--end", choices=["leave", "hangup", "vanish", "stay"], default="leave",
                        help="leave: close; hangup: over HTTP, then wait for the end; vanish: say nothing; "
                             "stay: wait for the other side's end")
    parser.add_argument("--stay", type=float, default=30, help="the longest wait for the other side's end")
    parser.add_argument("--strip-candidates", action="store_true", help="an offer without candidates")
    parser.add_argument("--tell", action="store_true", help="print a line of JSON when the answer has come")
    parser.add_argument("--sdp", action="store_true", help="print offer and answer too")
    return parser.parse_args()


class Channel:
    """A data channel and what passes on it. A relayed or echoed message equals the one that was sent."""

    def __init__(self, call, channel, options):
        self.call, self.channel = call, channel
        self.sent, self.received, self.events, self.closed = [], [], [], False
        channel.on("open", self.opened)
        channel.on("message", self.came)
        channel.on("close", self.shut)
        if channel.readyState == "open":
            self.opened()
        self.options = options

    def opened(self):
        self.call.mark(f"open {self.channel.label}")
        for i in range(self.call.options.messages):
            text = f"{self.channel.label} {i} 你好"
            self.send(text if i % 2 == 0 else text.encode())
        for size in self.call.options.big:
            self.send(bytes(i * 7 % 256 for i in range(size)))
        for text in self.call.options.send:
            self.channel.send(text)
        for size in self.call.options.oversize:
            sctp = self.call.connection.sctp
            most, sctp._remote_max_message_size = sctp._remote_max_message_size, 0
            self.channel.send(bytes(size))
            sctp._remote_max_message_size = most

    def send(self, message):
        self.sent.append(message)
        self.channel.send(message)

    def came(self, message):
        if isinstance(message, str) and message.startswith("{"):
            event = json.loads(message)
            self.events.append(event)
            if event.get("type") == "session.created" and self.call.options.say is not None:
                self.say(self.call.options.say)
        else:
            self.received.append(message)

    def say(self, text):
        content = [{"type": "input_text", "text": text}]
        for event in (
            {"type": "session.update", "session": {"type": "realtime", "instructions": text}},
            {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": content}},
            {"type": "response.create"},
        ):
            self.channel.send(json.dumps(event))

    def shut(self):
        self.closed = True

    def report(self):
        channel = self.channel
        return {
            "label": channel.label, "protocol": channel.protocol, "ordered": channel.ordered,
            "maxRetransmits": channel.maxRetransmits, "maxPacketLifeTime": channel.maxPacketLifeTime,
            "id": channel.id, "sent": len(self.sent), "received": len(self.received),
            "same": self.received == self.sent,
            "same_in_any_order": sorted(map(repr, self.received)) == sorted(map(repr, self.sent)),
            "texts": [message for message in self.received if isinstance(message, str)][:200],
            "events": [event.get("type") for event in self.events],
            "errors": [event["error"]["code"] for event in self.events if event.get("type") == "error"],
            "said": "".join(e["delta"] for e in self.events if e.get("type") == "response.output_text.delta"),
            "session": next((e["session"] for e in self.events if e.get("type") == "session.created"), None),
            "usage": next((e["response"]["usage"] for e in self.events if e.get("type") == "response.done"), None),
            "closed": self.closed,
        }


class Call:
    def __init__(self, options):
        self.options = options
        self.began = time.monotonic()
        self.times, self.states = {}, []
        self.report = {"times": self.times, "states": self.states}
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channels, self.opened_there, self.ears, self.listening = [], [], [], []
        self.connected, self.ended = asyncio.Event(), asyncio.Event()
        self.connection.on("connectionstatechange", self.changed)
        self.connection.on("datachannel", self.opened_by_them)

    def mark(self, what):
        """Milliseconds since the begin, for people who look at them."""
        self.times.setdefault(what, round((time.monotonic() - self.began) * 1000))

    def changed(self):
        state = self.connection.connectionState
        self.states.append(state)
        self.mark(state)
        if state == "connected":
            self.connected.set()
        if state in ("failed", "closed"):
            self.ended.set()
            self.connected.set()

    def opened_by_them(self, channel):
        self.opened_there.append(Channel(self, channel, {}))

    def prepare(self):
        for codec in CODECS["audio"]:
            if self.options.number and codec.name.lower() == "opus":
                codec.payloadType = self.options.number
        codecs = RTCRtpSender.getCapabilities("audio").codecs
        for i in range(self.options.tracks):
            transceiver = self.connection.addTransceiver(Tone(440 + 110 * i))
            if self.options.codec:
                rank = [f"audio/{name}".lower() for name in self.options.codec]
                chosen = [codec for codec in codecs if codec.mimeType.lower() in rank]
                transceiver.setCodecPreferences(sorted(chosen, key=lambda codec: rank.index(codec.mimeType.lower())))
        for text in self.options.channel:
            label, *rest = text.split(",")
            options = dict(option.split("=", 1) for option in rest)
            channel = self.connection.createDataChannel(
                label,
                ordered=options.get("ordered", "1") == "1",
                protocol=options.get("protocol", ""),
                maxRetransmits=int(options["maxRetransmits"]) if "maxRetransmits" in options else None,
                maxPacketLifeTime=int(options["maxPacketLifeTime"]) if "maxPacketLifeTime" in options else None,
            )
            self.channels.append(Channel(self, channel, options))

    def headers(self):
        headers = {}
        if self.options.key:
            headers["Authorization"] = f"Bearer {self.options.key}"
        for line in self.options.header:
            name, value = line.split(":", 1)
            headers[name.strip()] = value.strip()
        return headers

    async def signal(self, http):
        """Sends the offer and takes the answer; whether there was one."""
        await self.connection.setLocalDescription(await self.connection.createOffer())
        offer = self.connection.localDescription.sdp
        if self.options.strip_candidates:
            lines = offer.split("\r\n")
            offer = "\r\n".join(line for line in lines if not line.startswith(("a=candidate", "a=end-of-cand")))
        self.mark("offer")
        headers = self.headers()
        if self.options.session is None:
            body = offer
            headers["Content-Type"] = "application/sdp"
        else:
            # Without filenames, as OpenAI's own SDK sends it.
            boundary = "aiortc-call-boundary"
            parts = [("sdp", "application/sdp", offer), ("session", "application/json", self.options.session)]
            if self.options.session_first:
                parts.reverse()
            body = "".join(
                f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\nContent-Type: {kind}\r\n\r\n{text}\r\n'
                for name, kind, text in parts
            ) + f"--{boundary}--\r\n"
            headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
        async with http.post(self.options.url, data=body.encode(), headers=headers) as answer:
            text = await answer.text()
            self.mark("answer")
            self.report |= {"status": answer.status, "location": answer.headers.get("Location"),
                            "content_type": answer.headers.get("Content-Type")}
        if self.options.tell:
            print(json.dumps({"answered": self.report["status"], "location": self.report["location"]}), flush=True)
        if self.options.sdp:
            self.report |= {"offer": offer, "answer": text}
        if self.report["status"] // 100 != 2:
            self.report["error"] = text
            return False
        await self.connection.setRemoteDescription(RTCSessionDescription(text, "answer"))
        return True

    async def hang_up(self, http):
        url = urllib.parse.urljoin(self.options.url, self.report["location"]) + "/hangup"
        async with http.post(url, headers=self.headers()) as answer:
            self.report["hangup"] = answer.status

    async def echoes(self):
        """Waits until everything that was sent has come back."""
        until = time.monotonic() + self.options.echoes
        while time.monotonic() < until and not self.complete():
            await asyncio.sleep(0.05)
        self.mark("echoed")

    def complete(self):
        more = [(one, 0) for one in self.channels] + [(one, self.options.greetings) for one in self.opened_there]
        return all(one.sent and len(one.received) >= len(one.sent) + count for one, count in more)

    def transports(self):
        yield from {transceiver.sender.transport for transceiver in self.connection.getTransceivers()}

    async def run(self):
        self.prepare()
        wire = Wire()
        connector = aiohttp.TCPConnector(limit=4)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=True) as http:
            if not await self.signal(http):
                await self.connection.close()
                return 3
            for transport in self.transports():
                watch(transport, wire)
            for transceiver in self.connection.getTransceivers():
                ear = Ear()
                self.ears.append((transceiver, ear))
                self.listening.append(asyncio.ensure_future(ear.listen(transceiver.receiver.track)))
            try:
                await asyncio.wait_for(self.connected.wait(), self.options.setup)
                await asyncio.sleep(self.options.seconds)
                await self.echoes()
            except TimeoutError:
                self.report["gave_up"] = True
            # What is under way comes back.
            for transceiver in self.connection.getTransceivers():
                transceiver.sender.replaceTrack(None)
            await asyncio.sleep(0.3)
            if self.options.end == "hangup":
                await self.hang_up(http)
            if self.options.end in ("hangup", "stay"):
                try:
                    await asyncio.wait_for(self.ended.wait(), self.options.stay)
                    self.mark("ended")
                except TimeoutError:
                    self.report["never_ended"] = True
        self.finish(wire)
        if self.options.end == "vanish":
            return 0
        await self.connection.close()
        return 0

    def finish(self, wire):
        for what, at in [("first packet", wire.first), *((f"sound {i}", ear.first) for i, (_, ear) in enumerate(self.ears))]:
            if at is not None:
                self.times[what] = round((at - self.began) * 1000)
        sent = set(wire.sent)
        self.report |= {
            "state": self.connection.connectionState,
            "sent": wire.sent,
            "received": wire.received,
            # What was not sent, and whether the rest comes in the order in which it was sent (of one track).
            "strangers": sum(1 for payload in wire.received if payload not in sent),
            "in_order": in_order(wire.received, wire.sent),
            "payload_types": sorted(wire.payload_types),
            "streams": wire.streams(),
            "shifts": wire.shifts(),
            "frequencies": [ear.frequency() for _, ear in self.ears],
            "frames": [ear.frames for _, ear in self.ears],
            "directions": [transceiver.currentDirection for transceiver, _ in self.ears],
            "channels": [channel.report() for channel in self.channels],
            "opened_there": [channel.report() for channel in self.opened_there],
        }


def in_order(some, all):
    """Whether `some` is `all` with gaps."""
    rest = iter(all)
    return all != [] and set(some) <= set(all) and sum(one in rest for one in some) == len(some)


async def main():
    call = Call(arguments())
    code = await call.run()
    print(json.dumps(call.report), flush=True)
    if call.options.end == "vanish":
        os._exit(0)
    return code


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
