//! The worker's side: start, shut in, then one request after the other until the daemon is gone.
//!
//! In: the daemon's end of a socket pair, as standard input. Out: answers.
//! Promise: no byte of a bundle is looked at before the process is shut in, and none of an object before it is sealed.

use crate::analyse::{Evaluation, Question, Served, analyse};
use crate::protocol::{Answer, Packet, Request, ServingModel, Start, Step};
use crate::sandbox::{self, SandboxError};
use crate::wire::{Channel, WireError};
use fovea_core::{Analysis, ObjectHeader, Pixels, Reason, chain};
use fovea_decode::DecodeLimits;
use fovea_infer::read::LabelMap;
use fovea_infer::{Bundle, BundleFiles, Device, DeviceError, Model, Refusal, TrustedKey};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A codec may need about six times the frame; two more for the frame itself and what surrounds it.
const MEMORY_PER_FRAME: u64 = 8;

/// Why the worker's side ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The socket failed, or said something that is not understood.
    #[error("talk to the daemon")]
    Wire(#[source] WireError),
    /// A message that may not come at this point: objects before the seal, bundles after it, a second start.
    #[error("the daemon asked out of order")]
    OutOfOrder,
    /// The daemon died before the worker could be tied to it.
    #[error("the daemon is gone")]
    Orphan,
    /// A door stays open or the kernel lacks what is indispensable.
    #[error("shut in")]
    Sandbox(#[from] SandboxError),
    /// No runtime.
    #[error("open the device")]
    Device(#[from] DeviceError),
    /// A system call that cannot fail did.
    #[error("{doing}")]
    System {
        /// What we were doing.
        doing: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// Points at which a test makes the worker misbehave. The product's side does nothing.
pub trait Hooks {
    /// Before a bundle is read; `names` are its files, none for a tar.
    fn before_load(&self, _names: Option<&[String]>) {}
    /// Before each step of an analysis.
    fn before_step(&self, _step: Step, _header: &ObjectHeader) {}
    /// In the place of an analysis, when it answers.
    fn instead(&self, _header: &ObjectHeader) -> Option<Analysis> {
        None
    }
}

pub use crate::protocol::Step as AnalysisStep;

/// Nothing is done at any point.
pub struct NoHooks;

impl Hooks for NoHooks {}

/// Serves the daemon at the other end of `socket` until it hangs up.
///
/// # Errors
/// [`ServeError`]; where the daemon still listens it has been told.
pub fn run(socket: OwnedFd, hooks: &dyn Hooks) -> Result<(), ServeError> {
    let channel = Channel::child(socket);
    let (request, _files) = channel.receive::<Request>(None).map_err(ServeError::Wire)?;
    let Request::Start(start) = request else { return Err(ServeError::OutOfOrder) };
    let limits = DecodeLimits::default();
    let limits = DecodeLimits {
        frame_bytes_max: limits.frame_bytes_max.min(start.memory_max_bytes / MEMORY_PER_FRAME),
        whole_bytes_max: limits.whole_bytes_max.min(start.memory_max_bytes / 2),
        ..limits
    };
    match begin(&start) {
        Ok((device, report, memory)) => {
            let mut server = Server {
                channel,
                device,
                report,
                sealed: false,
                models: Vec::new(),
                trusted_keys: start.trusted_keys,
                limits,
                tensor: Vec::new(),
                memory,
                hooks,
            };
            let description = server.device.description().to_owned();
            server.answer(Answer::Started { device: description }, None)?;
            server.serve()
        }
        Err(error) => {
            let packet = Packet { resident_bytes: 0, answer: Answer::NotStarted { problem: chain(&error) } };
            // The daemon may be what is gone; the error is returned in any case.
            let _told = channel.send(&packet, &[], None);
            Err(error)
        }
    }
}

/// Everything that needs the file system, then the doors.
fn begin(start: &Start) -> Result<(Device, sandbox::SandboxReport, File), ServeError> {
    let system = |doing| move |source: std::io::Error| ServeError::System { doing, source };
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| system("ask for the daemon's end")(errno.into()))?;
    // The daemon may have died before that call.
    if nix::unistd::getppid().as_raw() != start.daemon_pid {
        return Err(ServeError::Orphan);
    }
    std::env::set_current_dir("/").map_err(system("leave the folder"))?;
    let report = sandbox::prepare(start.memory_max_bytes)?;
    let memory = File::open("/proc/self/statm").map_err(system("open the memory count"))?;
    let device = Device::open(&start.device, &start.runtime_dir)?;
    // The runtime lists its own folder whenever it reads a model, and asks how many processors there are.
    let report = sandbox::enter(report, &[&start.runtime_dir, Path::new("/sys/devices/system")])?;
    Ok((device, report, memory))
}

struct Server<'a> {
    channel: Channel,
    device: Device,
    report: sandbox::SandboxReport,
    sealed: bool,
    models: Vec<Served>,
    trusted_keys: Vec<TrustedKey>,
    limits: DecodeLimits,
    tensor: Vec<f32>,
    /// /proc/self/statm, opened while that was possible.
    memory: File,
    hooks: &'a dyn Hooks,
}

impl Server<'_> {
    fn serve(&mut self) -> Result<(), ServeError> {
        loop {
            let (request, files) = match self.channel.receive::<Request>(None) {
                Ok(received) => received,
                Err(WireError::Closed) => return Ok(()),
                Err(error) => return Err(ServeError::Wire(error)),
            };
            match request {
                Request::Seal { give_way } if !self.sealed => {
                    self.models.retain(|served| !give_way.contains(&served.slot));
                    self.report = sandbox::seal(std::mem::take(&mut self.report))?;
                    self.sealed = true;
                    self.answer(Answer::Sealed(self.report.clone()), None)?;
                }
                Request::Load { slot, names } if !self.sealed => {
                    let loaded = self.load(slot, names, files);
                    self.answer(loaded, None)?;
                }
                Request::Analyse { header } if self.sealed => {
                    let evaluation = self.analyse(&header, files, false);
                    self.answer(Answer::Analysed(Box::new(evaluation.analysis)), None)?;
                }
                Request::Evaluate { header } if self.sealed => {
                    let evaluation = self.analyse(&header, files, true);
                    self.answer_evaluation(evaluation)?;
                }
                Request::Picture if self.sealed => match self.picture(files) {
                    Ok((width_px, height_px, file)) => {
                        self.answer(Answer::Picture { width_px, height_px }, Some(file.as_fd()))?;
                    }
                    Err(reason) => self.answer(Answer::NoPicture(reason), None)?,
                },
                _ => return Err(ServeError::OutOfOrder),
            }
        }
    }

    fn answer(&self, answer: Answer, file: Option<BorrowedFd>) -> Result<(), ServeError> {
        self.answer_with(answer, file.as_slice())
    }

    fn answer_with(&self, answer: Answer, files: &[BorrowedFd]) -> Result<(), ServeError> {
        let packet = Packet { resident_bytes: resident_bytes(&self.memory), answer };
        self.channel.send(&packet, files, None).map_err(ServeError::Wire)
    }

    fn answer_evaluation(&self, evaluation: Evaluation) -> Result<(), ServeError> {
        let system = |source| ServeError::System { doing: "hand a map over", source };
        let Evaluation { analysis, fit_probability, level, mask, nuclei, in_fields } = evaluation;
        let size = |map: &Option<LabelMap>| map.as_ref().map(|map| (map.width_px, map.height_px));
        let answer = Answer::Evaluated {
            analysis: Box::new(analysis),
            fit_probability,
            level,
            mask: size(&mask),
            nuclei: size(&nuclei),
            in_fields,
        };
        let mut files = Vec::new();
        for map in [mask, nuclei].into_iter().flatten() {
            let bytes: Vec<u8> = map.labels.iter().flat_map(|label| label.to_le_bytes()).collect();
            files.push(in_memory(&bytes).map_err(system)?);
        }
        let files: Vec<BorrowedFd> = files.iter().map(AsFd::as_fd).collect();
        self.answer_with(answer, &files)
    }

    fn load(&mut self, slot: usize, names: Option<Vec<String>>, files: Vec<OwnedFd>) -> Answer {
        self.hooks.before_load(names.as_deref());
        match bundle_files(names, files) {
            Ok(files) => {
                let manifest = Bundle::read_manifest(&files, &self.trusted_keys);
                let eligible = manifest.ok().map(|manifest| manifest.eligible);
                Answer::Loaded { eligible, outcome: self.admit(slot, &files) }
            }
            Err(reason) => Answer::Loaded { eligible: None, outcome: Err(reason) },
        }
    }

    fn admit(&mut self, slot: usize, files: &BundleFiles) -> Result<Box<ServingModel>, Reason> {
        let bundle = Bundle::read(files, &self.trusted_keys).map_err(|error| Refusal::from(error).reason())?;
        let model = Model::admit(bundle, &mut self.device).map_err(|refusal| refusal.reason())?;
        let manifest = model.manifest();
        let serving = ServingModel {
            model: model.reference().clone(),
            task: manifest.task.clone(),
            algorithm_name: manifest.algorithm.name.clone(),
            algorithm_family: manifest.algorithm.family.clone(),
            label: manifest.label().to_owned(),
            admission: model.admission().clone(),
            device: model.device().to_owned(),
        };
        self.models.push(Served { slot, model });
        Ok(Box::new(serving))
    }

    fn analyse(&mut self, header: &ObjectHeader, files: Vec<OwnedFd>, with_maps: bool) -> Evaluation {
        if let Some(analysis) = self.hooks.instead(header) {
            return Evaluation::without_maps(analysis);
        }
        let Ok([object]) = <[OwnedFd; 1]>::try_from(files) else {
            let reason = Reason::new("object_unreadable", "the object's file did not arrive", "");
            return Evaluation::without_maps(Analysis::not_analysed(reason));
        };
        let (channel, memory, hooks) = (&self.channel, &self.memory, self.hooks);
        let mut announce = |step: Step, slot: usize, fields: Option<(u32, u32)>| {
            let answer = Answer::Working { step, slot, fields };
            let packet = Packet { resident_bytes: resident_bytes(memory), answer };
            // A daemon that is gone is noticed when the answer is sent.
            let _told = channel.send(&packet, &[], None);
            hooks.before_step(step, header);
        };
        let question = Question { object: File::from(object), header, limits: self.limits, with_maps };
        analyse(&mut self.models, question, &mut self.tensor, &mut announce)
    }

    /// A capture device's PNG or JPEG as sealed RGB pixels: what the daemon maps can no longer change under it.
    fn picture(&self, files: Vec<OwnedFd>) -> Result<(u32, u32, File), Reason> {
        let unreadable = |text: &str| Reason::new("object_unreadable", text, "");
        let Ok([object]) = <[OwnedFd; 1]>::try_from(files) else {
            return Err(unreadable("the object's file did not arrive"));
        };
        let picture = fovea_decode::picture_rgb8(File::from(object), self.limits).map_err(|error| error.reason())?;
        let Pixels::Rgb8(rgb) = picture.pixels() else { return Err(unreadable("the picture is not RGB")) };
        let file =
            in_memory(rgb).map_err(|error| unreadable(&format!("the picture could not be handed over: {error}")))?;
        Ok((picture.width_px(), picture.height_px(), file))
    }
}

/// A file in memory that nobody can change any more.
fn in_memory(bytes: &[u8]) -> Result<File, std::io::Error> {
    let mut file = File::from(memfd_create(c"picture", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    file.write_all(bytes)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(crate::client::PICTURE_SEALS | SealFlag::F_SEAL_SEAL))?;
    Ok(file)
}

fn bundle_files(names: Option<Vec<String>>, files: Vec<OwnedFd>) -> Result<BundleFiles, Reason> {
    let mut files: Vec<File> = files.into_iter().map(File::from).collect();
    match names {
        Some(names) if names.len() == files.len() => Ok(BundleFiles::Folder(names.into_iter().zip(files).collect())),
        None if files.len() == 1 => Ok(BundleFiles::Tar(files.remove(0))),
        _ => Err(Reason::new("bundle_damaged", "the bundle's files did not arrive", "")),
    }
}

/// Resident memory: the second number of statm, in pages; 0 where it cannot be read.
fn resident_bytes(statm: &File) -> u64 {
    let mut text = [0; 128];
    let read = statm.read_at(&mut text, 0).unwrap_or(0);
    let pages = std::str::from_utf8(&text[..read]).ok().and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    // Every supported processor runs Debian with pages of 4 KiB.
    pages.unwrap_or(0) * 4096
}
