//! One worker process: spawned, spoken to, and killed when it overruns or is dropped.
//! In: requests with open files. Out: answers, or how the process died.
//! Promise: the process never outlives this value, and every wait has a deadline.

use super::control::{Control, Progress, STOP_SEEN_MAX};
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
/// Most time for a field of an object that is read field by field, beside twice the limit of any object: a slow box
/// takes a fifth of it on average. Together with [`FIELDS_MAX`] it bounds every object.
const FIELD_TIME_MAX: Duration = Duration::from_millis(500);
/// How often the journal hears of an object that is read field by field.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// Most fields that are believed.
const FIELDS_MAX: u32 = 10_000;

/// How a request ended when it was not answered.
#[derive(Debug)]
pub struct Death {
    /// Signal or exit status, or that it overran.
    pub how: String,
    /// True when it was killed for taking too long.
    pub overran: bool,
    /// True when it was killed because the daemon stops.
    pub stopped: bool,
    /// The last step that was announced, and the model's slot.
    pub at: Option<(Step, usize)>,
    /// Whether the object was read field by field.
    pub in_fields: bool,
}

impl Death {
    /// An answer that does not fit the question: the process is not to be trusted any more.
    pub fn nonsense() -> Self {
        let how = "answered nonsense".to_owned();
        Self { how, overran: false, stopped: false, at: None, in_fields: false }
    }
}

/// How long one request may take.
///
/// An object that is read field by field may take longer than the limit: each further field begins it anew, up to a bound
/// that follows from the number of fields as it was told first.
struct Clock {
    begin: Instant,
    limit: Duration,
    deadline: Instant,
    /// Fields told first, and the most that were done.
    fields: Option<(u32, u32)>,
    /// When the journal last heard of them.
    told: Instant,
}

impl Clock {
    fn start(limit: Duration) -> Self {
        let begin = Instant::now();
        Self { begin, limit, deadline: begin + limit, fields: None, told: begin }
    }

    /// What the worker says of its progress; only a field more than ever before counts.
    fn progress(&mut self, done: u32, total: u32) -> Progress {
        let total = self.fields.map_or(total, |(total, _)| total).clamp(1, FIELDS_MAX);
        let now = Instant::now();
        if self.fields.is_none_or(|(_, most)| done > most) && done <= total {
            self.fields = Some((total, done));
            let last = self.begin + 2 * self.limit + FIELD_TIME_MAX * total;
            self.deadline = (now + self.limit).min(last);
        }
        let done = self.fields.map_or(0, |(_, most)| most);
        if now.saturating_duration_since(self.told) >= TOLD_EVERY {
            self.told = now;
            log::info!("field {done} of {total} after {} s", now.saturating_duration_since(self.begin).as_secs());
        }
        Progress { fields_done: done, fields: total, at: now }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// When to look up from waiting.
    fn glance(&self) -> Instant {
        self.deadline.min(Instant::now() + STOP_SEEN_MAX / 2)
    }
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
    pub fn start(program: &Path, start: Start, deadline: Duration, control: &Control) -> Result<Self, SpawnError> {
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
        let asked = process.ask(&Request::Start(start), &[], deadline, control);
        match asked.map_err(|death| SpawnError::Died(death.how))?.0 {
            Answer::Started { device } => {
                process.device = device;
                Ok(process)
            }
            Answer::NotStarted { problem } => Err(SpawnError::Refused(problem)),
            _ => Err(SpawnError::Died("it did not answer the question".to_owned())),
        }
    }

    /// Shuts its last door, once all bundles are loaded; those that `give_way` are dropped.
    pub fn seal(&mut self, give_way: Vec<usize>, deadline: Duration, control: &Control) -> Result<(), SpawnError> {
        match self.ask(&Request::Seal { give_way }, &[], deadline, control) {
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
        control: &Control,
    ) -> Result<(Answer, Vec<OwnedFd>), Death> {
        let mut clock = Clock::start(limit);
        let mut at = None;
        let mut stopped = false;
        let mut ended = self.channel.send(request, files, Some(clock.deadline)).err();
        while ended.is_none() {
            match self.channel.receive::<Packet>(Some(clock.glance())) {
                Ok((packet, files)) => {
                    self.resident_bytes = packet.resident_bytes;
                    match packet.answer {
                        Answer::Working { step, slot, fields } => {
                            at = Some((step, slot));
                            if let Some((done, total)) = fields {
                                control.tell(Some(clock.progress(done, total)));
                            }
                        }
                        answer => {
                            control.tell(None);
                            return Ok((answer, files));
                        }
                    }
                    // A worker that never falls silent is looked up from, too.
                    stopped = control.is_stopped();
                    ended = (stopped || clock.is_over()).then_some(WireError::Deadline);
                }
                Err(WireError::Deadline) => {
                    stopped = control.is_stopped();
                    ended = (stopped || clock.is_over()).then_some(WireError::Deadline);
                }
                Err(error) => ended = Some(error),
            }
        }
        control.tell(None);
        let overran = matches!(ended, Some(WireError::Deadline)) && !stopped;
        let status = self.end(if overran || stopped { Duration::ZERO } else { END_GRACE });
        let how = match ended {
            _ if stopped => "was killed because the daemon stops".to_owned(),
            Some(WireError::Deadline) => {
                format!("killed after {} ms without an answer", clock.begin.elapsed().as_millis())
            }
            Some(WireError::Malformed) => "killed because its answer was not understood".to_owned(),
            _ => status.map_or_else(|| "ended".to_owned(), describe),
        };
        Err(Death { how, overran, stopped, at, in_fields: clock.fields.is_some() })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_further_field_begins_the_limit_anew_and_a_repeated_one_does_not() {
        let limit = Duration::from_secs(10);
        let mut clock = Clock::start(limit);
        let first = clock.deadline;
        assert_eq!(clock.progress(0, 100).fields, 100);
        std::thread::sleep(Duration::from_millis(5));
        let told = clock.progress(1, 100);
        assert_eq!((told.fields_done, told.fields), (1, 100));
        let second = clock.deadline;
        assert!(second > first);
        std::thread::sleep(Duration::from_millis(5));
        for (done, total) in [(1, 100), (0, 100), (101, 100), (1, u32::MAX)] {
            clock.progress(done, total);
            assert_eq!(clock.deadline, second, "{done} of {total}");
        }
    }

    #[test]
    fn inv_08_the_number_of_fields_bounds_the_whole_and_cannot_be_raised_later() {
        let limit = Duration::from_millis(40);
        let mut clock = Clock::start(limit);
        clock.progress(0, 2);
        let last = clock.begin + 2 * limit + 2 * FIELD_TIME_MAX;
        clock.begin -= Duration::from_secs(1);
        clock.progress(1, 50_000);
        assert!(clock.deadline <= last - Duration::from_secs(1) + limit);
        clock.begin -= Duration::from_secs(60);
        clock.progress(2, 50_000);
        assert!(clock.is_over());
        // Nor told beyond all measure at first.
        assert_eq!(Clock::start(limit).progress(0, u32::MAX).fields, FIELDS_MAX);
    }
}
