//! The box's own identity: one random UID, made at the first start and kept in the state folder.
//!
//! It stands in every report as the observing device (TID 1004) and must outlive restarts: the same finding must give
//! the same report (invariant 4).

use anyhow::Context;
use fovea_core::Uid;
use std::io::Write;
use std::path::Path;

const FILE_NAME: &str = "node.uid";

/// Reads the UID, or makes one durably.
pub fn load_or_create(state_dir: &Path) -> anyhow::Result<Uid> {
    let path = state_dir.join(FILE_NAME);
    match std::fs::read_to_string(&path) {
        Ok(text) => Uid::new(text.trim()).with_context(|| {
            format!(
                "{} is damaged; put the UID of an earlier report in it, or remove it for a new identity",
                path.display()
            )
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => create(state_dir, &path),
        Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
    }
}

fn create(state_dir: &Path, path: &Path) -> anyhow::Result<Uid> {
    let mut bytes = [0u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random numbers: {error}"))?;
    let uid = Uid::from_uuid_bytes(bytes);
    let temp = state_dir.join(".node.uid.new");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&temp)?;
        writeln!(file, "{uid}")?;
        file.sync_all()?;
        std::fs::rename(&temp, path)?;
        std::fs::File::open(state_dir)?.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))?;
    Ok(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_made_once_and_kept() {
        let state = tempfile::tempdir().unwrap();
        let made = load_or_create(state.path()).unwrap();
        assert_eq!(load_or_create(state.path()).unwrap(), made);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(load_or_create(other.path()).unwrap(), made);
    }

    #[test]
    fn a_damaged_identity_is_not_replaced_silently() {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join(FILE_NAME), "not a uid").unwrap();
        assert!(load_or_create(state.path()).is_err());
    }
}
