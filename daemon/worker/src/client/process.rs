//! One worker process: spawned, spoken to, and killed when it overruns or is dropped.
//! In: requests with open files. Out: answers, or how the process died.
//! Promise: the process never outlives this value, and every wait has a deadline.

use crate::protocol::{Answer, Packet, Request, Start, Step};
use crate::sandbox::SandboxReport;
use crate::wire::{Channel, WireError};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a process that hung up may take to end, before it is killed.
const END_GRACE: Duration = Duration::from_millis(200);

/// How a request ended when it was not answered.
#[derive(Debug)]
pub struct Death {
    /// Signal or exit status, or that it overran.
    pub how: String,
    /// True when it was killed for taking too long.
    pub overran: bool,
    /// The last step that was announced, and the model's slot.
    pub at: Option<(Step, usize)>,
}

/// Why a process did not come up.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program could not be started.
    #[error("start the program")]
    Spawn(#[source] std::io::Error),
    /// No socket pair.
    #[error("open a channel to it")]
    Channel(#[source] WireError),
    /// It says why it does not work here.
    #[error("{0}")]
    Refused(String),
    /// It ended before it was ready.
    #[error("it ended before it was ready: {0}")]
    Died(String),
}

/// A worker that is shut in.
#[derive(Debug)]
pub struct Process {
    child: Child,
    channel: Channel,
    /// What its device is.
    pub device: String,
    /// Which doors are shut.
    pub sandbox: SandboxReport,
    /// As of its last answer.
    pub resident_bytes: u64,
}

impl Process {
    /// Starts the program and waits until it is shut in.
    pub fn start(program: &Path, start: Start, deadline: Duration) -> Result<Self, SpawnError> {
        let (channel, theirs) = Channel::pair().map_err(SpawnError::Channel)?;
        let child = Command::new(program)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(SpawnError::Spawn)?;
        let sandbox = SandboxReport::default();
        let mut process = Self { child, channel, device: String::new(), sandbox, resident_bytes: 0 };
        let asked = process.ask(&Request::Start(start), &[], deadline).map_err(|death| SpawnError::Died(death.how))?;
        match asked.0 {
            Answer::Started { device } => {
                process.device = device;
                Ok(process)
            }
            Answer::NotStarted { problem } => Err(SpawnError::Refused(problem)),
            _ => Err(SpawnError::Died("it did not answer the question".to_owned())),
        }
    }

    /// Shuts its last door, once all bundles are loaded; those that `give_way` are dropped.
    pub fn seal(&mut self, give_way: Vec<usize>, deadline: Duration) -> Result<(), SpawnError> {
        match self.ask(&Request::Seal { give_way }, &[], deadline) {
            Ok((Answer::Sealed(sandbox), _)) => {
                self.sandbox = sandbox;
                Ok(())
            }
            Ok(_) => Err(SpawnError::Died("it did not answer the question".to_owned())),
            Err(death) => Err(SpawnError::Died(death.how)),
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends one request and waits for its final answer. After a [`Death`] the process is gone.
    pub fn ask(
        &mut self,
        request: &Request,
        files: &[BorrowedFd],
        limit: Duration,
    ) -> Result<(Answer, Vec<OwnedFd>), Death> {
        let deadline = Some(Instant::now() + limit);
        let mut at = None;
        let mut ended = self.channel.send(request, files, deadline).err();
        while ended.is_none() {
            match self.channel.receive::<Packet>(deadline) {
                Ok((packet, files)) => {
                    self.resident_bytes = packet.resident_bytes;
                    match packet.answer {
                        Answer::Working { step, slot } => at = Some((step, slot)),
                        answer => return Ok((answer, files)),
                    }
                }
                Err(error) => ended = Some(error),
            }
        }
        let overran = matches!(ended, Some(WireError::Deadline));
        let status = self.end(if overran { Duration::ZERO } else { END_GRACE });
        let how = match ended {
            Some(WireError::Deadline) => format!("killed after {} ms without an answer", limit.as_millis()),
            Some(WireError::Malformed) => "killed because its answer was not understood".to_owned(),
            _ => status.map_or_else(|| "ended".to_owned(), describe),
        };
        Err(Death { how, overran, at })
    }

    /// Waits `grace` for it to end by itself, then kills it.
    fn end(&mut self, grace: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + grace;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
                Ok(None) | Err(_) => break,
            }
        }
        // Fails only when it has just ended by itself; wait collects it either way.
        let _already_gone = self.child.kill();
        self.child.wait().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => match nix::sys::signal::Signal::try_from(signal) {
            Ok(signal) => format!("ended by {signal}"),
            Err(_) => format!("ended by signal {signal}"),
        },
        (None, Some(code)) => format!("ended with exit status {code}"),
        (None, None) => "ended".to_owned(),
    }
}
