//! UIDs of patients' objects become other UIDs, the same ones everywhere and on every box with the same key.
//! In: a UID and the key. Out: its replacement, or itself where it is in the standard's registry.
//! Promise: without the key nobody can tell from a replacement what it replaced (a plain hash could be tried out).
//! Standard: DICOM PS3.15 section E.1.1 note on UIDs, PS3.5 section B.2.

use crate::Key;
use fovea_core::Uid;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::collections::HashSet;
use std::sync::OnceLock;

static REGISTRY: &str = include_str!("../data/well_known_uids.txt");

/// Whether `uid` stands in the standard's own registry, so that it names no object of a patient.
pub fn is_well_known(uid: &str) -> bool {
    static SET: OnceLock<HashSet<&'static str>> = OnceLock::new();
    let set = SET.get_or_init(|| REGISTRY.lines().filter(|line| !line.starts_with('#')).collect());
    set.contains(uid)
}

/// 16 keyed bytes for `text`; `purpose` keeps kinds of texts apart.
pub fn keyed(key: &Key, purpose: &str, text: &str) -> [u8; 16] {
    // HMAC takes a key of any length (RFC 2104); the error type exists for other MACs.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&key.0) else { unreachable!("HMAC takes 32 bytes") };
    mac.update(&(purpose.len() as u64).to_be_bytes());
    mac.update(purpose.as_bytes());
    mac.update(text.as_bytes());
    let digest = mac.finalize().into_bytes();
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes
}

/// The replacement of one UID, given without padding. What is no valid UID is replaced all the same.
pub fn replaced(key: &Key, uid: &str) -> String {
    if is_well_known(uid) {
        return uid.to_owned();
    }
    Uid::from_uuid_bytes(keyed(key, "uid", uid)).as_str().to_owned()
}
