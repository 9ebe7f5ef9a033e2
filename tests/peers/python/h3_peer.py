"""A caller over HTTP/3 on aioquic: what the HTTP/3 peers share. Each request is an `Exchange`, whose streams may
be broken off in every way there is; the connection may move to another port."""

import asyncio
import contextlib
import os
import urllib.parse

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import Buffer, BufferReadError
from aioquic.h3.connection import H3_ALPN, ErrorCode, FrameType, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

# Bytes that wait to be sent or acknowledged before `Exchange.send` waits as well.
UNSENT = 1 << 20
CANCELLED = int(ErrorCode.H3_REQUEST_CANCELLED)


class StreamReset(Exception):
    """The other side broke the answer off."""

    def __init__(self, code):
        super().__init__(f"the answer was broken off with code {code:#x}")
        self.code = code


class ConnectionGone(Exception):
    """The connection ended while something was waited for."""

    def __init__(self, code, reason):
        super().__init__(f"the connection ended with code {code:#x} {reason!r}")
        self.code = code


class Exchange:
    """A request and its answer."""

    def __init__(self, caller, number):
        self.number = number
        self.status = None
        self.headers = {}
        self.trailers = None
        # The code with which the other side said that it takes no more of the request.
        self.stopped = None
        self._caller = caller
        # What aioquic has still to send; it is there once anything was.
        self._sender = None
        self._came = asyncio.Queue()
        self._over = False

    # --- sending

    async def send(self, data):
        """Sends a part of the body; whether the other side takes any."""
        if self.stopped is not None:
            return False
        self._caller.http.send_data(self.number, data, end_stream=False)
        self._caller.transmit()
        while self.stopped is None and self._sender._buffer_stop - self._sender._buffer_start > UNSENT:
            await self._caller.progress()
        return self.stopped is None

    def finish(self, trailers=None):
        """Ends the request, with trailers if there are any."""
        if self.stopped is None:
            if trailers:
                self._caller.http.send_headers(self.number, _encoded(trailers), end_stream=True)
            else:
                self._caller.http.send_data(self.number, b"", end_stream=True)
            self._caller.transmit()

    def reset(self, code=CANCELLED):
        """Breaks the request off."""
        self._caller.quic.reset_stream(self.number, code)
        self._caller.transmit()

    def stop(self, code=CANCELLED):
        """Takes no more of the answer."""
        self._caller.quic.stop_stream(self.number, code)
        self._caller.transmit()

    def cancel(self, code=CANCELLED):
        """Both: as RFC 9114, section 4.1.1, has it."""
        self.reset(code)
        self.stop(code)

    # --- receiving

    async def head(self):
        """The answer's status."""
        while self.status is None:
            await self._next()
        return self.status

    async def chunk(self):
        """The next part of the body as it came; empty at its end."""
        if self._over:
            return b""
        while True:
            data = await self._next()
            if data or self._over:
                return data

    async def chunks(self):
        while data := await self.chunk():
            yield data

    async def body(self):
        return b"".join([data async for data in self.chunks()])

    async def until(self, marker):
        """The body up to the chunk that makes it contain `marker`."""
        have = b""
        while marker not in have:
            data = await self.chunk()
            if not data:
                raise AssertionError(f"the body ended without {marker!r}: {have!r}")
            have += data
        return have

    async def _next(self):
        event = await self._came.get()
        if isinstance(event, Exception):
            self._came.put_nowait(event)
            raise event
        self._over = event.stream_ended
        if isinstance(event, DataReceived):
            return event.data
        fields = _decoded(event.headers)
        if self.status is not None:
            self.trailers = fields
        elif not fields[":status"].startswith("1"):
            self.status = int(fields[":status"])
            self.headers = fields
        return b""


class Http(H3Connection):
    """It takes the content-length of an answer to HEAD for what it is."""

    def __init__(self, quic):
        super().__init__(quic)
        self.heads = set()

    def _check_content_length(self, stream):
        if stream.stream_id not in self.heads:
            super()._check_content_length(stream)


class Caller(QuicConnectionProtocol):
    """A connection."""

    def __init__(self, quic, authority):
        super().__init__(quic)
        self.quic = quic
        self.authority = authority
        self.http = Http(quic)
        # What the other side's GOAWAYs said, in order.
        self.goaways = []
        # Codes with which it ended the connection.
        self.ended = None
        self.resumed = self.early = False
        self._exchanges = {}
        self._changed = asyncio.Event()
        self._control = {}

    # --- requests

    def request(self, method, path, headers=(), body=None, end=True):
        """Begins a request. With `end=False` more of its body may be sent."""
        number = self.quic.get_next_available_stream_id()
        exchange = self._exchanges[number] = Exchange(self, number)
        if method == "HEAD":
            self.http.heads.add(number)
        pseudo = {":method": method, ":scheme": "https", ":authority": self.authority, ":path": path}
        fields = _encoded({**pseudo, **dict(headers)})
        self.http.send_headers(number, fields, end_stream=end and body is None)
        exchange._sender = self.quic._streams[number].sender
        if body is not None:
            self.http.send_data(number, body, end_stream=end)
        self.transmit()
        return exchange

    async def fetch(self, method, path, headers=(), body=None):
        """A request and its whole answer: (exchange, body)."""
        exchange = self.request(method, path, headers, body)
        await exchange.head()
        return exchange, await exchange.body()

    # --- the connection

    def port(self):
        return self._transport.get_extra_info("sockname")[1]

    async def rebind(self):
        """Goes on from another local port, as behind a NAT that forgot the first: whoever only listens there has to
        say something, or nobody knows."""
        old = self._transport
        address = old.get_extra_info("sockname")[0]
        await self._loop.create_datagram_endpoint(lambda: self, local_addr=(address, 0))
        old.close()
        await self.ping()

    async def progress(self):
        """Waits until something has happened on the connection."""
        if self.ended:
            raise self.ended
        await self._changed.wait()

    async def goaway(self, wanted=lambda last: True):
        """The first GOAWAY that is `wanted`."""
        while True:
            for last in self.goaways:
                if wanted(last):
                    return last
            await self.progress()

    def datagram_received(self, data, addr):
        super().datagram_received(data, addr)
        self._changed.set()
        self._changed = asyncio.Event()

    def quic_event_received(self, event):
        match event:
            case events.HandshakeCompleted():
                self.resumed, self.early = event.session_resumed, event.early_data_accepted
            case events.StreamReset():
                self._tell(event.stream_id, StreamReset(event.error_code))
            case events.StopSendingReceived():
                if event.stream_id in self._exchanges:
                    self._exchanges[event.stream_id].stopped = event.error_code
            case events.ConnectionTerminated():
                self.ended = ConnectionGone(event.error_code, event.reason_phrase)
                for number in self._exchanges:
                    self._tell(number, self.ended)
                self._changed.set()
            case events.StreamDataReceived() if event.stream_id % 4 == 3:
                # aioquic passes over GOAWAY.
                for kind, payload in self._control.setdefault(event.stream_id, Control()).hear(event.data):
                    if kind == FrameType.GOAWAY:
                        self.goaways.append(Buffer(data=payload).pull_uint_var())
        for told in self.http.handle_event(event):
            if isinstance(told, (HeadersReceived, DataReceived)):
                self._tell(told.stream_id, told)

    def _tell(self, number, event):
        if number in self._exchanges:
            self._exchanges[number]._came.put_nowait(event)


class Control:
    """Frames of the other side's control stream; of its other streams that go one way, nothing."""

    def __init__(self):
        self._held = b""
        self._is_control = None

    def hear(self, data):
        """The whole frames that have come: (kind, payload)."""
        self._held += data
        frames = []
        with contextlib.suppress(BufferReadError):
            if self._is_control is None:
                self._is_control = self._take(lambda buffer: buffer.pull_uint_var()) == 0
            while self._is_control:
                frames.append(self._take(lambda buffer: (buffer.pull_uint_var(), _block(buffer))))
        if self._is_control is False:
            self._held = b""
        return frames

    def _take(self, read):
        buffer = Buffer(data=self._held)
        taken = read(buffer)
        self._held = self._held[buffer.tell() :]
        return taken


def _block(buffer):
    return buffer.pull_bytes(buffer.pull_uint_var())


def _encoded(fields):
    return [(name.encode(), value.encode()) for name, value in fields.items()]


def _decoded(fields):
    """Repeated fields joined, as everywhere in HTTP."""
    out = {}
    for name, value in fields:
        name, value = name.decode(), value.decode()
        out[name] = f"{out[name]}, {value}" if name in out else value
    return out


def configuration(**more):
    """What a caller says in handshakes; it trusts the authority in SSL_CERT_FILE."""
    made = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, max_datagram_size=1400, **more)
    made.load_verify_locations(os.environ.get("SSL_CERT_FILE"))
    return made


@contextlib.asynccontextmanager
async def connect(url, local="127.0.0.1", on_ticket=None, **more):
    """A connection to the host and port of `url`, over UDP."""
    loop = asyncio.get_running_loop()
    address = urllib.parse.urlsplit(url)
    made = configuration(server_name=address.hostname, **more)
    quic = QuicConnection(configuration=made, session_ticket_handler=on_ticket)
    found = await loop.getaddrinfo(address.hostname, address.port or 443, family=0 if ":" in local else 2)
    _, caller = await loop.create_datagram_endpoint(lambda: Caller(quic, address.netloc), local_addr=(local, 0))
    try:
        caller.connect(found[0][4])
        await caller.wait_connected()
        yield caller
    finally:
        caller.close(ErrorCode.H3_NO_ERROR)
        await caller.wait_closed()
        caller._transport.close()
