//! A box: one `fovead` on free loopback ports, with a state folder and a configuration of its own.
//!
//! In: a folder, and what differs from the defaults. Out: a running daemon that can be stopped, killed and started again on its state.
//! Promise: started means that it answers on its control socket; stopped when dropped.

use crate::archive::{self, Archive};
use crate::ctl::Ctl;
use crate::process::{self, Running};
use crate::{paths, ports, wait};
use anyhow::{Context as _, ensure};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// How long a start may take: the worker loads the runtime and checks the bundle's golden vectors.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A box that is not started yet.
#[derive(Debug)]
pub struct Setup {
    folder: PathBuf,
    port: u16,
    sections: String,
    bundles: Vec<PathBuf>,
    receive: String,
}

impl Setup {
    /// A box that keeps its state below `folder`, listens on a free port, and serves the eye model.
    ///
    /// # Errors
    /// When there is no free port or no model.
    pub fn new(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        Ok(Self {
            folder: folder.to_owned(),
            port: ports::free()?,
            sections: String::new(),
            bundles: vec![paths::bundle()?],
            receive: String::new(),
        })
    }

    /// DIMSE port that the box will listen on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Serves these bundles in place of the eye model.
    #[must_use]
    pub fn bundles(mut self, bundles: Vec<PathBuf>) -> Self {
        self.bundles = bundles;
        self
    }

    /// Sends findings and de-identified copies to `archive`.
    #[must_use]
    pub fn archive(self, archive: &Archive) -> Self {
        self.destination("archive", archive::AE_TITLE, archive.dicom_port, &["findings", "deidentified"])
    }

    /// Sends `what` to a DIMSE node on loopback.
    #[must_use]
    pub fn destination(mut self, name: &str, ae_title: &str, port: u16, what: &[&str]) -> Self {
        // Writing to a String cannot fail.
        let _infallible = write!(
            self.sections,
            "\n[[sync.destination]]\nname = {name:?}\nkind = \"dimse\"\naddress = \"127.0.0.1:{port}\"\nae_title = {ae_title:?}\nwhat = {what:?}\nrefuse_after_min_s = 0\n"
        );
        self
    }

    /// Adds lines to `[receive]`, for instance `peers = ["CART"]`.
    #[must_use]
    pub fn receive(mut self, lines: &str) -> Self {
        self.receive.push_str(lines);
        self.receive.push('\n');
        self
    }

    /// Adds whole sections of TOML.
    #[must_use]
    pub fn config(mut self, toml: &str) -> Self {
        self.sections.push('\n');
        self.sections.push_str(toml);
        self
    }

    /// Writes the configuration; nothing runs yet.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn prepare(self) -> anyhow::Result<Node> {
        let text = format!(
            "[receive]\nlisten = \"127.0.0.1:{}\"\n{}\n[infer]\nbundles = {:?}\ntrusted_keys = {:?}\nruntime_dir = {:?}\nworker = {:?}\n{}",
            self.port,
            self.receive,
            self.bundles,
            [paths::trusted_key()?],
            paths::openvino()?,
            paths::program("fovea-worker")?,
            self.sections
        );
        let config = self.folder.join("fovea.toml");
        std::fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        Ok(Node { state: self.folder.join("state"), folder: self.folder, port: self.port, config, running: None })
    }

    /// Writes the configuration and starts the daemon.
    ///
    /// # Errors
    /// When it is not ready within 60 seconds.
    pub fn start(self) -> anyhow::Result<Node> {
        let mut node = self.prepare()?;
        node.start()?;
        Ok(node)
    }
}

/// A box: its folder, and the daemon while it runs.
#[derive(Debug)]
pub struct Node {
    folder: PathBuf,
    state: PathBuf,
    port: u16,
    config: PathBuf,
    running: Option<Running>,
}

impl Node {
    /// Starts the daemon and waits until it is ready.
    ///
    /// # Errors
    /// When it is not ready within 60 seconds; the error carries the end of its log.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.launch(&[])?;
        self.wait_until_ready()
    }

    /// Starts the daemon with more environment variables and does not wait.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(&mut self, environment: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut command = Command::new(paths::program("fovead")?);
        command.arg("run").arg("--config").arg(&self.config).arg("--state").arg(&self.state);
        command.env("FOVEA_OPENVINO_DIR", paths::openvino()?).env_remove("NOTIFY_SOCKET").env_remove("JOURNAL_STREAM");
        command.envs(environment.iter().copied());
        self.running = Some(Running::start("fovead", &mut command, &self.log_path())?);
        Ok(())
    }

    /// Waits until the daemon answers that it is ready, listens, and has its capture folder.
    ///
    /// # Errors
    /// When it is not within 60 seconds or has ended; the error carries the end of its log.
    pub fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let (ctl, port, capture) = (self.ctl(), self.port, self.state.join("capture"));
        let running = self.process()?;
        let ready = wait::until(
            START_LIMIT,
            || "fovead to be ready".into(),
            || {
                ensure!(running.ended()?.is_none(), "fovead ended at once");
                // Looked at in /proc, because a connection would stand in the box's counters.
                Ok(ctl
                    .status()
                    .ok()
                    .filter(|status| status["ready"] == true && capture.is_dir() && ports::listening(port)))
            },
        );
        let Err(error) = ready else { return Ok(()) };
        let told = error.context(running.log_tail());
        self.running = None;
        Err(told)
    }

    /// SIGTERM, and a wait for the drained end.
    ///
    /// # Errors
    /// When it does not end within 40 seconds or was not running.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        self.running.take().context("fovead is not running")?.terminate(Duration::from_secs(40))
    }

    /// SIGKILL, as if the power were cut for this process.
    ///
    /// # Errors
    /// When it was not running.
    pub fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        self.running.take().context("fovead is not running")?.kill()
    }

    /// The daemon's process, while it runs.
    ///
    /// # Errors
    /// When it was stopped.
    pub fn process(&mut self) -> anyhow::Result<&mut Running> {
        self.running.as_mut().context("fovead is not running")
    }

    /// Process id of the daemon's worker.
    ///
    /// # Errors
    /// When the daemon does not answer or has no worker now.
    pub fn worker_pid(&self) -> anyhow::Result<u32> {
        let status = self.ctl().status()?;
        let pid = status["worker"]["pid"].as_u64().with_context(|| format!("no worker in {status}"))?;
        Ok(u32::try_from(pid)?)
    }

    /// Resident memory now, daemon and worker, bytes.
    ///
    /// # Errors
    /// When one of them does not run.
    pub fn resident_bytes(&mut self) -> anyhow::Result<(u64, u64)> {
        let (daemon, worker) = (self.process()?.pid(), self.worker_pid()?);
        let resident = |pid| process::resident_bytes(pid).with_context(|| format!("process {pid} does not run"));
        Ok((resident(daemon)?, resident(worker)?))
    }

    /// The command line, bound to this box.
    #[must_use]
    pub fn ctl(&self) -> Ctl {
        Ctl::new(&self.state)
    }

    /// The box as a DIMSE node, in the form that `foveactl send --to` takes.
    #[must_use]
    pub fn address(&self) -> String {
        format!("FOVEA@127.0.0.1:{}", self.port)
    }

    /// DIMSE port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// State folder.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The folder that holds configuration, log and state.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Configuration file.
    #[must_use]
    pub fn config_path(&self) -> &Path {
        &self.config
    }

    /// Log of the daemon, over all its starts.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.folder.join("fovead.log")
    }

    /// Sends Part 10 files over one association; each must be stored.
    ///
    /// # Errors
    /// When one is not.
    pub fn send(&self, files: &[PathBuf]) -> anyhow::Result<Vec<crate::ctl::Sent>> {
        crate::ctl::send_all(files, &self.address(), 1)
    }

    /// Puts a copy of a picture into the capture folder, as a scope does: under another name first, then renamed into place.
    ///
    /// # Errors
    /// When it cannot be copied.
    pub fn capture(&self, picture: &Path) -> anyhow::Result<()> {
        let name = picture.file_name().context("a picture has a name")?;
        let folder = self.state.join("capture");
        let part = self.state.join(format!(".{}.part", name.display()));
        std::fs::copy(picture, &part).with_context(|| format!("copy {}", picture.display()))?;
        std::fs::rename(&part, folder.join(name)).with_context(|| format!("place it in {}", folder.display()))
    }

    /// Puts a picture into the capture folder and waits for its outcome: the first finding that was not there before.
    ///
    /// # Errors
    /// When there is none after `limit`.
    pub fn capture_and_wait(&self, picture: &Path, limit: Duration) -> anyhow::Result<fovea_core::Finding> {
        let ctl = self.ctl();
        let before = ctl.findings()?.len();
        self.capture(picture)?;
        wait::until(
            limit,
            || format!("the outcome of {}", picture.display()),
            || Ok(ctl.findings()?.into_iter().nth(before)),
        )
    }
}
