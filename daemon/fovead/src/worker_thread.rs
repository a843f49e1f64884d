//! The OS thread that owns the worker's client: pictures go in, analyses come out, one at a time.
//!
//! In: jobs over a bounded channel. Out: one answer for each job.
//! Slides go to a worker of their own (`slides.rs`), so that no picture waits for one.
//! Promise: an answer always comes; while no worker can be started it is none, and the object waits. A new set of models is brought up
//! on a thread of its own while the old one goes on answering; between two objects the old thread hands its queue over and ends. A model that is refused gives way to the version before it, loudly.

use crate::models::{ActiveError, Choice, Fallen, Ranks};
use crate::slides::{SlideThread, is_slide};
use fovea_core::{Analysis, ObjectHeader, Reason, Verdict, chain};
use fovea_worker::{Control, ModelStatus, Picture, Worker, WorkerConfig, WorkerError, WorkerStatus};
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// One job in the worker's hands, one prepared: more would only hold file descriptors.
const JOBS_MAX: usize = 2;
/// After a failed start, jobs are answered without a worker for this long before the next try.
const START_PAUSE: Duration = Duration::from_secs(10);

enum Job {
    Analyse {
        object: File,
        header: Box<ObjectHeader>,
        reply: oneshot::Sender<Option<Analysis>>,
    },
    Picture {
        file: File,
        reply: oneshot::Sender<Result<Picture, WorkerError>>,
    },
    /// Hand the queue over: the successor is up.
    Yield {
        to: oneshot::Sender<mpsc::Receiver<Job>>,
    },
}

/// Writes down which models serve; called when they are up and before they do.
pub type Commit = Box<dyn FnOnce() -> Result<(), ActiveError> + Send>;

/// Why a new set of models does not serve.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error("it is refused: {}", .0.text)]
    Refused(Reason),
    #[error("no worker comes up with it")]
    Worker(#[from] WorkerError),
    #[error("it cannot be written down")]
    Commit(#[source] ActiveError),
    #[error("no thread can be started for it")]
    Thread(#[source] std::io::Error),
    #[error("the daemon is stopping")]
    Stopping,
}

/// What the worker is and serves, as of the last job.
#[derive(Clone, Default)]
pub struct Snapshot {
    pub models: Vec<ModelStatus>,
    pub status: Option<WorkerStatus>,
    pub start_error: Option<String>,
    /// What should serve and was refused, so that another version does.
    pub fallen: Vec<Fallen>,
}

/// Why no picture came back.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    #[error("the worker could not decode the picture")]
    Worker {
        #[from]
        source: WorkerError,
    },
    #[error("the daemon is stopping")]
    Stopping,
}

/// A handle to the thread. Dropping all handles ends it, and the worker process with it.
#[derive(Clone)]
pub struct WorkerThread {
    config: Arc<WorkerConfig>,
    jobs: mpsc::Sender<Job>,
    snapshot: Arc<Mutex<Snapshot>>,
    control: Arc<Mutex<Option<Control>>>,
    slides: SlideThread,
}

impl WorkerThread {
    /// Starts the thread; returns once the bundles are admitted or refused, or the worker failed to start.
    ///
    /// Of `config` all but the bundles is used: those are `choice`.
    pub fn start(config: WorkerConfig, choice: Choice) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let (ready, started) = std::sync::mpsc::channel();
        let snapshot = Arc::new(Mutex::new(Snapshot::default()));
        let control = Arc::new(Mutex::new(None));
        let config = Arc::new(config);
        let slides = SlideThread::start(Arc::clone(&config))?;
        let (shared, in_hand) = (Arc::clone(&snapshot), Arc::clone(&control));
        let mut owner = Owner::new(Arc::clone(&config), choice, shared, in_hand, slides.clone());
        spawn(move || {
            owner.ensure_started();
            // The starter may have given up: then nobody waits.
            let _nobody_waits = ready.send(());
            owner.run(queue);
        })?;
        // An error means that the thread is gone: the first job will tell.
        let _first_job_tells = started.recv();
        Ok(Self { config, jobs, snapshot, control, slides })
    }

    /// One answer for one object; none while no worker can be started. Takes at most the worker's deadlines.
    /// A slide and a picture may be in hand at once, two of one kind may not.
    pub async fn analyse(&self, object: File, header: ObjectHeader) -> Option<Analysis> {
        if is_slide(&header) {
            return self.slides.analyse(object, header).await;
        }
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Analyse { object, header: Box::new(header), reply }).await.ok()?;
        answer.await.ok().flatten()
    }

    /// A PNG or JPEG as raw RGB, decoded in the sandbox. Blocks; call it off the async workers.
    pub fn picture_rgb8(&self, picture: &File) -> Result<Picture, PictureError> {
        let (reply, answer) = oneshot::channel();
        let file = picture.try_clone().map_err(|_| PictureError::Stopping)?;
        self.jobs.blocking_send(Job::Picture { file, reply }).map_err(|_| PictureError::Stopping)?;
        Ok(answer.blocking_recv().map_err(|_| PictureError::Stopping)??)
    }

    /// Lets `choice` serve from the next object on, once the first choice for `id` is admitted and `commit` has written it down.
    /// What serves now goes on answering until then. Blocks; call it off the async workers, and once at a time.
    ///
    /// # Errors
    /// [`AdoptError`]; then what served goes on serving. After [`AdoptError::Stopping`] the new set may serve at the next start.
    pub fn adopt(&self, choice: Choice, id: &str, commit: Commit) -> Result<(), AdoptError> {
        let (reply, answer) = oneshot::channel();
        let (shared, in_hand) = (Arc::clone(&self.snapshot), Arc::clone(&self.control));
        let mut successor = Owner::new(Arc::clone(&self.config), choice, shared, in_hand, self.slides.clone());
        // Weak: a successor that is coming up does not keep a stopping daemon's queue open.
        let (jobs, id) = (self.jobs.downgrade(), id.to_owned());
        let thread = spawn(move || {
            let queue = successor.succeed(&jobs, &id, commit);
            let (answer, queue) = queue.map_or_else(|error| (Err(error), None), |queue| (Ok(()), Some(queue)));
            // Who asked may have gone away: it is done or not done all the same.
            let _done_all_the_same = reply.send(answer);
            if let Some(queue) = queue {
                successor.run(queue);
            }
        });
        thread.map_err(AdoptError::Thread)?;
        answer.blocking_recv().map_err(|_| AdoptError::Stopping)?
    }

    /// How long ago the slide in hand was last heard of; none while there is none.
    pub fn slide_progress_age(&self) -> Option<Duration> {
        self.slides.progress_age()
    }

    /// How long ago a picture that is read field by field was last heard of; none while there is none.
    pub fn progress_age(&self) -> Option<Duration> {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control.as_ref().and_then(Control::progress).map(|progress| progress.at.elapsed())
    }

    /// Gives up what the workers have in hand: it stays pending, for the next start.
    pub fn give_up(&self) {
        self.slides.give_up();
        if let Some(control) = &*self.control.lock().unwrap_or_else(PoisonError::into_inner) {
            control.stop();
        }
    }

    /// The worker as of the last job.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        snapshot.fallen.extend(self.slides.put_aside());
        snapshot
    }
}

/// A worker process is tied to the thread that started it, so each set of models has a thread of its own.
fn spawn(run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    std::thread::Builder::new().name("worker-client".into()).spawn(run).map(drop)
}

/// The thread's own state: no other code touches it.
struct Owner {
    config: Arc<WorkerConfig>,
    choice: Choice,
    /// How far each model has fallen since it was chosen.
    ranks: Ranks,
    fallen: Vec<Fallen>,
    worker: Option<Worker>,
    /// When no worker came up, at a start or with the version before.
    failed_at: Option<Instant>,
    shared: Arc<Mutex<Snapshot>>,
    /// Of the worker that serves, for other threads.
    in_hand: Arc<Mutex<Option<Control>>>,
    /// Follows what serves here.
    slides: SlideThread,
}

impl Owner {
    fn new(
        config: Arc<WorkerConfig>,
        choice: Choice,
        shared: Arc<Mutex<Snapshot>>,
        in_hand: Arc<Mutex<Option<Control>>>,
        slides: SlideThread,
    ) -> Self {
        let (ranks, fallen) = (Ranks::new(), Vec::new());
        Self { config, choice, ranks, fallen, worker: None, failed_at: None, shared, in_hand, slides }
    }

    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = queue.blocking_recv() {
            // A successor has its own worker.
            if !matches!(job, Job::Yield { .. }) {
                self.ensure_started();
            }
            match job {
                Job::Yield { to } => match to.send(queue) {
                    // The worker process ends with this thread.
                    Ok(()) => return,
                    Err(kept) => queue = kept,
                },
                Job::Analyse { object, header, reply } => {
                    let analysis = self.worker.as_mut().map(|worker| worker.analyse(&object, &header));
                    // The worker could not be brought up again: that says nothing about the object.
                    let analysis = analysis.filter(|analysis| !is_unavailable(analysis));
                    // Nobody waits when the daemon is stopping: the object stays pending.
                    let _stays_pending = reply.send(analysis);
                }
                Job::Picture { file, reply } => {
                    // Without a worker the reply is dropped, and the picture waits in the capture folder.
                    if let Some(worker) = &mut self.worker {
                        let _stays_in_folder = reply.send(worker.picture_rgb8(&file));
                    }
                }
            }
            self.mend();
            self.publish();
        }
    }

    /// Brings this set up while another one serves, writes it down, and only then takes the other one's queue.
    fn succeed(
        &mut self,
        jobs: &mpsc::WeakSender<Job>,
        id: &str,
        commit: Commit,
    ) -> Result<mpsc::Receiver<Job>, AdoptError> {
        let up = bring_up(&self.config, &self.choice, Ranks::new())?;
        if let Some(fallen) = up.fallen.iter().find(|fallen| fallen.id == id) {
            return Err(AdoptError::Refused(fallen.reason.clone()));
        }
        if let Some(reason) = self.choice.refused_whole(&up.ranks, id, up.worker.models()) {
            return Err(AdoptError::Refused(reason));
        }
        let jobs = jobs.upgrade().ok_or(AdoptError::Stopping)?;
        commit().map_err(AdoptError::Commit)?;
        let (to, handed_over) = oneshot::channel();
        jobs.blocking_send(Job::Yield { to }).map_err(|_| AdoptError::Stopping)?;
        drop(jobs);
        let queue = handed_over.blocking_recv().map_err(|_| AdoptError::Stopping)?;
        self.take(up);
        self.publish();
        Ok(queue)
    }

    /// A model that was put aside, or whose files were found damaged when the process had to be replaced, gives way as at a start.
    fn mend(&mut self) {
        let Some(worker) = self.worker.as_ref().filter(|_| !self.is_pausing()) else { return };
        let mut ranks = self.ranks.clone();
        let fallen = self.choice.fall(&mut ranks, worker.models());
        if fallen.is_empty() {
            return;
        }
        match bring_up(&self.config, &self.choice, ranks) {
            Ok(mut up) => {
                fallen.iter().for_each(tell);
                up.fallen.splice(0..0, fallen);
                up.fallen.splice(0..0, std::mem::take(&mut self.fallen));
                self.take(up);
            }
            Err(error) => {
                log::error!("no worker comes up with the version before: {}", chain(&error));
                self.failed_at = Some(Instant::now());
            }
        }
    }

    fn take(&mut self, up: Up) {
        *self.in_hand.lock().unwrap_or_else(PoisonError::into_inner) = Some(up.worker.control());
        self.worker = Some(up.worker);
        self.ranks = up.ranks;
        self.fallen = up.fallen;
        self.failed_at = None;
        self.slides.serve_with(self.choice.paths(&self.ranks));
    }

    fn is_pausing(&self) -> bool {
        self.failed_at.is_some_and(|at| at.elapsed() < START_PAUSE)
    }

    fn ensure_started(&mut self) {
        if self.worker.is_some() || self.is_pausing() {
            return;
        }
        match bring_up(&self.config, &self.choice, Ranks::new()) {
            Ok(up) => {
                self.take(up);
                self.publish();
            }
            Err(error) => {
                log::error!("the worker cannot be started: {}", chain(&error));
                self.failed_at = Some(Instant::now());
                self.shared.lock().unwrap_or_else(PoisonError::into_inner).start_error = Some(chain(&error));
            }
        }
    }

    fn publish(&self) {
        if let Some(worker) = &self.worker {
            let snapshot = Snapshot {
                models: worker.models().to_vec(),
                status: Some(worker.status()),
                start_error: None,
                fallen: self.fallen.clone(),
            };
            *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
        }
    }
}

/// A worker that is up, with what it serves.
struct Up {
    worker: Worker,
    ranks: Ranks,
    fallen: Vec<Fallen>,
}

/// Starts workers until every model that can serve does: what is refused gives way to the version before it.
fn bring_up(config: &WorkerConfig, choice: &Choice, mut ranks: Ranks) -> Result<Up, WorkerError> {
    let mut fallen = Vec::new();
    loop {
        let worker = Worker::start(WorkerConfig { bundles: choice.paths(&ranks), ..config.clone() })?;
        let newly = choice.fall(&mut ranks, worker.models());
        if newly.is_empty() {
            return Ok(Up { worker, ranks, fallen });
        }
        newly.iter().for_each(tell);
        fallen.extend(newly);
    }
}

fn tell(fallen: &Fallen) {
    log::error!(
        "model {} at {} does not serve, the version before it is asked: {}",
        fallen.id,
        fallen.path.display(),
        fallen.reason.text
    );
}

pub fn is_unavailable(analysis: &Analysis) -> bool {
    matches!(&analysis.verdict, Verdict::NotAnalysed(reason) if reason.code == "worker_unavailable")
}
