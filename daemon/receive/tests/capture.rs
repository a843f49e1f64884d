//! The capture folder: pictures become valid objects, once, and what is none is put aside with the reason.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod support;

use fovea_core::{Inbox, Laterality, Sender, sop_class};
use fovea_receive::{Counters, PictureDecoder, PictureError, RawPicture, watch};
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use support::*;
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A 16 x 8 baseline JPEG with 4:2:0 colour, one flat grey: every table and every bit made by hand.
fn jpeg() -> Vec<u8> {
    let segment =
        |marker: u8, body: &[u8]| [&[0xFF, marker][..], &(body.len() as u16 + 2).to_be_bytes(), body].concat();
    let mut file = vec![0xFF, 0xD8];
    file.extend(segment(0xE0, b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"));
    file.extend(segment(0xE1, b"Exif\0\0SECRET^NAME"));
    file.extend(segment(0xDB, &[&[0][..], &[1; 64]].concat()));
    file.extend(segment(0xC0, &[8, 0, 8, 0, 16, 3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0]));
    // One code for DC difference 0 and one for end of block: both the single bit 0.
    let table = |class: u8| [&[class, 1][..], &[0; 15], &[0]].concat();
    file.extend(segment(0xC4, &table(0x00)));
    file.extend(segment(0xC4, &table(0x10)));
    file.extend(segment(0xDA, &[3, 1, 0, 2, 0, 3, 0, 0, 63, 0]));
    // One unit of 4 + 1 + 1 blocks, two bits each: twelve zero bits, filled up with ones.
    file.extend([0x00, 0x0F, 0xFF, 0xD9]);
    file
}

const PNG_MAGIC: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Says that every PNG is 5 x 3 (an odd number of bytes), unless told otherwise.
#[derive(Default)]
struct FakeDecoder {
    away: AtomicBool,
    calls: AtomicU64,
}

impl PictureDecoder for FakeDecoder {
    fn decode_rgb8(&self, mut picture: &File) -> Result<RawPicture, PictureError> {
        self.calls.fetch_add(1, SeqCst);
        if self.away.load(SeqCst) {
            return Err(PictureError::Unavailable { reason: "as told".into() });
        }
        let mut bytes = Vec::new();
        picture.read_to_end(&mut bytes).unwrap();
        if bytes.ends_with(b"broken") {
            return Err(PictureError::Refused { reason: "as told".into() });
        }
        let mut rgb = tempfile::tempfile().unwrap();
        rgb.write_all(&[77; 45]).unwrap();
        rgb.rewind().unwrap();
        Ok(RawPicture { width_px: 5, height_px: 3, rgb })
    }
}

struct Capture {
    dir: TempDir,
    inbox: Arc<FolderInbox>,
    decoder: Arc<FakeDecoder>,
    doorbell: Arc<Notify>,
    counters: Arc<Counters>,
    stop: CancellationToken,
    watching: JoinHandle<()>,
}

impl Capture {
    fn start(dir: TempDir, inbox: Arc<FolderInbox>) -> Self {
        let (decoder, doorbell, stop) =
            (Arc::new(FakeDecoder::default()), Arc::new(Notify::new()), CancellationToken::new());
        let counters = Arc::new(Counters::default());
        let folder = dir.path().join("capture");
        let watching = watch(folder, inbox.clone(), doorbell.clone(), counters.clone(), decoder.clone(), stop.clone());
        let watching = tokio::spawn(async move { watching.await.unwrap() });
        Self { dir, inbox, decoder, doorbell, counters, stop, watching }
    }

    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("capture/eye")).unwrap();
        Self::start(dir, FolderInbox::new())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("capture").join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let part = self.path(".being-written");
        fs::write(&part, bytes).unwrap();
        fs::rename(part, self.path(name)).unwrap();
    }

    /// As if nobody had touched the file for a minute.
    fn put_untouched(&self, name: &str, bytes: &[u8]) {
        let part = self.path(".being-written");
        fs::write(&part, bytes).unwrap();
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        File::options().write(true).open(&part).unwrap().set_modified(then).unwrap();
        fs::rename(part, self.path(name)).unwrap();
    }

    async fn end(self) -> (TempDir, Arc<FolderInbox>) {
        self.stop.cancel();
        self.watching.await.unwrap();
        (self.dir, self.inbox)
    }
}

/// The errors that dciodvfy finds, none where it is not installed.
fn dciodvfy_errors(path: &Path) -> Option<Vec<String>> {
    let output = Command::new("dciodvfy").arg(path).output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    Some(text.lines().filter(|line| line.starts_with("Error")).map(str::to_owned).collect())
}

#[tokio::test]
async fn pictures_become_objects_that_dciodvfy_passes_without_error() {
    let capture = Capture::new();
    capture.put("left.json", br#"{"laterality":"L","accession_number":"A-1"}"#);
    capture.put("left.jpg", &jpeg());
    capture.put("eye/right.jpg.json", br#"{"laterality":"R"}"#);
    capture.put("eye/right.jpg", &jpeg());
    capture.put("unknown.jpg", &jpeg());
    capture.put("raw.png.json", br#"{"laterality":"R"}"#);
    capture.put("raw.png", PNG_MAGIC);
    capture.put("raw2.png", &[PNG_MAGIC, b"2"].concat());
    until("all are held", || capture.inbox.held().len() == 5).await;
    until("all are put away", || fs::read_dir(capture.path("done")).unwrap().count() == 8).await;
    capture.doorbell.notified().await;
    for held in capture.inbox.held() {
        let header = &held.header;
        assert_eq!(header.sop_class_uid.as_str(), sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT);
        assert_eq!((held.sender.clone(), header.modality.as_deref()), (Sender::Capture, Some("OP")));
        let path = capture.inbox.path_of(&header.sop_instance_uid);
        let bytes = fs::read(&path).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"SECRET"), "EXIF stays outside");
        let unstated = bytes.windows(19).any(|window| window == b"was not stated at c".as_slice());
        assert_eq!(unstated, header.laterality == Some(Laterality::Both));
        assert!(bytes.windows(15).any(|window| window == b"PENDING^CAPTURE"));
        match dciodvfy_errors(&path) {
            Some(errors) => assert_eq!(errors, Vec::<String>::new(), "{:?}", header.laterality),
            None => println!("dciodvfy is not installed: structure not checked"),
        }
    }
    let sides: Vec<Option<Laterality>> = capture.inbox.held().iter().map(|held| held.header.laterality).collect();
    assert_eq!(sides.iter().filter(|side| **side == Some(Laterality::Left)).count(), 1);
    assert_eq!(sides.iter().filter(|side| **side == Some(Laterality::Right)).count(), 2);
    assert_eq!(sides.iter().filter(|side| **side == Some(Laterality::Both)).count(), 2, "not stated");
    capture.end().await;
}

#[tokio::test]
async fn inv_01_a_crash_between_accept_and_move_gives_no_second_object() {
    let capture = Capture::new();
    capture.put("a.jpg", &jpeg());
    until("held and put away", || capture.path("done/a.jpg").exists()).await;
    let (dir, inbox) = capture.end().await;
    // As if the move had been lost: the file is back, with another time.
    fs::copy(dir.path().join("capture/done/a.jpg"), dir.path().join("capture/a.jpg")).unwrap();
    let capture = Capture::start(dir, inbox);
    until("put away again", || capture.path("done/1-a.jpg").exists()).await;
    let (_dir, inbox) = capture.end().await;
    assert_eq!(inbox.held().len(), 1);
}

#[tokio::test]
async fn what_is_no_picture_is_put_aside_with_the_reason() {
    let capture = Capture::new();
    capture.put("side.jpg.json", br#"{"patient":"SECRET"}"#);
    capture.put_untouched("text.jpg", b"not a picture");
    capture.put_untouched("cut.jpg", &jpeg()[..60]);
    capture.put_untouched("broken.png", &[PNG_MAGIC, b"broken"].concat());
    capture.put_untouched("side.jpg", &jpeg());
    for name in ["text.jpg", "cut.jpg", "broken.png", "side.jpg"] {
        let reason = capture.path(&format!("refused/{name}.reason.txt"));
        until(name, || reason.exists() && capture.path(&format!("refused/{name}")).exists()).await;
        let reason = fs::read_to_string(reason).unwrap();
        assert!(!reason.trim().is_empty() && !reason.contains("SECRET"), "{name}: {reason}");
    }
    assert!(capture.inbox.held().is_empty());
    until("counted", || capture.counters.counts().captures_refused == 4).await;
    capture.end().await;
}

#[tokio::test]
async fn a_slow_copy_that_stands_still_for_seconds_is_not_refused_while_it_is_written() {
    let capture = Capture::new();
    let whole = jpeg();
    let mut jpeg = File::create(capture.path("slow.jpg")).unwrap();
    let mut png = File::create(capture.path("slow.png")).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    png.write_all(&[PNG_MAGIC, b"broken"].concat()).unwrap();
    jpeg.write_all(&whole[..whole.len() / 2]).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(fs::read_dir(capture.path("refused")).unwrap().count(), 0, "refused while it was written");
    jpeg.write_all(&whole[whole.len() / 2..]).unwrap();
    png.write_all(b" no more").unwrap();
    until("both are taken", || capture.inbox.held().len() == 2).await;
    until("both are counted", || capture.counters.counts().captures_accepted == 2).await;
    let decoded = capture.decoder.calls.load(SeqCst);
    assert_eq!(decoded, 2, "an unfinished picture is not decoded again before it changes");
    assert_eq!((capture.counters.counts().objects_accepted, capture.counters.counts().captures_refused), (2, 0));
    capture.end().await;
}

#[tokio::test]
async fn a_picture_that_stays_cut_is_refused_after_ten_seconds() {
    let capture = Capture::new();
    capture.put("cut.jpg", &jpeg()[..60]);
    tokio::time::sleep(std::time::Duration::from_secs(8)).await;
    assert!(capture.path("cut.jpg").exists());
    until("refused", || capture.path("refused/cut.jpg").exists()).await;
    capture.end().await;
}

#[tokio::test]
async fn a_pipe_a_link_or_a_folder_in_place_of_a_sidecar_does_not_stop_the_folder() {
    use std::os::unix::fs::PermissionsExt;
    let capture = Capture::new();
    nix::unistd::mkfifo(&capture.path("a.jpg.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir(capture.path("b.jpg.json")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", capture.path("c.jpg.json")).unwrap();
    nix::unistd::mkfifo(&capture.path("pipe.jpg"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    for name in ["a.jpg", "b.jpg", "c.jpg", "d.jpg"] {
        capture.put(name, &jpeg());
    }
    until("the plain one is taken", || capture.path("done/d.jpg").exists()).await;
    for name in ["a.jpg", "b.jpg", "c.jpg"] {
        until(name, || capture.path(&format!("refused/{name}")).exists()).await;
        let reason = fs::read_to_string(capture.path(&format!("refused/{name}.reason.txt"))).unwrap();
        assert!(reason.contains("no plain file"), "{name}: {reason}");
    }
    for made in ["done", "refused"] {
        assert_eq!(fs::metadata(capture.path(made)).unwrap().permissions().mode() & 0o777, 0o700, "{made}");
    }
    capture.end().await;
}

#[tokio::test]
async fn a_file_is_taken_only_when_it_is_whole_and_meant() {
    let capture = Capture::new();
    let whole = jpeg();
    fs::write(capture.path("slow.jpg.part"), &whole).unwrap();
    fs::write(capture.path(".hidden.jpg"), &whole).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", capture.path("link.jpg")).unwrap();
    let mut growing = File::create(capture.path("growing.jpg")).unwrap();
    for byte in whole.chunks(whole.len() / 8) {
        growing.write_all(byte).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(120)).await;
        assert!(!capture.path("refused/growing.jpg").exists(), "taken while it grew");
    }
    until("taken when it is whole", || capture.path("done/growing.jpg").exists()).await;
    assert_eq!(capture.inbox.held().len(), 1);
    assert!(capture.path("slow.jpg.part").exists() && capture.path(".hidden.jpg").exists());
    assert!(capture.path("link.jpg").is_symlink());
    capture.end().await;
}

#[tokio::test]
async fn a_picture_waits_while_the_disk_is_full_or_the_decoder_away() {
    let capture = Capture::new();
    capture.inbox.full.store(true, SeqCst);
    capture.decoder.away.store(true, SeqCst);
    capture.put("a.jpg", &jpeg());
    capture.put("b.png", PNG_MAGIC);
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    assert!(capture.path("a.jpg").exists() && capture.path("b.png").exists());
    capture.inbox.full.store(false, SeqCst);
    capture.decoder.away.store(false, SeqCst);
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    until("both are taken", || capture.path("done/a.jpg").exists() && capture.path("done/b.png").exists()).await;
    assert_eq!(capture.inbox.pending(10).unwrap().len(), 2);
    assert!(capture.decoder.calls.load(SeqCst) >= 1);
    capture.end().await;
}
