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
