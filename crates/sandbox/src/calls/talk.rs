//! One session, and all who speak and listen in it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;
use webrtc::data_channel::DataChannel;

use crate::session::Session;

/// Inputs that wait; who has more to say waits too.
pub(super) const WAITING: usize = 64;
/// Listeners of a call; the longest there goes first.
const LISTENERS: usize = 64;

/// A sideband that is too far behind is waited for so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// What reaches a session.
pub(super) enum Input {
    Event(Value),
    Channel(Arc<dyn DataChannel>),
    Sideband(mpsc::Sender<String>),
}

enum Outlet {
    Channel(Arc<dyn DataChannel>),
    Sideband(mpsc::Sender<String>),
}

impl Outlet {
    /// Whether it still listens. A channel that takes nothing makes the session wait, and with it
    /// those who speak; a sideband that takes nothing for a moment is let go.
    async fn say(&self, event: &str) -> bool {
        match self {
            Outlet::Channel(channel) => channel.send_text(event).await.is_ok(),
            Outlet::Sideband(outlet) => {
                timeout(PATIENCE, outlet.send(event.to_owned())).await.is_ok_and(|sent| sent.is_ok())
            }
        }
    }
}

/// Goes on until nobody is left who could say something.
pub(super) async fn talk(mut session: Session, mut inputs: mpsc::Receiver<Input>) {
    let mut outlets: Vec<Outlet> = Vec::new();
    while let Some(input) = inputs.recv().await {
        let newcomer = match input {
            Input::Event(event) => {
                for event in session.hear(event) {
                    let event = event.to_string();
                    let mut listening = Vec::with_capacity(outlets.len());
                    for outlet in outlets.drain(..) {
                        if outlet.say(&event).await {
                            listening.push(outlet);
                        }
                    }
                    outlets = listening;
                }
                continue;
            }
            Input::Channel(channel) => Outlet::Channel(channel),
            Input::Sideband(outlet) => Outlet::Sideband(outlet),
        };
        if newcomer.say(&session.greet().to_string()).await {
            if outlets.len() >= LISTENERS {
                outlets.remove(0);
            }
            outlets.push(newcomer);
        }
    }
}
