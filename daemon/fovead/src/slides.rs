//! A worker of its own for what takes minutes: a slide does not keep the photograph of a patient who waits from its answer.
//!
//! In: slides, one at a time. Out: one analysis each, by the same bundles as the worker for pictures serves with.
//! Promise: the worker process is there only while slides come, and for [`IDLE_MAX`] after; it starts with what the other one
//! serves with now, and anew when that has changed, so a slide never gets another model than a picture would. Which objects
//! come here follows from their header alone, so an object that is sent again takes the same way (invariants 2 and 4).

use crate::models::Fallen;
use crate::worker_thread::is_unavailable;
use fovea_core::{Analysis, ObjectHeader, chain, sop_class};
use fovea_worker::{Control, ModelState, Worker, WorkerConfig};
use std::fs::File;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How long a worker without a slide keeps its memory.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// After a failed start, slides wait this long before the next try.
const START_PAUSE: Duration = Duration::from_secs(10);
/// Pictures through a microscope with a longer side count as slides: they are read for as long.
const PICTURE_SIDE_PX_MAX: u32 = 4096;
/// The code of the reason of a model under which workers died.
const PUT_ASIDE: &str = "model_put_aside";

/// Whether an object takes so long that pictures must not wait for it.
pub fn is_slide(header: &ObjectHeader) -> bool {
    let class = header.sop_class_uid.as_str();
    let side_px = header.rows_px.max(header.columns_px).unwrap_or(0);
    class == sop_class::VL_WHOLE_SLIDE
        || ([sop_class::VL_MICROSCOPIC, sop_class::VL_SLIDE_MICROSCOPIC].contains(&class)
            && side_px > PICTURE_SIDE_PX_MAX)
}

struct Job {
    object: File,
    header: Box<ObjectHeader>,
    reply: oneshot::Sender<Option<Analysis>>,
}

/// What other threads may see and set.
#[derive(Default)]
struct Shared {
    /// What the worker for pictures serves with; none before it has come up.
    bundles: Option<Vec<PathBuf>>,
    /// Of the worker that reads slides.
    control: Option<Control>,
    /// Models that it has put aside.
    put_aside: Vec<Fallen>,
}

/// A handle to the thread that owns the worker for slides. Dropping all handles ends both.
#[derive(Clone)]
pub struct SlideThread {
    jobs: SyncSender<Job>,
    shared: Arc<Mutex<Shared>>,
}

impl SlideThread {
    /// Starts the thread; its worker starts with the first slide.
    pub fn start(config: Arc<WorkerConfig>) -> std::io::Result<Self> {
        // One in hand is all there is: the loop that asks waits for each answer.
        let (jobs, queue) = sync_channel(1);
        let shared = Arc::new(Mutex::new(Shared::default()));
        let mut owner = Owner { config, shared: Arc::clone(&shared), worker: None, failed_at: None };
        std::thread::Builder::new().name("slide-client".into()).spawn(move || owner.run(&queue))?;
        Ok(Self { jobs, shared })
    }

    /// One answer for one slide; none while no worker can be started, or another slide is in hand.
    pub async fn analyse(&self, object: File, header: ObjectHeader) -> Option<Analysis> {
        let (reply, answer) = oneshot::channel();
        self.jobs.try_send(Job { object, header: Box::new(header), reply }).ok()?;
        answer.await.ok().flatten()
    }

    /// From the next slide on these bundles serve.
    pub fn serve_with(&self, bundles: Vec<PathBuf>) {
        lock(&self.shared).bundles = Some(bundles);
    }

    /// How long ago the slide in hand was last heard of; none while there is none.
    pub fn progress_age(&self) -> Option<Duration> {
        lock(&self.shared).control.as_ref().and_then(Control::progress).map(|progress| progress.at.elapsed())
    }

    /// Gives up the slide in hand: it stays pending, for the next start.
    pub fn give_up(&self) {
        if let Some(control) = &lock(&self.shared).control {
            control.stop();
        }
    }

    /// Models that answer for pictures but no longer for slides.
    pub fn put_aside(&self) -> Vec<Fallen> {
        lock(&self.shared).put_aside.clone()
    }
}

/// The thread's own state.
struct Owner {
    config: Arc<WorkerConfig>,
    shared: Arc<Mutex<Shared>>,
    /// With the bundles that it was started with.
    worker: Option<(Worker, Vec<PathBuf>)>,
    failed_at: Option<Instant>,
}

impl Owner {
    fn run(&mut self, queue: &Receiver<Job>) {
        loop {
            match queue.recv_timeout(IDLE_MAX) {
                Ok(Job { object, header, reply }) => {
                    let analysis = self.worker().map(|worker| worker.analyse(&object, &header));
                    // Nobody waits when the daemon is stopping: the slide stays pending.
                    let _stays_pending = reply.send(analysis.filter(|analysis| !is_unavailable(analysis)));
                    self.tell_put_aside();
                }
                // What was put aside stays so until the box starts anew: the worker remembers it.
                Err(RecvTimeoutError::Timeout) if lock(&self.shared).put_aside.is_empty() => self.let_go(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// A worker that serves what the one for pictures serves; none while that one, or this one, does not come up.
    fn worker(&mut self) -> Option<&mut Worker> {
        let bundles = lock(&self.shared).bundles.clone()?;
        if self.worker.as_ref().is_some_and(|(_, with)| *with != bundles) {
            self.let_go();
        }
        if self.worker.is_none() {
            if self.failed_at.is_some_and(|at| at.elapsed() < START_PAUSE) {
                return None;
            }
            let control = Control::default();
            // Before the start, so that a stopping daemon need not wait for it.
            lock(&self.shared).control = Some(control.clone());
            let config = WorkerConfig { bundles: bundles.clone(), ..WorkerConfig::clone(&self.config) };
            match Worker::start_under(config, control) {
                Ok(worker) => (self.worker, self.failed_at) = (Some((worker, bundles)), None),
                Err(error) => {
                    log::error!("the worker for slides cannot be started: {}", chain(&error));
                    self.failed_at = Some(Instant::now());
                }
            }
        }
        self.worker.as_mut().map(|(worker, _)| worker)
    }

    fn let_go(&mut self) {
        self.worker = None;
        let mut shared = lock(&self.shared);
        shared.control = None;
        shared.put_aside.clear();
    }

    fn tell_put_aside(&self) {
        let Some((worker, _)) = &self.worker else { return };
        let aside = worker.models().iter().filter_map(|status| match &status.state {
            ModelState::Refused(reason) if reason.code == PUT_ASIDE => {
                let mut reason = reason.clone();
                reason.text = format!("for slides only: {}", reason.text);
                let id = status.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                Some(Fallen { id, path: status.path.clone(), reason })
            }
            _ => None,
        });
        lock(&self.shared).put_aside = aside.collect();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fovea_core::Uid;

    #[test]
    fn what_takes_minutes_is_told_by_the_header_alone() {
        let header = |class: &str, side_px: u32| {
            let uid = |text: &str| Uid::new(text).unwrap();
            ObjectHeader {
                sop_class_uid: uid(class),
                sop_instance_uid: uid("1.2"),
                study_uid: uid("1.3"),
                series_uid: uid("1.4"),
                transfer_syntax_uid: uid("1.2.840.10008.1.2.1"),
                modality: None,
                body_part: None,
                laterality: None,
                rows_px: Some(side_px),
                columns_px: Some(100),
                frames: 1,
                photometric: None,
                burned_in_annotation: None,
                pixel_data_offset: None,
            }
        };
        for (class, side_px, expected) in [
            (sop_class::VL_WHOLE_SLIDE, 256, true),
            (sop_class::VL_MICROSCOPIC, 4096, false),
            (sop_class::VL_MICROSCOPIC, 4097, true),
            (sop_class::VL_SLIDE_MICROSCOPIC, 20_000, true),
            (sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT, 20_000, false),
        ] {
            assert_eq!(is_slide(&header(class, side_px)), expected, "{class} {side_px}");
        }
    }
}
