//! Calls over WebRTC: an offer is answered, sound and messages go back as they came, events are
//! those of a realtime session.
//!
//! Media is on the sandbox's own address, one UDP port a call, host candidates only, nothing to
//! trickle; the sandbox is the DTLS client, as the platforms are.
//!
//! - [`Calls`]: the calls there are and were
//! - `offer`: what a request asks for; `endpoint`: the paths
//! - `peer`: the sandbox's end of the connection; `codecs`: what of an offer it speaks
//! - `life`: from the offer to the end; `channels`, `talk`: what is said on data channels
//! - `record`: what tests may know of a call

mod channels;
mod codecs;
pub(crate) mod endpoint;
mod life;
mod offer;
mod peer;
mod record;
mod talk;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use self::offer::Offer;
use self::record::Record;
pub use self::record::SeenCall;
use self::talk::Input;
use crate::route::State;
use crate::shape::Fault;

/// Calls at a time.
const LIVE: usize = 256;
/// Calls that are remembered, those that go on among them.
const REMEMBERED: usize = 300;
/// Events that one who joins a call may be behind.
const BEHIND: usize = 256;
/// How long the end of the sandbox waits for the ends of its calls.
const FAREWELL: Duration = Duration::from_secs(2);

/// The calls of one sandbox.
pub(crate) struct Calls {
    /// Where media is received.
    address: IpAddr,
    /// No call is longer.
    longest: Duration,
    live: Mutex<HashMap<String, Live>>,
    seen: Mutex<VecDeque<Record>>,
    /// How many go on: 0 when all have ended.
    going: watch::Sender<usize>,
}

/// What others hold of a call.
struct Live {
    /// Why it shall end.
    end: watch::Sender<Option<&'static str>>,
    inputs: mpsc::Sender<Input>,
}

impl Calls {
    pub(crate) fn new(address: IpAddr, longest: Duration) -> Calls {
        // Nobody can send to an address that means "any".
        let address = if address.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { address };
        Calls {
            address,
            longest,
            live: Mutex::default(),
            seen: Mutex::default(),
            going: watch::Sender::new(0),
        }
    }

    /// Begins a call: its id and the answer's SDP.
    async fn place(state: &Arc<State>, offer: Offer) -> Result<(String, String), Fault> {
        let calls = &state.calls;
        let id = state.ids.with_prefix("rtc_");
        let (end, ending) = watch::channel(None);
        let (inputs, heard) = mpsc::channel(talk::WAITING);
        let record = record::open(&id, &offer);
        {
            let mut live = lock(&calls.live);
            if live.len() >= LIVE {
                return Err(Fault::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    format!("There are {LIVE} calls already."),
                ));
            }
            live.insert(id.clone(), Live { end, inputs: inputs.clone() });
            calls.going.send_replace(live.len());
        }
        {
            let mut seen = lock(&calls.seen);
            seen.push_back(Arc::clone(&record));
            if seen.len() > REMEMBERED {
                seen.pop_front();
            }
        }
        let place = Place { state: Arc::clone(state), id: id.clone(), record };
        let (answered, answer) = oneshot::channel();
        // By itself: a caller who does not wait for the answer leaves nothing half made.
        tokio::spawn(life::live(place, offer, life::Wires { inputs, heard, ending }, answered));
        match answer.await {
            Ok(answer) => answer.map(|sdp| (id, sdp)),
            Err(_) => Err(Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "The call could not be set up.")),
        }
    }

    /// Asks a call to end.
    fn end(&self, id: &str, why: &'static str) -> Result<(), Fault> {
        let live = lock(&self.live);
        live.get(id).ok_or_else(|| unknown(id))?.end.send_replace(Some(why));
        Ok(())
    }

    fn know(&self, id: &str) -> Result<(), Fault> {
        if lock(&self.live).contains_key(id) { Ok(()) } else { Err(unknown(id)) }
    }

    /// Joins a call: what is said in it, and where to say something.
    pub(crate) fn join(&self, id: &str) -> Result<Sideband, Fault> {
        let live = lock(&self.live);
        let call = live.get(id).ok_or_else(|| unknown(id))?;
        let (outlet, events) = mpsc::channel(BEHIND);
        let busy = |_| Fault::new(StatusCode::SERVICE_UNAVAILABLE, "The call is busy.");
        call.inputs.try_send(Input::Sideband(outlet)).map_err(busy)?;
        Ok(Sideband { events, inputs: call.inputs.clone() })
    }

    /// The last calls, oldest first.
    pub(crate) fn snapshot(&self) -> Vec<SeenCall> {
        let records: Vec<Record> = lock(&self.seen).iter().cloned().collect();
        records.iter().map(|record| lock(record).clone()).collect()
    }

    /// Asks all calls to end.
    pub(crate) fn end_all(&self) {
        for call in lock(&self.live).values() {
            call.end.send_replace(Some("shutdown"));
        }
    }

    /// Waits a moment for all to have ended.
    pub(crate) async fn ended(&self) {
        let mut going = self.going.subscribe();
        // Who has not ended by then ends with the runtime.
        let _ = tokio::time::timeout(FAREWELL, going.wait_for(|going| *going == 0)).await;
    }
}

/// A call's place among the others; given back when it drops.
struct Place {
    state: Arc<State>,
    id: String,
    record: Record,
}

impl Drop for Place {
    fn drop(&mut self) {
        let calls = &self.state.calls;
        record::close(&self.record);
        let mut live = lock(&calls.live);
        live.remove(&self.id);
        calls.going.send_replace(live.len());
    }
}

/// One who listens to a call, and may speak in it.
pub(crate) struct Sideband {
    pub(crate) events: mpsc::Receiver<String>,
    inputs: mpsc::Sender<Input>,
}

impl Sideband {
    /// Whether the call still hears.
    pub(crate) async fn say(&self, event: Value) -> bool {
        self.inputs.send(Input::Event(event)).await.is_ok()
    }
}

fn unknown(id: &str) -> Fault {
    let id: String = id.chars().take(64).collect();
    Fault::not_found(format!("No call found with id '{id}'.")).code("call_id_not_found").param("call_id")
}

/// A panic elsewhere does not make records unreadable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
