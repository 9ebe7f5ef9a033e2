//! Connections by the caller's address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// How many connections each address has. Asked once per connection, and only where there is a
/// limit; holds an entry per address that is connected, of which `max_connections` bounds the number.
#[derive(Debug, Default)]
pub(crate) struct PerIp(Mutex<HashMap<IpAddr, usize>>);

/// A place among those of one address.
#[derive(Debug)]
pub(crate) struct Place {
    all: Arc<PerIp>,
    address: IpAddr,
}

impl PerIp {
    /// A place, unless the address has `max` already.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<Place> {
        let address = whose(address);
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // There is no limit of 0: who is refused has an entry.
        let count = counts.entry(address).or_default();
        if *count >= max.max(1) {
            return None;
        }
        *count += 1;
        Some(Place { all: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Whoever has one address of IPv6 has its whole /64.
fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(six) => IpAddr::V6(Ipv6Addr::from_bits(six.to_bits() >> 64 << 64)),
        four @ IpAddr::V4(_) => four,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_its_own_places_and_gives_them_back() {
        let all = Arc::<PerIp>::default();
        let of = |text: &str| all.take(text.parse().unwrap(), 2);
        let one = of("10.0.0.1").unwrap();
        let _two = of("::ffff:10.0.0.1").unwrap();
        assert!(of("10.0.0.1").is_none());
        assert!(of("10.0.0.2").is_some());
        drop(one);
        assert!(of("10.0.0.1").is_some());
        let six = [of("2001:db8::1").unwrap(), of("2001:db8::2:1").unwrap()];
        assert!(of("2001:db8::3").is_none());
        assert!(of("2001:db8:0:1::1").is_some());
        drop(six);
        assert_eq!(all.0.lock().unwrap().len(), 1, "only those who are connected");
    }
}
