//! A worker that misbehaves on request, for the tests: the product's code with hooks that make it die, hang, eat
//! memory or try to break out. What it does follows from the last part of the object's UID.

use fovea_core::{Analysis, ObjectHeader, Reason};
use fovea_worker::serve::{AnalysisStep, Hooks, run};
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

struct Faults;

static STEPS: AtomicU32 = AtomicU32::new(0);

/// The last part of the UID.
fn fault(header: &ObjectHeader) -> &str {
    header.sop_instance_uid.as_str().rsplit('.').next().unwrap_or_default()
}

impl Hooks for Faults {
    fn before_load(&self, names: Option<&[String]>) {
        if names.is_some_and(|names| names.iter().any(|name| name == "kills-when-loaded.md")) {
            std::process::abort();
        }
    }

    fn before_step(&self, step: AnalysisStep, header: &ObjectHeader) {
        match (fault(header), step) {
            ("101", AnalysisStep::Decode) | ("102" | "103", AnalysisStep::Infer) => std::process::abort(),
            ("104", AnalysisStep::Decode) => std::thread::sleep(Duration::from_secs(3600)),
            ("105", AnalysisStep::Decode) => eat_memory(),
            ("106", AnalysisStep::Preprocess) => panic!("a parser's bug"),
            ("107", AnalysisStep::Decode) => std::process::exit(0),
            ("108", AnalysisStep::Decode) => overflow(0),
            ("109", AnalysisStep::Decode) => abort_later(header),
            // A slow box.
            ("110", AnalysisStep::Decode) => std::thread::sleep(Duration::from_millis(20)),
            // In the midst of a slide.
            ("111", AnalysisStep::Decode) if STEPS.fetch_add(1, Ordering::Relaxed) == 10 => std::process::abort(),
            // One field after the other, then for ever.
            ("112", AnalysisStep::Decode) if STEPS.fetch_add(1, Ordering::Relaxed) == 10 => {
                std::thread::sleep(Duration::from_secs(3600));
            }
            _ => {}
        }
    }

    fn instead(&self, header: &ObjectHeader) -> Option<Analysis> {
        let text = match fault(header) {
            "201" => break_out(),
            // The daemon must not believe it.
            "202" => {
                let mut lie = Analysis::not_analysed(Reason::new("lie", "lie", ""));
                lie.frame = 0;
                return Some(lie);
            }
            _ => return None,
        };
        Some(Analysis::not_analysed(Reason::new("tried", text, "")))
    }
}

/// At any instruction: after as many microseconds as the last part of the series UID says.
fn abort_later(header: &ObjectHeader) {
    let after_us = header.series_uid.as_str().rsplit('.').next().and_then(|text| text.parse().ok()).unwrap_or(0);
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_micros(after_us));
        std::process::abort();
    });
}

fn eat_memory() {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    loop {
        eaten.push(vec![1; 16 << 20]);
        std::hint::black_box(&eaten);
    }
}

#[expect(unconditional_recursion, reason = "it is meant to run out of stack")]
fn overflow(depth: u64) {
    let block = std::hint::black_box([depth; 512]);
    overflow(block[17] + 1);
    std::hint::black_box(block);
}

/// Tries through the standard library what a taken-over worker would try; names what worked.
fn break_out() -> String {
    let attempts: [(&str, bool); 10] = [
        ("tcp", std::net::TcpStream::connect("127.0.0.1:1").is_err_and(refused)),
        ("listen", std::net::TcpListener::bind("127.0.0.1:0").is_err_and(refused)),
        ("udp", std::net::UdpSocket::bind("127.0.0.1:0").is_err_and(refused)),
        ("read", std::fs::read("/etc/passwd").is_err_and(refused)),
        ("own memory", std::fs::read("/proc/self/maps").is_err_and(refused)),
        ("list", std::fs::read_dir("/").is_err_and(refused)),
        ("write", std::fs::write("/tmp/fovea-worker-was-here", b"x").is_err_and(refused)),
        ("remove", std::fs::remove_file("/tmp/fovea-worker-was-here").is_err_and(refused)),
        ("run", std::process::Command::new("/bin/true").status().is_err_and(refused)),
        ("link", std::fs::hard_link("/etc/passwd", "/tmp/fovea-worker-link").is_err_and(refused)),
    ];
    let open: Vec<&str> = attempts.iter().filter(|(_, refused)| !refused).map(|(what, _)| *what).collect();
    // What it needs must still work: a thread, and a line on standard error.
    let thread = std::thread::spawn(|| 7).join().is_ok_and(|seven| seven == 7);
    let line = writeln!(std::io::stderr(), "tried {} doors", attempts.len()).is_ok();
    format!("open: [{}], thread: {thread}, line: {line}", open.join(", "))
}

fn refused(error: std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::PermissionDenied
}

fn main() {
    std::panic::set_hook(Box::new(|_| ()));
    let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("standard input");
    if let Err(error) = run(socket, &Faults) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
