"""A platform on aiortc: answers calls, sends each RTP payload back as it came and each message too.

    python call_upstream.py --key sk-…            # prints {"port": N}, and serves until it is ended

Paths: POST /v1/realtime/calls (an offer as it is, or a form with `sdp` and `session`), POST /v1/realtime
and POST /api/v1/webrtc/realtime (an offer as it is), POST /v1/realtime/calls/{id}/hangup, and
GET /stat: what was seen, in JSON.
"""

import argparse
import asyncio
import json
import logging

from aiohttp import web
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtp import RtpPacket

from rtc_peer import Wire, watch

OFFER = 1 << 20  # Bytes of a request.
CALLS = 64  # That are remembered.


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--key", required=True, help="the one key that is accepted")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--opens", action="append", default=[], metavar="LABEL",
                        help="a data channel that the platform opens in each call, e.g. txt")
    parser.add_argument("--greeting", default="hello from upstream", help="said on a channel that opens")
    parser.add_argument("--greetings", type=int, default=1, help="how often: from the second on with a number")
    parser.add_argument("--number", type=int, help="the payload type of Opus in the answers")
    parser.add_argument("--location", default="/v1/realtime/calls/{id}", help="of the answers; empty for none")
    parser.add_argument("--status", type=int, default=201)
    parser.add_argument("--refuse", type=int, help="answer offers with this status instead")
    parser.add_argument("--delay", type=float, default=0, help="seconds before an offer is answered")
    return parser.parse_args()


class Call:
    def __init__(self, platform, number, request, offer, session):
        self.id = f"rtc_upstream{number}"
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.wire, self.states, self.channels, self.messages = Wire(), [], [], []
        self.offer, self.session, self.answer = offer, session, None
        self.headers = {name.lower(): value for name, value in request.headers.items()}
        self.path = request.path_qs
        self.platform = platform
        self.connection.on("connectionstatechange", self.changed)
        self.connection.on("datachannel", self.opened)

    async def changed(self):
        self.states.append(self.connection.connectionState)
        if self.connection.connectionState == "failed":
            await self.connection.close()

    def opened(self, channel):
        self.channels.append({"label": channel.label, "protocol": channel.protocol, "ordered": channel.ordered,
                              "maxRetransmits": channel.maxRetransmits, "maxPacketLifeTime": channel.maxPacketLifeTime})
        self.hear(channel)

    def hear(self, channel):
        @channel.on("message")
        def came(message):
            self.messages.append([channel.label, len(message), isinstance(message, str)])
            channel.send(message)

    def greet(self, channel):
        for i in range(self.platform.options.greetings):
            channel.send(f"{self.platform.greeting} {i}" if i else self.platform.greeting)

    async def accept(self):
        connection = self.connection
        await connection.setRemoteDescription(RTCSessionDescription(self.offer, "offer"))
        for label in self.platform.opens:
            channel = connection.createDataChannel(label)
            channel.on("open", lambda channel=channel: self.greet(channel))
            self.hear(channel)
        for transceiver in connection.getTransceivers():
            transceiver.direction = "sendrecv"
            for codec in transceiver._codecs:
                if self.platform.options.number and codec.name.lower() == "opus":
                    codec.payloadType = self.platform.options.number
        await connection.setLocalDescription(await connection.createAnswer())
        for transceiver in connection.getTransceivers():
            watch(transceiver.sender.transport, self.wire)
            self.send_back(transceiver)
        self.answer = connection.localDescription.sdp
        return self.answer

    def send_back(self, transceiver):
        """Packets go out as they came in, with the sender's own SSRC, and are neither decoded nor encoded."""
        receiver, sender = transceiver.receiver, transceiver.sender

        async def handle(packet, arrival_time_ms):
            back = RtpPacket(payload_type=packet.payload_type, sequence_number=packet.sequence_number,
                             timestamp=packet.timestamp, marker=packet.marker, payload=packet.payload)
            back.ssrc = sender._ssrc
            try:
                await sender.transport._send_rtp(back.serialize())
            except ConnectionError:
                pass

        receiver._handle_rtp_packet = handle

    def report(self):
        return {"id": self.id, "path": self.path, "headers": self.headers, "session": self.session,
                "offer": self.offer, "answer": self.answer, "states": self.states,
                "state": self.connection.connectionState, "received": self.wire.received, "sent": self.wire.sent,
                "payload_types": sorted(self.wire.payload_types), "channels": self.channels, "messages": self.messages}


class Platform:
    def __init__(self, options):
        self.options = options
        self.opens, self.greeting = options.opens, options.greeting
        self.calls, self.refused, self.number = {}, [], 0

    def refusal(self, status, message, code=None):
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        return web.json_response({"error": error}, status=status)

    def check(self, request):
        """Nothing, or why the request is refused."""
        if request.headers.get("Authorization") == f"Bearer {self.options.key}":
            return None
        self.refused.append({"path": request.path_qs, "authorization": "Authorization" in request.headers})
        return self.refusal(401, "Incorrect API key provided.", "invalid_api_key")

    async def create(self, request):
        refused = self.check(request)
        if refused is not None:
            return refused
        if self.options.refuse:
            return self.refusal(self.options.refuse, "As it was asked for.")
        session = None
        if request.content_type == "multipart/form-data":
            parts = {}
            async for part in await request.multipart():
                parts[part.name] = await part.text()
            if "sdp" not in parts:
                return self.refusal(400, "Missing required parameter: 'sdp'.", "missing_required_parameter")
            offer, session = parts["sdp"], json.loads(parts.get("session", "null"))
        elif request.content_type == "application/sdp":
            offer = await request.text()
        else:
            return self.refusal(400, "Unsupported content type.", "unsupported_content_type")
        await asyncio.sleep(self.options.delay)
        self.number += 1
        call = Call(self, self.number, request, offer, session)
        try:
            answer = await call.accept()
        except Exception as error:
            await call.connection.close()
            return self.refusal(400, f"The SDP offer is invalid: {error!r}", "invalid_offer")
        self.calls[call.id] = call
        while len(self.calls) > CALLS:
            await self.calls.pop(next(iter(self.calls))).connection.close()
        headers = {"Location": self.options.location.format(id=call.id)} if self.options.location else {}
        return web.Response(status=self.options.status, body=answer.encode(), content_type="application/sdp", headers=headers)

    async def hang_up(self, request):
        refused = self.check(request)
        if refused is not None:
            return refused
        call = self.calls.get(request.match_info["id"])
        if call is None:
            return self.refusal(404, "No such call.", "call_id_not_found")
        await call.connection.close()
        return web.json_response({})

    async def stat(self, request):
        return web.json_response({"calls": [call.report() for call in self.calls.values()], "refused": self.refused})


async def main():
    options = arguments()
    # The echo needs no decoder, and an SDP that cannot be read is an answer.
    logging.getLogger("aiortc").setLevel(logging.ERROR)
    platform = Platform(options)
    app = web.Application(client_max_size=OFFER)
    for path in ("/v1/realtime/calls", "/v1/realtime", "/openai/v1/realtime/calls", "/api/v1/webrtc/realtime"):
        app.router.add_post(path, platform.create)
    app.router.add_post("/v1/realtime/calls/{id}/hangup", platform.hang_up)
    app.router.add_get("/stat", platform.stat)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", options.port)
    await site.start()
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
