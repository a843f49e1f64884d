//! Why the store could not open, and how failures of the disk become answers of the ports.

use fovea_core::PortError;
use std::io;
use std::path::PathBuf;

/// Why the store could not open. Damage is not among them: what is readable is served, the rest is reported.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon uses this folder.
    #[error("{path} is in use by another fovead ({owner}); two daemons must not share one state folder")]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What the other one wrote into it.
        owner: String,
    },
    /// The disk said no.
    #[error("{doing} {path}")]
    Io {
        /// What we were doing.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A newer daemon wrote here: to read it as an older one would lose what only the newer one understands.
    #[error("{path} has journal format {found}, this fovead reads up to {newest}: install the newer fovead again")]
    NewerFormat {
        /// The journal file.
        path: PathBuf,
        /// Its version.
        found: u8,
        /// The newest that is understood.
        newest: u8,
    },
    /// The index could not be opened even after it was emptied.
    #[error("rebuild the index: {detail}")]
    Index {
        /// What sled said.
        detail: String,
    },
    /// The upkeep's thread could not start.
    #[error("start the store's upkeep")]
    Thread {
        /// Why.
        source: io::Error,
    },
}

impl StoreError {
    /// Names what failed; for `map_err`.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}

/// A port error from a failed system call: no space (or quota) is told apart, because the sender may then try later.
pub(crate) fn port_io(doing: &'static str) -> impl FnOnce(io::Error) -> PortError {
    move |source| {
        if is_out_of_space(&source) {
            PortError::OutOfSpace { detail: format!("{doing}: {source}") }
        } else {
            PortError::Io { doing: doing.to_owned(), source }
        }
    }
}

/// ENOSPC and EDQUOT.
pub(crate) fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// One failure told to many waiters: `io::Error` cannot be cloned.
pub(crate) fn again(error: &PortError) -> PortError {
    match error {
        PortError::OutOfSpace { detail } => PortError::OutOfSpace { detail: detail.clone() },
        PortError::Io { doing, source } => PortError::Io {
            doing: doing.clone(),
            source: source
                .raw_os_error()
                .map_or_else(|| io::Error::new(source.kind(), source.to_string()), io::Error::from_raw_os_error),
        },
        PortError::Damaged { detail } => PortError::Damaged { detail: detail.clone() },
        PortError::NotHeld { what } => PortError::NotHeld { what: what.clone() },
    }
}
