//! What is read of the messages that pass.

use aiproxy_core::Usage;
use aiproxy_core::ports::{CallGuard, ReadModels};
use aiproxy_taps::socket::{Caller, Named, Platform};

/// Reads both directions.
#[derive(Debug)]
pub(crate) struct Messages {
    platform: Option<Box<Platform>>,
    caller: Option<Box<Caller>>,
    /// All models are limited, not only of interest.
    limited: bool,
    /// The first one.
    pub(crate) model: Option<String>,
}

impl Messages {
    pub(crate) fn new(metered: bool, models: ReadModels) -> Self {
        Self {
            platform: metered.then(Box::default),
            caller: (models != ReadModels::Never).then(Box::default),
            limited: models == ReadModels::All,
            model: None,
        }
    }

    /// A message of the platform.
    pub(crate) fn down(&mut self, text: bool, message: &[u8]) {
        if text && let Some(platform) = &mut self.platform {
            platform.feed(message);
            platform.end();
        }
    }

    /// A message of the caller: whether it may pass.
    pub(crate) fn up(&mut self, text: bool, message: &[u8], guard: &dyn CallGuard) -> bool {
        let Some(caller) = &mut self.caller else { return true };
        // Some platforms take JSON in binary messages too.
        if !text && !self.limited {
            return true;
        }
        caller.feed(message);
        match self.limited {
            true => caller.end_strictly(text),
            false => caller.end(),
        }
        let named = caller.take_named();
        let admitted = |model: &Named| match model.aside {
            true => guard.admits_aside(&model.name),
            false => guard.admits(&model.name),
        };
        if self.limited && !named.iter().all(admitted) {
            return false;
        }
        if let Some(model) = named.into_iter().find(|model| !model.aside) {
            self.model.get_or_insert(model.name);
            if !self.limited {
                self.caller = None;
            }
        }
        true
    }

    /// What the platform has reported.
    pub(crate) fn usage(&self) -> Option<Usage> {
        self.platform.as_ref().and_then(|platform| platform.so_far())
    }

    /// What the platform reported in all; `complete`: nothing was broken off.
    pub(crate) fn settle(&mut self, complete: bool) -> Option<Usage> {
        self.platform.take().and_then(|platform| platform.settle(complete))
    }
}

/// The event that tells a caller why its message went no further, in the shape of OpenAI's errors.
pub(crate) fn refusal(code: &str, message: &str) -> String {
    format!(
        r#"{{"type":"error","event_id":"event_aiproxy","error":{{"type":"invalid_request_error","code":"{code}","message":"{message}","param":null,"event_id":null}}}}"#
    )
}
