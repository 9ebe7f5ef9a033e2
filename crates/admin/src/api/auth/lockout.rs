//! Failed logins are counted, and the next one waits: by name and by address, in the database, so
//! that a restart forgets nothing.
//!
//! An attempt counts as failed before its password is looked at, so that many at one time win
//! nothing; a success takes that back.

use std::net::{IpAddr, Ipv6Addr};

use aiproxy_store::{Lockout, Store, Tx};
use http::StatusCode;

use crate::api::error::{ApiError, ApiResult};

/// Failures of one address that cost nothing: a company may stand behind it.
const ADDRESS_FAILURES: i64 = 20;
/// The longest wait, seconds.
const LONGEST: i64 = 15 * 60;
/// Failures are forgotten when there was none for so long, seconds.
const FORGET: i64 = 24 * 3600;

/// One attempt to sign in.
#[derive(Debug)]
pub(crate) struct Attempt {
    name: String,
    address: String,
}

impl Attempt {
    /// An attempt by this name from this address.
    pub(crate) fn new(name: &str, address: &str) -> Self {
        Self {
            name: format!("name:{}", name.to_lowercase()),
            address: format!("address:{}", network(address)),
        }
    }

    /// Counts the attempt as failed, or refuses it if its name or address has to wait.
    ///
    /// # Errors
    /// 429 `locked_out`, also for the right password; the database's.
    pub(crate) async fn begin(&self, store: &Store, failures: i64, now: i64) -> ApiResult<()> {
        self.check(store, now).await?;
        let mut tx = store.write().await?;
        // Others may have failed while this one waited for the writer.
        let [name, address] = self.check(store, now).await?;
        tx.put_lockout(&failed(&self.name, name, failures, now)).await?;
        tx.put_lockout(&failed(&self.address, address, ADDRESS_FAILURES, now)).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The attempt succeeded: clears the name's failures and takes back the address's last.
    pub(crate) async fn succeeded(&self, store: &Store, tx: &mut Tx) -> ApiResult<()> {
        tx.clear_lockout(&self.name).await?;
        match store.lockout(&self.address).await? {
            Some(known) if known.failures > 1 => {
                tx.put_lockout(&Lockout { failures: known.failures - 1, until: 0, ..known }).await?;
            }
            _ => {
                tx.clear_lockout(&self.address).await?;
            }
        }
        Ok(())
    }

    async fn check(&self, store: &Store, now: i64) -> ApiResult<[Option<Lockout>; 2]> {
        let known = [store.lockout(&self.name).await?, store.lockout(&self.address).await?];
        let until = known.iter().flatten().map(|known| known.until).max().unwrap_or(0);
        if until > now { Err(locked_out(until - now)) } else { Ok(known) }
    }
}

/// The count after one more failure, of which `free` cost nothing.
fn failed(subject: &str, known: Option<Lockout>, free: i64, now: i64) -> Lockout {
    let before = known.filter(|known| now - known.at < FORGET).map_or(0, |known| known.failures);
    let failures = before.saturating_add(1);
    let until = if failures < free { 0 } else { now + wait(failures - free) };
    Lockout { subject: subject.into(), failures, until, at: now }
}

/// 1 s, 2 s, 4 s … 15 min.
fn wait(doublings: i64) -> i64 {
    let doublings = u32::try_from(doublings.clamp(0, 20)).unwrap_or(20);
    (1i64 << doublings).min(LONGEST)
}

/// What is counted as one address: of IPv6, the network that one customer has.
fn network(address: &str) -> String {
    match address.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => {
            let network = u128::from(address) >> 64 << 64;
            format!("{}/64", Ipv6Addr::from(network))
        }
        _ => address.to_owned(),
    }
}

fn locked_out(seconds: i64) -> ApiError {
    let seconds = u64::try_from(seconds).unwrap_or(0).max(1);
    ApiError::new(
        StatusCode::TOO_MANY_REQUESTS,
        "locked_out",
        format!("Too many logins have failed. The next one may be tried in {seconds} s."),
    )
    .retry_after(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_after_the_free_failures_up_to_a_quarter_of_an_hour() {
        let mut known = None;
        let mut waits = Vec::new();
        for _ in 0..18 {
            let next = failed("name:a", known.take(), 5, 1_000_000);
            waits.push(if next.until == 0 { 0 } else { next.until - 1_000_000 });
            known = Some(next);
        }
        assert_eq!(waits[..4], [0; 4]);
        assert_eq!(waits[4..], [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 900]);
    }

    #[test]
    fn a_day_without_failures_forgets_them() {
        let known = Lockout { subject: "name:a".into(), failures: 40, until: 5, at: 5 };
        assert_eq!(failed("name:a", Some(known.clone()), 5, 5 + FORGET).failures, 1);
        assert_eq!(failed("name:a", Some(known), 5, 4 + FORGET).failures, 41);
    }

    #[test]
    fn an_ipv6_customer_counts_once() {
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(network("10.0.0.1"), "10.0.0.1");
    }
}
