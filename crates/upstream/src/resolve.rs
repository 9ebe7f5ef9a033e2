//! Addresses of hosts, by the system's resolver.
//!
//! A new connection looks its host up anew; those that ask in the same moment share one lookup. The
//! system's own cache, where there is one, decides how long an answer lives.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::task::spawn_local;
use tokio::time::Instant;

/// Lookups that the process makes at one time: each holds a thread for as long as the name server
/// takes. Others wait, within their own limit for connecting.
static LOOKUPS: Semaphore = Semaphore::const_new(16);

/// How long an answer serves those who ask next: a burst of connections is one lookup.
const FRESH: Duration = Duration::from_secs(1);
/// Hosts that nobody has asked for in so long are forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// What a lookup said: addresses in the system's order of preference, at least one.
pub type Found = Result<Rc<[IpAddr]>, Arc<io::Error>>;

/// Looks hosts up for one thread.
#[derive(Debug, Default)]
pub struct Resolver {
    hosts: RefCell<HashMap<Box<str>, Rc<Host>>>,
}

#[derive(Debug, Default)]
struct Host {
    state: RefCell<State>,
    answered: Notify,
}

#[derive(Debug, Default)]
struct State {
    asking: bool,
    answer: Option<(Instant, Found)>,
}

impl Resolver {
    /// The host's addresses. The wait is the caller's to bound.
    ///
    /// # Errors
    /// The system's, or `NotFound` where the host has none.
    pub async fn lookup(&self, host: &str) -> Found {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Rc::new([address]));
        }
        let entry = Rc::clone(self.hosts.borrow_mut().entry(host.into()).or_default());
        loop {
            let answered = {
                let mut state = entry.state.borrow_mut();
                if let Some((when, found)) = &state.answer
                    && when.elapsed() < FRESH
                {
                    return found.clone();
                }
                if !state.asking {
                    state.asking = true;
                    spawn_local(ask(Rc::clone(&entry), host.to_owned()));
                }
                entry.answered.notified()
            };
            answered.await;
        }
    }

    /// Forgets hosts that nobody asks for any more.
    pub fn sweep(&self) {
        self.hosts.borrow_mut().retain(|_, host| {
            let state = host.state.borrow();
            state.asking || state.answer.as_ref().is_none_or(|(when, _)| when.elapsed() < FORGOTTEN)
        });
    }
}

/// Goes on when whoever asked has left: the next one may use what comes.
async fn ask(entry: Rc<Host>, host: String) {
    let found = {
        let _permit = LOOKUPS.acquire().await;
        tokio::net::lookup_host((host.as_str(), 0)).await
    };
    let found = found.and_then(|found| {
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found.map(|found| found.ip()) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let none = || io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        if addresses.is_empty() { Err(none()) } else { Ok(Rc::from(addresses)) }
    });
    let mut state = entry.state.borrow_mut();
    state.asking = false;
    state.answer = Some((Instant::now(), found.map_err(Arc::new)));
    entry.answered.notify_waiters();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "local")]
    async fn those_who_ask_together_share_a_lookup() {
        let resolver = Resolver::default();
        let (one, other) = tokio::join!(resolver.lookup("localhost"), resolver.lookup("localhost"));
        assert!(Rc::ptr_eq(&one.unwrap(), &other.unwrap()));
        assert_eq!(*resolver.lookup("192.0.2.1").await.unwrap(), ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    }

    #[tokio::test(flavor = "local")]
    async fn a_host_without_address_is_an_error() {
        let resolver = Resolver::default();
        assert!(resolver.lookup("no-such-host.invalid").await.is_err());
    }
}
