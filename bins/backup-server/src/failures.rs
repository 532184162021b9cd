//! Who tried wrong tokens, and how often lately.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many wrong tokens of one address within [`WINDOW`] are answered as such; the others are
/// not even looked up in the answer.
const ALLOWED: u32 = 10;
const WINDOW: Duration = Duration::from_mins(1);

/// How many addresses are remembered.
const REMEMBERED: usize = 10_000;

/// Who tried wrong tokens. Whoever has a right one is never kept out: he may share an address,
/// or a proxy, with those who have not, and no number of tries finds a token anyway.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<HashMap<IpAddr, (Instant, u32)>>);

impl Failures {
    /// Counts a wrong token; whether it was one too many.
    pub(crate) fn count(&self, address: IpAddr, now: Instant) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |began: Instant| now.saturating_duration_since(began) >= WINDOW;
        if known.len() >= REMEMBERED {
            known.retain(|_, (began, _)| !over(*began));
        }
        let address = network(address);
        if known.len() >= REMEMBERED && !known.contains_key(&address) {
            // So many at once are an attack of many, which no list of addresses ends.
            return true;
        }
        let (began, count) = known.entry(address).or_insert((now, 0));
        if over(*began) {
            (*began, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count > ALLOWED
    }
}

/// Of an IPv6 address, what belongs to one customer.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_address_may_be_wrong_some_times_a_minute() {
        let failures = Failures::default();
        let start = Instant::now();
        for _ in 0..ALLOWED {
            assert!(!failures.count(address("2001:db8::1"), start));
        }
        assert!(failures.count(address("2001:db8::2"), start));
        assert!(!failures.count(address("2001:db8:0:1::1"), start));
        assert!(!failures.count(address("192.0.2.1"), start));
        assert!(failures.count(address("2001:db8::1"), start + WINDOW / 2));
        assert!(!failures.count(address("2001:db8::1"), start + WINDOW));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let failures = Failures::default();
        let start = Instant::now();
        for number in 0..2 * u32::try_from(REMEMBERED).unwrap() {
            failures.count(IpAddr::from(number.to_be_bytes()), start);
        }
        assert_eq!(failures.0.lock().unwrap().len(), REMEMBERED);
        assert!(failures.count(address("192.0.2.1"), start));
        // Those of before are forgotten in time.
        assert!(!failures.count(address("192.0.2.1"), start + WINDOW));
        assert_eq!(failures.0.lock().unwrap().len(), 1);
    }
}
