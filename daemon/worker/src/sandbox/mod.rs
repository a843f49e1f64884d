//! Shuts the calling process in, in two steps: what is open stays open, nothing else can be reached.
//!
//! In: a process with one thread that has loaded its libraries. Out: [`SandboxReport`].
//! Promise: after [`enter`] no socket, program, process or signal is in reach, and no file but the runtime's own,
//! which the runtime lists whenever it reads a model; signed models are loaded in that state. After [`seal`] no file
//! at all can be opened; objects, which anybody may have written, are looked at only then. The system call filter
//! is indispensable, the other walls stand where the kernel and the service's own confinement allow them; what the
//! report lists as refused was tried after the doors were shut.

mod proof;
mod seccomp;

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
    path_beneath_rules,
};
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Open files beyond those of one bundle and one object are a leak.
const OPEN_FILES_MAX: u64 = 64;
/// Address space beyond the memory that is written to: libraries, stacks, files in memory.
const ADDRESS_SPACE_EXTRA_BYTES: u64 = 4 << 30;

/// Which doors are shut.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SandboxReport {
    /// Walls that stand: `network_namespace`, `limits`, `landlock`, `not_dumpable`, `seccomp`,
    /// `sealed`.
    pub applied: Vec<String>,
    /// Walls that this kernel or its confinement does not allow, with the reason.
    pub not_applied: Vec<String>,
    /// What was tried afterwards and refused, for instance `open a socket`.
    pub refused: Vec<String>,
}

/// Why a process cannot be shut in.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A wall that must stand does not.
    #[error("{wall}: {problem}")]
    Wall {
        /// Which.
        wall: &'static str,
        /// Why not.
        problem: String,
    },
    /// A door that must be shut is open.
    #[error("the sandbox does not hold: a worker could still {0}")]
    Open(&'static str),
}

impl SandboxReport {
    fn note(&mut self, wall: &'static str, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.applied.push(wall.to_owned()),
            Err(problem) => self.not_applied.push(format!("{wall}: {problem}")),
        }
    }
}

/// The part that comes before libraries are loaded: it needs a process of one thread.
pub fn prepare(memory_max_bytes: u64) -> Result<SandboxReport, SandboxError> {
    let mut report = SandboxReport::default();
    // With root's rights a new user namespace is not needed, but it also drops those rights for everything outside it.
    let spaces = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC;
    let outcome = nix::sched::unshare(CloneFlags::CLONE_NEWUSER | spaces).or_else(|_| nix::sched::unshare(spaces));
    report.note("network_namespace", outcome.map_err(|errno| errno.desc().to_owned()));
    let limits = [
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_NOFILE, OPEN_FILES_MAX),
        (Resource::RLIMIT_DATA, memory_max_bytes),
        (Resource::RLIMIT_AS, memory_max_bytes.saturating_add(ADDRESS_SPACE_EXTRA_BYTES)),
        (Resource::RLIMIT_FSIZE, memory_max_bytes),
    ];
    for (resource, limit) in limits {
        setrlimit(resource, limit, limit)
            .map_err(|errno| SandboxError::Wall { wall: "limits", problem: errno.desc().to_owned() })?;
    }
    report.note("limits", Ok(()));
    Ok(report)
}

/// First step: only `readable` and what lies below it can still be opened, for reading.
pub fn enter(mut report: SandboxReport, readable: &[&Path]) -> Result<SandboxReport, SandboxError> {
    prctl::set_no_new_privs().map_err(|errno| wall("no_new_privs")(errno.desc().to_owned()))?;
    report.note("landlock", landlock(readable));
    report.note("not_dumpable", prctl::set_dumpable(false).map_err(|errno| errno.desc().to_owned()));
    seccomp::enter().map_err(wall("seccomp"))?;
    report.note("seccomp", Ok(()));
    report.refused = proof::try_doors(proof::SHUT_AT_ENTRY)?;
    if report.applied.iter().any(|wall| wall == "landlock") {
        report.refused.extend(proof::try_doors(proof::SHUT_BY_LANDLOCK)?);
    }
    Ok(report)
}

/// Second step: no file can be opened any more, by no thread.
pub fn seal(mut report: SandboxReport) -> Result<SandboxReport, SandboxError> {
    seccomp::seal().map_err(wall("seccomp"))?;
    report.note("sealed", Ok(()));
    report.refused.extend(proof::try_doors(proof::SHUT_WHEN_SEALED)?);
    Ok(report)
}

fn wall(wall: &'static str) -> impl Fn(String) -> SandboxError {
    move |problem| SandboxError::Wall { wall, problem }
}

/// No file but `readable`, no TCP, no signal to the outside; a second wall behind the system call filter.
fn landlock(readable: &[&Path]) -> Result<(), String> {
    let abi = ABI::V6;
    let restrict = || {
        Ruleset::default()
            .handle_access(AccessFs::from_all(abi))?
            .handle_access(AccessNet::from_all(abi))?
            .scope(Scope::from_all(abi))?
            .create()?
            .add_rules(path_beneath_rules(readable, AccessFs::from_read(abi)))?
            .restrict_self()
    };
    match restrict() {
        Ok(status) if status.ruleset == RulesetStatus::NotEnforced => Err("not in this kernel".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
