//! Programs that run beside a test: started with a log file, stopped by their process id, never left behind.
//!
//! In: a command. Out: a handle; what the program prints, in a file.
//! Promise: a dropped handle has killed its program; [`stop_everything`] kills all of them, for a program that ends on Ctrl-C.

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Process ids of all running handles of this program.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// A program that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Running {
    /// Starts `command`; standard output and error go to the end of the file `log`.
    ///
    /// # Errors
    /// When the log cannot be written or the program cannot be started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let out =
            File::options().create(true).append(true).open(log).with_context(|| format!("open {}", log.display()))?;
        let err = out.try_clone().context("share the log")?;
        // Held over the start, so that stop_everything() cannot miss a program that is just being started.
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        let child = child.with_context(|| format!("start {}", command.get_program().display()))?;
        running.insert(child.id());
        drop(running);
        Ok(Self { name: name.to_owned(), child, log: log.to_owned(), ended: None })
    }

    /// Process id. Meaningless once the program has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; none while it runs.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("look at {}", self.name))?;
            if self.ended.is_some() {
                RUNNING.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.pid());
            }
        }
        Ok(self.ended)
    }

    /// Sends a signal. Nothing happens once the program has ended.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        if self.ended()?.is_none() {
            kill(pid_of(self.pid()), signal).with_context(|| format!("signal {}", self.name))?;
        }
        Ok(())
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it still runs after `limit`; the error carries the end of its log.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let end = Instant::now() + limit;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            anyhow::ensure!(
                Instant::now() < end,
                "{} still runs after {} s\n{}",
                self.name,
                limit.as_secs(),
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGTERM, and a wait for the end.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub fn terminate(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(limit)
    }

    /// SIGKILL, and a wait for the end.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.wait(Duration::from_secs(10))
    }

    /// All that it printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The end of what it printed, for error messages.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!("--- end of {} ---\n{}", self.log.display(), lines[lines.len().saturating_sub(40)..].join("\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{} may still run as process {}: {error:#}", self.name, self.pid());
        }
    }
}

/// Kills every program that this one started and that still runs, and keeps others from being started. For a signal handler thread
/// that ends the process next.
pub fn stop_everything() {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    for pid in running.iter() {
        // It may have ended this moment: then there is nothing to stop.
        let _gone_already = kill(pid_of(*pid), Signal::SIGKILL);
    }
    // Whoever starts a program waits for this lock until the process ends.
    std::mem::forget(running);
}

/// Resident memory of a process in bytes (`VmRSS`), none when there is no such process.
#[must_use]
pub fn resident_bytes(pid: u32) -> Option<u64> {
    status_kib(pid, "VmRSS:").map(|kib| kib * 1024)
}

/// Highest resident memory that a process ever had, in bytes (`VmHWM`).
#[must_use]
pub fn resident_peak_bytes(pid: u32) -> Option<u64> {
    status_kib(pid, "VmHWM:").map(|kib| kib * 1024)
}

/// Processor time that a process and its ended children have used; none when there is no such process.
#[must_use]
pub fn processor_time(pid: u32) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name, in brackets, and may hold anything; utime is the 14th (proc(5)), the 12th behind it.
    let behind = stat.rsplit_once(')')?.1;
    let ticks: u64 = behind.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<u64>().ok()).sum();
    // Linux counts 100 ticks a second for programs on every architecture that we build for (USER_HZ).
    Some(Duration::from_millis(ticks * 10))
}

/// True while a process with this id exists and is no zombie.
#[must_use]
pub fn alive(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    state.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

/// Kills a process that is not a child of ours, for instance a daemon's worker.
///
/// # Errors
/// When there is no such process.
pub fn kill_other(pid: u32) -> anyhow::Result<()> {
    kill(pid_of(pid), Signal::SIGKILL).with_context(|| format!("kill process {pid}"))
}

fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(pid.cast_signed())
}

fn status_kib(pid: u32, key: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}
