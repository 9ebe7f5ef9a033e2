//! Messages that are held until they are whole, because they are rewritten.

use aiproxy_core::ErrorKind;
use aiproxy_core::ports::MessageEdit;

use crate::frame::{Sender, header};
use crate::mask;

/// Holds the message under way.
pub(crate) struct Gather {
    edit: Box<dyn MessageEdit>,
    message: Vec<u8>,
    bound: usize,
}

impl Gather {
    /// Messages of at most `bound` bytes.
    pub(crate) fn new(edit: Box<dyn MessageEdit>, bound: usize) -> Self {
        Self { edit, message: Vec::new(), bound }
    }

    /// Takes payload whose first byte is byte `at` of its frame; whether it is not too much.
    pub(crate) fn payload(&mut self, bytes: &[u8], key: [u8; 4], at: u64) -> bool {
        if self.message.len() + bytes.len() > self.bound {
            return false;
        }
        let begin = self.message.len();
        self.message.extend_from_slice(bytes);
        mask::apply(&mut self.message[begin..], key, at);
        true
    }

    /// The message under way.
    pub(crate) fn message(&self) -> &[u8] {
        &self.message
    }

    /// The message is whole: appends it to `out` as the platform is to have it, in one frame.
    ///
    /// # Errors
    /// As [`MessageEdit::edit`].
    pub(crate) fn ended(&mut self, text: bool, out: &mut Vec<u8>) -> Result<(), ErrorKind> {
        let message = std::mem::take(&mut self.message);
        let mut message = self.edit.edit(&message)?.unwrap_or(message);
        let key = mask::fresh();
        header(out, Sender::Client, text, message.len() as u64, key);
        mask::apply(&mut message, key, 0);
        out.extend_from_slice(&message);
        Ok(())
    }

    /// Whether the next message is held as well.
    pub(crate) fn wants_more(&self) -> bool {
        self.edit.wants_more()
    }
}
