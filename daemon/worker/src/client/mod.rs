//! The daemon's side: keeps one worker alive and gives every object an answer.
//!
//! In: objects as open files. Out: analyses. Runs on an OS thread of its own: every call blocks, up to its deadline.
//! Promise (invariant 7): [`Worker::analyse`] always answers. A worker that dies or overruns is restarted with
//! back-off and the object is tried once more; a model under which workers die for two objects, or twice while it
//! is loaded, with no long run of good answers between, is put aside with the reason. Of one bundle id the highest
//! admitted version serves. An object that a refused model may have been for is told so. After [`Control::stop`] what is
//! in hand is given up at once.

mod control;
mod plausible;
mod process;
mod types;
mod versions;

pub use control::{Control, Progress, STOP_SEEN_MAX};
#[cfg(test)]
pub(crate) use plausible::is_plausible;
pub(crate) use types::PICTURE_SEALS;
pub use types::{Evaluated, ModelState, ModelStatus, Picture, StartError, WorkerConfig, WorkerError, WorkerStatus};

use crate::protocol::{Answer, Request, Start, Step};
use crate::sandbox::SandboxReport;
use fovea_core::{Analysis, ObjectHeader, Reason, Uid, Verdict, chain};
use fovea_infer::{BundleFiles, Eligible, NO_ELIGIBLE_MODEL, Refusal};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use process::{Death, Process};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;
use versions::{DUPLICATE, SUPERSEDED};

/// Deaths under a model before it is put aside.
const STRIKES: usize = 2;
/// Good answers of a model after which its deaths are forgotten: what comes so rarely is no fault of the model.
const GOOD_ANSWERS: u32 = 100;
/// Tries to bring a worker up before an object is given back without an analysis.
const START_TRIES: u32 = 3;
/// First pause before a restart; doubles with each further death in a row.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const STOPPING: &str = "the daemon is stopping";
/// Longest pause before a restart.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// One bundle, and what it has done.
#[derive(Debug)]
struct Slot {
    status: ModelStatus,
    put_aside: bool,
    deaths_at_load: usize,
    deaths_over: BTreeSet<Uid>,
    /// Since its last death over an object.
    good_answers: u32,
    /// Which objects it is for, as far as anybody trusted said so.
    eligible: Option<Eligible>,
}

/// A worker process and whatever replaces it.
///
/// Create and use it on one thread that lives as long: the process is tied to the thread that started it.
#[derive(Debug)]
pub struct Worker {
    config: WorkerConfig,
    slots: Vec<Slot>,
    models: Vec<ModelStatus>,
    process: Option<Process>,
    started: u64,
    deaths_in_a_row: u32,
    device: String,
    sandbox: SandboxReport,
    control: Control,
}

impl Worker {
    /// Starts a worker and offers it every bundle. Bundles that are refused do not fail the start.
    ///
    /// # Errors
    /// [`WorkerError::Start`] when no process comes up: the program, the runtime or the sandbox is missing.
    pub fn start(config: WorkerConfig) -> Result<Self, WorkerError> {
        Self::start_under(config, Control::default())
    }

    /// The same, under a handle that was there before.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_under(config: WorkerConfig, control: Control) -> Result<Self, WorkerError> {
        let config = config.with_whole_paths();
        let slot = |path: &PathBuf| {
            let state = ModelState::Refused(Reason::new("not_loaded", "not loaded yet", ""));
            let status = ModelStatus { path: path.clone(), state };
            Slot {
                status,
                put_aside: false,
                deaths_at_load: 0,
                deaths_over: BTreeSet::new(),
                good_answers: 0,
                eligible: None,
            }
        };
        let mut worker = Self {
            slots: config.bundles.iter().map(slot).collect(),
            config,
            models: Vec::new(),
            process: None,
            started: 0,
            deaths_in_a_row: 0,
            device: String::new(),
            sandbox: SandboxReport::default(),
            control,
        };
        worker.bring_up()?;
        Ok(worker)
    }

    /// Every bundle of the configuration, in its order.
    #[must_use]
    pub fn models(&self) -> &[ModelStatus] {
        &self.models
    }

    /// How the worker is.
    #[must_use]
    pub fn status(&self) -> WorkerStatus {
        WorkerStatus {
            pid: self.process.as_ref().map(Process::pid),
            restarts: self.started.saturating_sub(1),
            resident_bytes: self.process.as_ref().map_or(0, |process| process.resident_bytes),
            device: self.device.clone(),
            sandbox: self.sandbox.clone(),
            progress: self.control.progress(),
        }
    }

    /// For other threads: to see how far it is, and to stop it.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Analyses one object. `object` is a whole Part 10 file; the worker gets it read-only.
    ///
    /// Always answers, at the latest after two deadlines, the pauses between restarts and the loads; for an object that is
    /// read field by field half a second a field comes to that. The reason `worker_unavailable` says that no worker comes up
    /// at all, or that the client was told to stop: it is no fault of the object, which the caller may offer again.
    pub fn analyse(&mut self, object: &File, header: &ObjectHeader) -> Analysis {
        let object = match read_only(object) {
            Ok(object) => object,
            Err(error) => return unavailable(format!("the object cannot be opened for reading: {error}")),
        };
        let mut last = None;
        for _try in 0..2 {
            if let Err(error) = self.ensure_up() {
                return unavailable(chain(&error));
            }
            match self.try_analyse(&object, header) {
                Ok(analysis) => {
                    self.praise(&analysis);
                    return self.say_if_refused(analysis, header);
                }
                Err(death) if death.stopped => {
                    self.process = None;
                    return unavailable(STOPPING.to_owned());
                }
                Err(death) => {
                    log::warn!("worker {} at {:?}", death.how, death.at);
                    self.blame(&death, header);
                    let hopeless = death.overran && death.in_fields;
                    last = Some(death);
                    // It had its time for every field: a second try would take as long.
                    if hopeless {
                        break;
                    }
                }
            }
        }
        gave_up(last)
    }

    /// Analyses one object and gives the maps behind the answer, for comparison with a site's own labels. The same code in
    /// the same sandboxed process as [`Self::analyse`]. `object` may also be a PNG or JPEG file; `header` says what it is
    /// to be taken for. Of an object that is read field by field there are no maps. Tried once more on a fresh worker after a
    /// death, as [`Self::analyse`] is.
    ///
    /// # Errors
    /// [`WorkerError`]; after a second death the worker is restarted with the next request.
    pub fn evaluate(&mut self, object: &File, header: &ObjectHeader) -> Result<Evaluated, WorkerError> {
        let unreadable = |_| WorkerError::NoPicture(Reason::new("object_unreadable", "cannot be opened", ""));
        let object = read_only(object).map_err(unreadable)?;
        let request = Request::Evaluate { header: Box::new(header.clone()) };
        let mut is_second = false;
        loop {
            self.ensure_up()?;
            let answered = self.ask(&request, &object);
            let death = match answered.map(|(answer, files)| self.evaluated(answer, files)) {
                Ok(Some(evaluated)) => {
                    self.deaths_in_a_row = 0;
                    return Ok(evaluated);
                }
                Ok(None) => Death::nonsense(),
                Err(death) => death,
            };
            // One that was told to stop must, and one that had its time for every field would take as long again.
            let is_last = is_second || death.stopped || (death.overran && death.in_fields);
            log::warn!("worker {} at {:?} of an evaluation", death.how, death.at);
            let error = self.mourn(death);
            if is_last {
                return Err(error);
            }
            is_second = true;
        }
    }

    fn evaluated(&self, answer: Answer, files: Vec<OwnedFd>) -> Option<Evaluated> {
        let Answer::Evaluated { analysis, fit_probability, level, mask, nuclei, in_fields } = answer else {
            return None;
        };
        let mut files = files.into_iter();
        let mut map = |size: Option<(u32, u32)>| match size {
            Some(size) => files.next().and_then(|file| types::label_map(size, file).ok()).map(Some),
            None => Some(None),
        };
        let (mask, nuclei) = (map(mask)?, map(nuclei)?);
        let fits = fit_probability.is_none_or(|fit| (0.0..=1.0).contains(&fit));
        (fits && self.is_plausible(&analysis)).then_some(Evaluated {
            analysis: *analysis,
            fit_probability,
            level,
            mask,
            nuclei,
            in_fields,
        })
    }

    /// A capture device's PNG or JPEG file as plain pixels. Tried once more on a fresh worker after a death.
    ///
    /// # Errors
    /// [`WorkerError`]; after a death the worker is restarted with the next request.
    pub fn picture_rgb8(&mut self, picture: &File) -> Result<Picture, WorkerError> {
        let unreadable = |_| WorkerError::NoPicture(Reason::new("object_unreadable", "cannot be opened", ""));
        let object = read_only(picture).map_err(unreadable)?;
        let (answer, files) = match self.request(&Request::Picture, &object) {
            Err(WorkerError::Died { how }) => {
                log::warn!("worker {how} over a picture");
                self.request(&Request::Picture, &object)?
            }
            answered => answered?,
        };
        match (answer, <[OwnedFd; 1]>::try_from(files)) {
            (Answer::Picture { width_px, height_px }, Ok([file])) => Picture::checked(width_px, height_px, file),
            (Answer::NoPicture(reason), _) => Err(WorkerError::NoPicture(reason)),
            _ => {
                self.process = None;
                Err(WorkerError::Answer)
            }
        }
    }

    fn request(&mut self, request: &Request, file: &OwnedFd) -> Result<(Answer, Vec<OwnedFd>), WorkerError> {
        self.ensure_up()?;
        let answered = self.ask(request, file).map_err(|death| self.mourn(death))?;
        self.deaths_in_a_row = 0;
        Ok(answered)
    }

    fn ask(&mut self, request: &Request, file: &OwnedFd) -> Result<(Answer, Vec<OwnedFd>), Death> {
        let process = self.process.as_mut().ok_or_else(Death::nonsense)?;
        process.ask(request, &[file.as_fd()], self.config.object_deadline, &self.control)
    }

    fn mourn(&mut self, death: Death) -> WorkerError {
        self.process = None;
        self.deaths_in_a_row += 1;
        WorkerError::Died { how: death.how }
    }

    fn try_analyse(&mut self, object: &OwnedFd, header: &ObjectHeader) -> Result<Analysis, Death> {
        let process = self.process.as_mut().ok_or_else(Death::nonsense)?;
        let request = Request::Analyse { header: Box::new(header.clone()) };
        match process.ask(&request, &[object.as_fd()], self.config.object_deadline, &self.control)? {
            (Answer::Analysed(analysis), _) if self.is_plausible(&analysis) => {
                self.deaths_in_a_row = 0;
                Ok(*analysis)
            }
            _ => Err(Death::nonsense()),
        }
    }

    fn is_plausible(&self, analysis: &Analysis) -> bool {
        let serves = |model: &_| {
            self.models.iter().any(|known| matches!(&known.state, ModelState::Serving(s) if s.model == *model))
        };
        analysis.model.as_ref().is_none_or(serves) && plausible::is_plausible(analysis)
    }

    /// Takes the dead process away and charges the model that was running.
    fn blame(&mut self, death: &Death, header: &ObjectHeader) {
        self.process = None;
        self.deaths_in_a_row += 1;
        let Some((Step::Infer, slot)) = death.at else { return };
        let Some(slot) = self.slots.get_mut(slot) else { return };
        slot.good_answers = 0;
        slot.deaths_over.insert(header.sop_instance_uid.clone());
        if slot.deaths_over.len() >= STRIKES {
            slot.put_aside(format!("the worker {} under it for two objects", death.how));
            self.models = self.slots.iter().map(|slot| slot.status.clone()).collect();
        }
    }

    /// Counts a good answer of a model; enough of them clear its deaths.
    fn praise(&mut self, analysis: &Analysis) {
        let (Verdict::Scored(_), Some(model)) = (&analysis.verdict, &analysis.model) else { return };
        let answered = |slot: &&mut Slot| matches!(&slot.status.state, ModelState::Serving(s) if s.model == *model);
        let Some(slot) = self.slots.iter_mut().find(answered) else { return };
        slot.good_answers = slot.good_answers.saturating_add(1);
        if slot.good_answers >= GOOD_ANSWERS {
            slot.deaths_over.clear();
            slot.deaths_at_load = 0;
        }
    }

    /// Without an eligible model: says so where that may be because one is refused.
    fn say_if_refused(&self, analysis: Analysis, header: &ObjectHeader) -> Analysis {
        match &analysis.verdict {
            Verdict::NotAnalysed(reason) if reason.code == NO_ELIGIBLE_MODEL => {}
            _ => return analysis,
        }
        let refused = match self.slots.iter().filter(|slot| slot.is_missed_by(header)).count() {
            0 => return analysis,
            1 => "1 model bundle is refused".to_owned(),
            count => format!("{count} model bundles are refused"),
        };
        let advice = "Tell the person who looks after the box: foveactl models list";
        Analysis::not_analysed(Reason::new("model_refused", format!("no eligible model; {refused}"), advice))
    }

    /// Pauses after deaths, then starts a worker where there is none.
    fn ensure_up(&mut self) -> Result<(), WorkerError> {
        if self.control.is_stopped() {
            self.process = None;
            return Err(WorkerError::Stopped);
        }
        if self.process.is_some() {
            return Ok(());
        }
        let mut tries = 1;
        loop {
            std::thread::sleep(pause(self.deaths_in_a_row));
            match self.bring_up() {
                Ok(()) => return Ok(()),
                Err(error) if tries == START_TRIES => return Err(error),
                Err(error) => log::warn!("worker does not come up, try {tries}: {}", chain(&error)),
            }
            tries += 1;
            self.deaths_in_a_row += 1;
        }
    }

    /// Starts processes until one has seen every bundle that is not put aside. Ends, because each further try costs
    /// a bundle one of its strikes.
    fn bring_up(&mut self) -> Result<(), WorkerError> {
        loop {
            let start = Start {
                daemon_pid: nix::unistd::getpid().as_raw(),
                runtime_dir: self.config.runtime_dir.clone(),
                device: self.config.device.clone(),
                memory_max_bytes: self.config.memory_max_bytes,
                trusted_keys: self.config.trusted_keys.clone(),
            };
            let program = self.config.program.clone();
            let failed = |error| WorkerError::Start { program, source: StartError(error) };
            let process = Process::start(&self.config.program, start, self.config.load_deadline, &self.control);
            let mut process = match process {
                Ok(process) => process,
                Err(error) => return Err(failed(error)),
            };
            self.started += 1;
            if load_all(&mut process, &mut self.slots, self.config.load_deadline, &self.control) {
                let give_way = keep_highest_versions(&mut self.slots);
                process.seal(give_way, self.config.load_deadline, &self.control).map_err(failed)?;
                self.models = self.slots.iter().map(|slot| slot.status.clone()).collect();
                self.device.clone_from(&process.device);
                self.sandbox = process.sandbox.clone();
                self.tell(&process);
                self.process = Some(process);
                return Ok(());
            }
        }
    }

    /// What an operator should find in the journal of a worker that came up.
    fn tell(&self, process: &Process) {
        let serving = |slot: &&Slot| matches!(slot.status.state, ModelState::Serving(_));
        let count = self.slots.iter().filter(serving).count();
        log::info!("worker {} serves {count} of {} models on {}", process.pid(), self.slots.len(), self.device);
        for missing in &self.sandbox.not_applied {
            log::warn!("worker {}: one wall of the sandbox does not stand, {missing}", process.pid());
        }
        for slot in &self.slots {
            if let ModelState::Refused(reason) = &slot.status.state {
                log::warn!("model {} is refused: {}", slot.status.path.display(), reason.text);
            }
        }
    }
}

impl Slot {
    /// True when it does not serve, no other version of it does, and the object may have been its own.
    fn is_missed_by(&self, header: &ObjectHeader) -> bool {
        let ModelState::Refused(reason) = &self.status.state else { return false };
        ![SUPERSEDED, DUPLICATE].contains(&&*reason.code)
            && self.eligible.as_ref().is_none_or(|eligible| eligible.meant_for(header))
    }

    /// Always false: the process has not seen every bundle.
    fn died_at_load(&mut self, how: &str) -> bool {
        self.deaths_at_load += 1;
        if self.deaths_at_load >= STRIKES {
            self.put_aside(format!("the worker {how} twice while it was loaded"));
        }
        false
    }

    fn put_aside(&mut self, why: String) {
        log::warn!("model {} is put aside: {why}", self.status.path.display());
        self.put_aside = true;
        let advice = "Report it to whoever made the bundle; restart the box to try it again.";
        self.status.state = ModelState::Refused(Reason::new("model_put_aside", why, advice));
    }
}

/// Offers every bundle to a fresh process; false when it died over one, which then has a strike.
fn load_all(process: &mut Process, slots: &mut [Slot], deadline: Duration, control: &Control) -> bool {
    for (index, slot) in slots.iter_mut().enumerate().filter(|(_, slot)| !slot.put_aside) {
        let files = match BundleFiles::open(&slot.status.path) {
            Ok(files) => files,
            Err(error) => {
                slot.status.state = ModelState::Refused(Refusal::Bundle(error.into()).reason());
                continue;
            }
        };
        let (names, files) = match &files {
            BundleFiles::Folder(files) => (
                Some(files.iter().map(|(name, _)| name.clone()).collect()),
                files.iter().map(|(_, f)| f.as_fd()).collect(),
            ),
            BundleFiles::Tar(file) => (None, vec![file.as_fd()]),
        };
        match process.ask(&Request::Load { slot: index, names }, &files, deadline, control) {
            Ok((Answer::Loaded { eligible, outcome }, _)) => {
                slot.eligible = eligible;
                slot.status.state = outcome.map_or_else(ModelState::Refused, ModelState::Serving);
            }
            Ok(_) => return slot.died_at_load("answered nonsense"),
            Err(death) => return slot.died_at_load(&death.how),
        }
    }
    true
}

/// Refuses all but the highest admitted version of each bundle; the numbers of those that give way.
fn keep_highest_versions(slots: &mut [Slot]) -> Vec<usize> {
    let admitted = slots.iter().enumerate().filter_map(|(index, slot)| match &slot.status.state {
        ModelState::Serving(serving) => Some((index, slot.status.path.as_path(), &serving.model)),
        ModelState::Refused(_) => None,
    });
    let refusals = versions::give_way(admitted.collect());
    let give_way = refusals.iter().map(|(index, _)| *index).collect();
    for (index, reason) in refusals {
        slots[index].status.state = ModelState::Refused(reason);
    }
    give_way
}

/// None before the first restart after a good run, then doubling.
fn pause(deaths_in_a_row: u32) -> Duration {
    match deaths_in_a_row {
        0 | 1 => Duration::ZERO,
        n => PAUSE_FIRST.saturating_mul(1 << (n - 2).min(10)).min(PAUSE_MAX),
    }
}

/// The same file, opened so that the worker cannot write to it and has its own position in it.
fn read_only(file: &File) -> std::io::Result<OwnedFd> {
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    if flags & OFlag::O_ACCMODE == OFlag::O_RDONLY {
        return file.as_fd().try_clone_to_owned();
    }
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).map(OwnedFd::from)
}

fn gave_up(death: Option<Death>) -> Analysis {
    let overran = death.as_ref().is_some_and(|death| death.overran);
    let (code, text) = if overran {
        ("worker_overran", "the analysis took too long, twice")
    } else {
        ("worker_died", "the analysis ended without a result, twice")
    };
    Analysis::not_analysed(Reason::new(code, text, "Look at the picture yourself, or take it again."))
}

fn unavailable(text: String) -> Analysis {
    Analysis::not_analysed(Reason::new("worker_unavailable", text, "Tell the person who looks after the box."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_come_at_once_first_and_then_ever_slower() {
        let pauses: Vec<u128> = [0, 1, 2, 3, 4, 20, u32::MAX].into_iter().map(|n| pause(n).as_millis()).collect();
        assert_eq!(pauses, [0, 0, 100, 200, 400, 10_000, 10_000]);
    }

    #[test]
    fn a_writable_file_is_handed_over_read_only() {
        let file = tempfile::tempfile().unwrap();
        let handed = read_only(&file).unwrap();
        assert!(std::io::Write::write(&mut File::from(handed), b"x").is_err());
    }
}
