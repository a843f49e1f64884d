//! The OS thread that owns the worker's client: pictures go in, analyses come out, one at a time.
//!
//! In: jobs over a bounded channel. Out: one answer for each job.
//! Promise: an answer always comes; while no worker can be started it is none, and the object waits.

use fovea_core::{Analysis, ObjectHeader, Verdict, chain};
use fovea_worker::{ModelStatus, Picture, Worker, WorkerConfig, WorkerError, WorkerStatus};
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// One job in the worker's hands, one prepared: more would only hold file descriptors.
const JOBS_MAX: usize = 2;
/// After a failed start, jobs are answered without a worker for this long before the next try.
const START_PAUSE: Duration = Duration::from_secs(10);

enum Job {
    Analyse { object: File, header: Box<ObjectHeader>, reply: oneshot::Sender<Option<Analysis>> },
    Picture { file: File, reply: oneshot::Sender<Result<Picture, WorkerError>> },
}

/// What the worker is and serves, as of the last job.
#[derive(Clone, Default)]
pub struct Snapshot {
    pub models: Vec<ModelStatus>,
    pub status: Option<WorkerStatus>,
    pub start_error: Option<String>,
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
    jobs: mpsc::Sender<Job>,
    snapshot: Arc<Mutex<Snapshot>>,
}

impl WorkerThread {
    /// Starts the thread; returns once the bundles are admitted or refused, or the worker failed to start.
    pub fn start(config: WorkerConfig) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(JOBS_MAX);
        let (ready, started) = std::sync::mpsc::channel();
        let snapshot = Arc::new(Mutex::new(Snapshot::default()));
        let shared = Arc::clone(&snapshot);
        std::thread::Builder::new().name("worker-client".into()).spawn(move || {
            let mut owner = Owner { config, worker: None, failed_at: None, shared };
            owner.ensure_started();
            // The starter may have given up: then nobody waits.
            let _nobody_waits = ready.send(());
            owner.run(queue);
        })?;
        // An error means that the thread is gone: the first job will tell.
        let _first_job_tells = started.recv();
        Ok(Self { jobs, snapshot })
    }

    /// One answer for one object; none while no worker can be started. Takes at most the worker's deadlines.
    pub async fn analyse(&self, object: File, header: ObjectHeader) -> Option<Analysis> {
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

    /// The worker as of the last job.
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The thread's own state: no other code touches it.
struct Owner {
    config: WorkerConfig,
    worker: Option<Worker>,
    failed_at: Option<Instant>,
    shared: Arc<Mutex<Snapshot>>,
}

impl Owner {
    fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(job) = queue.blocking_recv() {
            self.ensure_started();
            match job {
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
            self.publish();
        }
    }

    fn ensure_started(&mut self) {
        let pausing = self.failed_at.is_some_and(|at| at.elapsed() < START_PAUSE);
        if self.worker.is_some() || pausing {
            return;
        }
        match Worker::start(self.config.clone()) {
            Ok(worker) => {
                self.worker = Some(worker);
                self.failed_at = None;
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
            let snapshot =
                Snapshot { models: worker.models().to_vec(), status: Some(worker.status()), start_error: None };
            *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
        }
    }
}

fn is_unavailable(analysis: &Analysis) -> bool {
    matches!(&analysis.verdict, Verdict::NotAnalysed(reason) if reason.code == "worker_unavailable")
}
