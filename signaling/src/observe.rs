//! What is read of the messages that pass.

use aiproxy_core::ports::ReadModels;
use aiproxy_taps::socket::{Caller, Named, Platform};

use crate::buffer::Buffer;
use crate::mask;

/// Reads one direction's messages, or none of them.
#[derive(Debug)]
pub(crate) enum Observer {
    Nothing,
    /// Usage, in the platform's text.
    Usage(Box<Platform>),
    /// Models, in the caller's messages.
    Models(Box<Caller>, ReadModels),
}

impl Observer {
    pub(crate) fn of_caller(models: ReadModels) -> Self {
        match models {
            ReadModels::Never => Self::Nothing,
            wanted => Self::Models(Box::default(), wanted),
        }
    }

    pub(crate) fn of_platform(metered: bool) -> Self {
        if metered { Self::Usage(Box::default()) } else { Self::Nothing }
    }

    /// Looks at payload as it stands in the frame, `at` being its first byte's place in it.
    pub(crate) fn payload(&mut self, bytes: &[u8], text: bool, key: [u8; 4], at: u64) {
        match self {
            Self::Nothing => {}
            Self::Usage(platform) if text => platform.feed(bytes),
            // Some platforms take JSON in binary frames too.
            Self::Models(caller, wanted) if text || *wanted == ReadModels::All => {
                let mut scratch = Buffer::take();
                let mut at = at;
                for piece in bytes.chunks(scratch.len()) {
                    let plain = &mut scratch[..piece.len()];
                    plain.copy_from_slice(piece);
                    mask::apply(plain, key, at);
                    caller.feed(plain);
                    at += piece.len() as u64;
                }
            }
            Self::Usage(_) | Self::Models(..) => {}
        }
    }

    pub(crate) fn message_ended(&mut self, text: bool) {
        match self {
            Self::Nothing => {}
            Self::Usage(platform) => platform.end(),
            Self::Models(caller, ReadModels::All) => caller.end_strictly(text),
            Self::Models(caller, _) => caller.end(),
        }
    }

    /// Models that were named since the last call.
    pub(crate) fn take_models(&mut self) -> Vec<Named> {
        match self {
            Self::Models(caller, _) => caller.take_named(),
            Self::Nothing | Self::Usage(_) => Vec::new(),
        }
    }

    /// One model was enough.
    pub(crate) fn found(&mut self) {
        if matches!(self, Self::Models(_, ReadModels::First)) {
            *self = Self::Nothing;
        }
    }
}
