"""What the WebRTC peers share: a tone, its frequency when it comes back, and a
look at each RTP payload as it passes, before decoding and behind encoding."""

import asyncio
import fractions
import hashlib
import time

import numpy
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtp import RtpPacket, is_rtcp
from av import AudioFrame

RATE = 48000
FRAME = RATE // 50


class Tone(MediaStreamTrack):
    """A sine wave, 20 ms a frame; its volume rises and falls, so that no two frames are the same."""

    kind = "audio"

    def __init__(self, hertz):
        super().__init__()
        self.hertz = hertz
        self.at = 0
        self.began = None

    async def recv(self):
        self.began = self.began or time.monotonic()
        wait = self.began + self.at / RATE - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        seconds = (numpy.arange(FRAME) + self.at) / RATE
        volume = 9000 + 3000 * numpy.sin(2 * numpy.pi * 0.7 * seconds)
        samples = (volume * numpy.sin(2 * numpy.pi * self.hertz * seconds)).astype(numpy.int16)
        frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self.at, fractions.Fraction(1, RATE)
        self.at += FRAME
        return frame


class Ear:
    """Listens to a track: how many frames, and the loudest frequency of each half second."""

    def __init__(self):
        self.frames = 0
        self.first = None
        self.peaks = []
        self._samples = []

    async def listen(self, track):
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            self.first = self.first or time.monotonic()
            self.frames += 1
            channels = len(frame.layout.channels)
            self._samples.append(frame.to_ndarray().reshape(-1)[::channels].astype(float))
            if sum(map(len, self._samples)) >= frame.sample_rate // 2:
                self.peaks.append(peak(numpy.concatenate(self._samples), frame.sample_rate))
                self._samples = []

    def frequency(self):
        """In Hz; None before half a second was heard."""
        return float(numpy.median(self.peaks)) if self.peaks else None


def peak(samples, rate):
    """The loudest frequency in Hz, to about 1 Hz; 0 of silence."""
    if numpy.abs(samples).max() < 100:
        return 0.0
    spectrum = numpy.abs(numpy.fft.rfft(samples * numpy.hanning(len(samples)), n=rate))
    return float(spectrum.argmax())


def digest(payload):
    """The begin of a payload's hash, as the sandbox shows it."""
    return hashlib.sha256(payload).digest()[:8].hex()


class Wire:
    """Each RTP payload that a connection sends and receives, in order, once a sequence number."""

    def __init__(self):
        self.sent = []
        self.received = []
        self.payload_types = set()
        self.first = None
        self._seen = set()
        self._headers = {"out": {}, "in": []}

    def _note(self, into, direction, packet):
        place = (direction, packet.ssrc, packet.sequence_number)
        if place in self._seen or not packet.payload:
            return
        self._seen.add(place)
        into.append(digest(packet.payload))
        header = (packet.ssrc, packet.sequence_number, packet.timestamp)
        if direction == "in":
            self.first = self.first or time.monotonic()
            self.payload_types.add(packet.payload_type)
            self._headers["in"].append((into[-1], *header))
        else:
            self._headers["out"][into[-1]] = header

    def streams(self):
        """How many SSRCs came."""
        return len({ssrc for _, ssrc, _, _ in self._headers["in"]})

    def shifts(self):
        """By how much sequence numbers and timestamps of what came differ from those that it was sent with: where
        the streams are whole, one pair for each."""
        shifts = set()
        for payload, ssrc, number, timestamp in self._headers["in"]:
            if payload in self._headers["out"]:
                _, sent_number, sent_timestamp = self._headers["out"][payload]
                shifts.add((ssrc, (number - sent_number) % 2**16, (timestamp - sent_timestamp) % 2**32))
        return sorted([number, timestamp] for _, number, timestamp in shifts)

    def out(self, packet):
        self._note(self.sent, "out", packet)

    def came(self, packet):
        self._note(self.received, "in", packet)


_wires = {}  # By connection's transport; a process makes few of them.


def watch(transport, wire):
    """Notes what passes over this DTLS transport."""
    _wires[id(transport)] = (transport, wire)


def forget(transport):
    _wires.pop(id(transport), None)


def _wire(transport):
    return _wires.get(id(transport), (None, None))[1]


_send, _handle = RTCDtlsTransport._send_rtp, RTCDtlsTransport._handle_rtp_data


async def _send_rtp(self, data):
    await _send(self, data)
    wire = _wire(self)
    if wire and not is_rtcp(data):
        wire.out(RtpPacket.parse(data))


async def _handle_rtp_data(self, data, arrival_time_ms):
    wire = _wire(self)
    if wire:
        try:
            wire.came(RtpPacket.parse(data))
        except ValueError:
            pass
    await _handle(self, data, arrival_time_ms=arrival_time_ms)


RTCDtlsTransport._send_rtp, RTCDtlsTransport._handle_rtp_data = _send_rtp, _handle_rtp_data
