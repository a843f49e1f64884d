//! Free loopback ports.

use anyhow::bail;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::net::TcpListener;

/// Below the range that the kernel takes source ports from (32768 on), so that no outgoing connection of a neighbour sits on it.
const RANGE: std::ops::Range<u16> = 12_000..32_000;

/// A port on 127.0.0.1 that nobody listens on now. Chosen at random, so that tests in other processes choose others.
///
/// # Errors
/// When 200 tries found none.
pub fn free() -> anyhow::Result<u16> {
    for _ in 0..200 {
        // A fresh RandomState is keyed from the system's randomness.
        let random = RandomState::new().build_hasher().finish();
        let port = RANGE.start + (random % RANGE.len() as u64) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between {} and {}", RANGE.start, RANGE.end)
}

/// True when somebody listens on this IPv4 port of this machine.
#[must_use]
pub fn listening(port: u16) -> bool {
    // Columns of /proc/net/tcp: slot, local address:port in hexadecimal, remote, state; 0A is listening.
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let local = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut columns = line.split_whitespace().skip(1);
        let (address, state) = (columns.next().unwrap_or_default(), columns.nth(1).unwrap_or_default());
        address.ends_with(&local) && state == "0A"
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_port_is_free_until_somebody_listens_on_it() {
        let port = super::free().unwrap();
        assert!(!super::listening(port));
        let _listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert!(super::listening(port));
    }
}
