//! Tries every door after it was shut. Costs microseconds, and replaces trust in kernel, filter and container by proof.

use super::SandboxError;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::Mode;
use nix::unistd::{ForkResult, execve, fork, getpid};

/// A door: what it is called, and an attempt at it that is harmless where it succeeds.
type Door = (&'static str, fn() -> Result<(), Errno>);

/// Shut while models are loaded: the program does not exist, the file has no name, signal 0 does nothing.
pub const SHUT_AT_ENTRY: &[Door] = &[
    ("open an internet socket", || try_socket(AddressFamily::Inet)),
    ("open a local socket", || try_socket(AddressFamily::Unix)),
    ("write a file", || open("/tmp", OFlag::O_WRONLY | OFlag::O_TMPFILE, Mode::empty()).map(drop)),
    ("run a program", || {
        let nothing: [&std::ffi::CStr; 0] = [];
        execve(c"/nonexistent", &nothing, &nothing).map(drop)
    }),
    // To itself, which nothing but the filter would refuse.
    ("send a signal", || nix::sys::signal::kill(getpid(), None)),
    ("start a process", start_process),
];

/// Shut while models are loaded, where the kernel has landlock.
pub const SHUT_BY_LANDLOCK: &[Door] = &[("read a file that is not the runtime's", read_a_file)];

/// Shut while objects are looked at.
pub const SHUT_WHEN_SEALED: &[Door] = &[
    ("read a file", read_a_file),
    ("list a folder", || open("/", OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()).map(drop)),
];

/// Tries what a hostile picture would try. Returns what was refused.
pub fn try_doors(doors: &[Door]) -> Result<Vec<String>, SandboxError> {
    let mut refused = Vec::new();
    for (door, attempt) in doors {
        match attempt() {
            Err(Errno::EPERM | Errno::EACCES) => refused.push((*door).to_owned()),
            _ => return Err(SandboxError::Open(door)),
        }
    }
    Ok(refused)
}

fn read_a_file() -> Result<(), Errno> {
    open("/etc/passwd", OFlag::O_RDONLY, Mode::empty()).map(drop)
}

fn try_socket(family: AddressFamily) -> Result<(), Errno> {
    socket(family, SockType::Stream, SockFlag::empty(), None).map(drop)
}

fn start_process() -> Result<(), Errno> {
    // SAFETY: the child, should there be one, calls nothing but _exit, which is safe after a fork.
    match unsafe { fork() }? {
        ForkResult::Child => {
            // SAFETY: _exit takes no pointers and does not return.
            unsafe { nix::libc::_exit(0) }
        }
        ForkResult::Parent { .. } => Ok(()),
    }
}
