//! Error codes of HTTP/3 (RFC 9114, section 8.1) and QPACK (RFC 9204, section 6).

use std::fmt;

use quinn::VarInt;

/// Why a stream or a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code(u32);

impl Code {
    /// Nothing is wrong.
    pub const NO_ERROR: Self = Self(0x100);
    /// This side failed.
    pub const INTERNAL_ERROR: Self = Self(0x102);
    /// A stream that may not be opened.
    pub const STREAM_CREATION_ERROR: Self = Self(0x103);
    /// A stream that has to stay open was closed.
    pub const CLOSED_CRITICAL_STREAM: Self = Self(0x104);
    /// A frame that is not allowed here.
    pub const FRAME_UNEXPECTED: Self = Self(0x105);
    /// A frame that cannot be read.
    pub const FRAME_ERROR: Self = Self(0x106);
    /// The peer costs more than it is good for.
    pub const EXCESSIVE_LOAD: Self = Self(0x107);
    /// An identifier that may not be used.
    pub const ID_ERROR: Self = Self(0x108);
    /// Settings that may not be sent.
    pub const SETTINGS_ERROR: Self = Self(0x109);
    /// The control stream did not begin with settings.
    pub const MISSING_SETTINGS: Self = Self(0x10a);
    /// Nothing has been done about the request.
    pub const REQUEST_REJECTED: Self = Self(0x10b);
    /// The request, or its answer, is wanted no longer.
    pub const REQUEST_CANCELLED: Self = Self(0x10c);
    /// The request ended before it was whole.
    pub const REQUEST_INCOMPLETE: Self = Self(0x10d);
    /// The message is malformed.
    pub const MESSAGE_ERROR: Self = Self(0x10e);
    /// A field section cannot be decoded.
    pub const QPACK_DECOMPRESSION_FAILED: Self = Self(0x200);
    /// An instruction of the peer's encoder that may not come.
    pub const QPACK_ENCODER_STREAM_ERROR: Self = Self(0x201);
    /// An instruction of the peer's decoder that may not come.
    pub const QPACK_DECODER_STREAM_ERROR: Self = Self(0x202);

    /// As QUIC carries it.
    pub(crate) fn wire(self) -> VarInt {
        VarInt::from_u32(self.0)
    }

    /// Whether the peer gave this code.
    #[must_use]
    pub fn is(self, code: u64) -> bool {
        u64::from(self.0) == code
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}
