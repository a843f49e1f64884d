//! `fovea-worker`: started by fovead, never by hand. All it needs comes over standard input, a socket.

use anyhow::Context;
use std::os::fd::AsFd;

fn main() -> anyhow::Result<()> {
    // A panic's message may quote the object; its place says enough.
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(place) => eprintln!("fovea-worker: panic at {place}"),
        None => eprintln!("fovea-worker: panic"),
    }));
    let socket = std::io::stdin().as_fd().try_clone_to_owned().context("take standard input")?;
    fovea_worker::serve::run(socket, &fovea_worker::serve::NoHooks).context("fovea-worker is started by fovead")
}
