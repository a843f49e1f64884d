//! Where the log goes: the journal under systemd, standard error otherwise.
//!
//! In: `log` records with structured fields. Out: journal fields or plain lines.
//! Promise: no patient identity: stages log UIDs, counts and reasons, never header values (invariant 9).

use log::LevelFilter;

/// Installs the one logger of this process.
///
/// # Errors
/// When the journal cannot be reached or a logger is installed already.
pub fn install(level: LevelFilter) -> anyhow::Result<()> {
    if systemd_journal_logger::connected_to_journal() {
        systemd_journal_logger::JournalLog::new()?.with_syslog_identifier("fovead".to_owned()).install()?;
        log::set_max_level(level);
    } else {
        // sled reports every flush at debug level: its warnings suffice.
        env_logger::Builder::new()
            .filter_level(level)
            .filter_module("sled", level.min(LevelFilter::Warn))
            .try_init()?;
    }
    Ok(())
}
