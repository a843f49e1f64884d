//! What the figures were measured on.

use anyhow::Context as _;
use fovea_tests::paths;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;

/// Machine, commit, and where there is room to work.
#[derive(Debug)]
pub struct Machine {
    processor: String,
    cores: usize,
    kernel: String,
    commit: String,
    load: String,
    disk_pressure: String,
    /// A folder on a disk.
    pub disk: PathBuf,
    /// A folder in memory, where the machine has one.
    pub memory: Option<PathBuf>,
}

impl Machine {
    /// Looks at this machine.
    ///
    /// # Errors
    /// When it has no /proc, or the build folder is not known.
    pub fn look() -> anyhow::Result<Self> {
        let info = std::fs::read_to_string("/proc/cpuinfo").context("read /proc/cpuinfo")?;
        let name = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
        let load = std::fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
        let own = std::env::current_exe().context("find the running program")?;
        let disk = own.parent().context("the running program lies in no folder")?.join("bench-work");
        std::fs::create_dir_all(&disk).with_context(|| format!("make {}", disk.display()))?;
        let memory = PathBuf::from("/dev/shm");
        Ok(Self {
            processor: name.trim_start_matches([' ', '\t', ':']).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: said("uname", &["-sr"]),
            commit: said("git", &["-c", "safe.directory=*", "describe", "--always", "--dirty", "--abbrev=12"]),
            disk_pressure: disk_pressure(),
            load: load.split(' ').next().unwrap_or_default().to_owned(),
            disk,
            memory: memory.is_dir().then_some(memory),
        })
    }
}

/// Share of the last minute in which something waited for a disk (pressure stall information of Linux): past a few percent, figures
/// of a disk are those of its other users.
fn disk_pressure() -> String {
    let text = std::fs::read_to_string("/proc/pressure/io").unwrap_or_default();
    let share = text.split_whitespace().find_map(|word| word.strip_prefix("avg60="));
    share.map_or_else(|| "an unknown part".to_owned(), |share| format!("{share} %"))
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(paths::workspace()).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    if text.is_empty() { "unknown".to_owned() } else { text }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} cores, {}; commit {}; at the start load {}, disk waits {} of the time; medians",
            self.processor, self.cores, self.kernel, self.commit, self.load, self.disk_pressure
        )
    }
}
