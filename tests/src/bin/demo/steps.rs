//! The demo, step by step.

use crate::pictures::{self, DEGRADED, OTHERS, PHOTOGRAPH, Picture, SENT_PHOTOGRAPH, ULTRASOUND, Way};
use crate::table;
use anyhow::{Context as _, ensure};
use fovea_core::{Band, Finding, Measurement, ParcelState, Uid, What};
use fovea_tests::archive::Archive;
use fovea_tests::ctl::Detail;
use fovea_tests::node::{Node, Setup};
use fovea_tests::{object, paths, wait};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// For all outcomes and deliveries together, from the first picture on.
const LIMIT: Duration = Duration::from_secs(60);
/// Present in a folder that an earlier demo made, and that may be emptied.
const MARKER: &str = ".fovea-demo";

/// A picture, and all that the box knows of it.
struct Row {
    picture: Picture,
    detail: Detail,
}

/// Runs the demo; the lines say what was not as it must be.
pub fn run(out: &Path, with_archive: bool) -> anyhow::Result<Vec<String>> {
    println!("Fovea demo: real pictures through a whole box. Research use only, not a medical device.\n");
    empty(out)?;
    let setup = Setup::new(out)?.bundles(paths::bundles()?);
    let archive = if with_archive { Some(start_archive(out, &setup)?) } else { None };
    let mut node = start_box(setup, archive.as_ref())?;
    let end = Instant::now() + LIMIT;

    let findings = send_all(&node, end)?;
    let rows = settle(&node, findings, archive.as_ref(), end)?;
    let status = node.stop().context("stop fovead")?;

    show(&rows, archive.as_ref(), &node)?;
    let mut wrong = judge(&rows, archive.as_ref())?;
    if !status.success() {
        wrong.push(format!("fovead: ended with {status} when it was asked to stop"));
    }
    if let Some(mut archive) = archive {
        archive.stop().context("stop the archive")?;
    }
    Ok(wrong)
}

fn step(what: &str, says: impl std::fmt::Display) {
    println!("  {what:<10}{says}");
}

/// Makes `out` empty. A folder that no demo made is left alone.
fn empty(out: &Path) -> anyhow::Result<()> {
    if out.exists() {
        let ours = out.join(MARKER).exists() || fs::read_dir(out)?.next().is_none();
        ensure!(ours, "{} is there and no demo made it: name another folder with --out", out.display());
        fs::remove_dir_all(out).with_context(|| format!("empty {}", out.display()))?;
    }
    fs::create_dir_all(out).with_context(|| format!("make {}", out.display()))?;
    fs::write(out.join(MARKER), "Made by `make demo`, and emptied by the next one.\n").context("mark the folder")
}

fn start_archive(out: &Path, setup: &Setup) -> anyhow::Result<Archive> {
    let mut archive = Archive::prepare(&out.join("archive"), setup.port())?;
    archive.start()?;
    step(
        "archive",
        format_args!("Orthanc, DICOM port {}, page http://127.0.0.1:{}", archive.dicom_port, archive.http_port),
    );
    Ok(archive)
}

fn start_box(setup: Setup, archive: Option<&Archive>) -> anyhow::Result<Node> {
    let begun = Instant::now();
    let setup = match archive {
        Some(archive) => setup.archive(archive),
        None => setup,
    };
    let node = setup.start()?;
    step("box", format_args!("fovead listens as {}, ready after {} ms", node.address(), begun.elapsed().as_millis()));
    Ok(node)
}

/// Sends every picture by its way; returns each with its outcome.
fn send_all(node: &Node, end: Instant) -> anyhow::Result<Vec<(Picture, Finding)>> {
    let mut findings = Vec::new();
    for picture in [PHOTOGRAPH, DEGRADED] {
        let finding = node.capture_and_wait(&paths::sample(picture.name)?, left(end))?;
        findings.push((picture, finding));
    }
    step("captured", "2 photographs through the capture folder, each is a DICOM object now");

    let captured = node.ctl().show(findings[0].1.sop_instance_uid.as_str())?;
    let scope_object = node.folder().join(SENT_PHOTOGRAPH.name);
    let uid = Uid::derived("fovea-demo scope", &[findings[0].1.sop_instance_uid.as_str()]);
    object::copy_as(&local(node, &captured.object_path), &scope_object, uid.as_str())?;

    let mut files = vec![scope_object];
    for picture in OTHERS.iter().chain(&ULTRASOUND) {
        files.push(paths::sample(picture.name)?);
    }
    let sent = node.send(&files)?;
    step("sent", format_args!("{} objects by C-STORE, each was durable before its status 0000", sent.len()));
    let stored = std::iter::once(SENT_PHOTOGRAPH).chain(OTHERS).chain(ULTRASOUND);
    for (number, (picture, file)) in stored.zip(&files).enumerate() {
        let row =
            sent.iter().find(|row| row.path == *file).with_context(|| format!("{} was not sent", picture.name))?;
        let finding = node.ctl().wait_for_finding(&row.sop_instance_uid, left(end))?;
        findings.push((picture, finding));
        progress(&format!("outcomes {} of {}", number + 3, files.len() + 2));
    }
    step("outcomes", format_args!("{} of {}", findings.len(), files.len() + 2));
    Ok(findings)
}

/// Waits until each finding's report and copy are where they shall be: in the archive, or held.
fn settle(
    node: &Node,
    findings: Vec<(Picture, Finding)>,
    archive: Option<&Archive>,
    end: Instant,
) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (picture, finding) in findings {
        let id = finding.finding_id.to_string();
        let detail = match archive {
            Some(_) => node.ctl().wait_for_delivery(&id, 1, left(end)),
            None => wait::until(
                left(end),
                || format!("the report on {}", picture.name),
                || Ok(Some(node.ctl().show(&id)?).filter(|detail| !detail.sent.is_empty())),
            ),
        };
        rows.push(Row { picture, detail: detail.with_context(|| picture.name.to_owned())? });
    }
    let parcels: usize = rows.iter().map(|row| row.detail.sent.len()).sum();
    match archive {
        Some(archive) => {
            step("delivered", format_args!("{parcels} parcels; the archive holds {} objects", archive.count()?))
        }
        None => step("held", format_args!("{parcels} parcels wait in the outbox for a destination")),
    }
    Ok(rows)
}

fn show(rows: &[Row], archive: Option<&Archive>, node: &Node) -> anyhow::Result<()> {
    println!();
    let mut cells = Vec::new();
    for Row { picture, detail } in rows {
        let finding = &detail.finding;
        cells.push(vec![
            picture.name.to_owned(),
            match picture.way {
                Way::Capture => "folder".to_owned(),
                Way::Store => "C-STORE".to_owned(),
            },
            pictures::word(finding.outcome).to_owned(),
            finding.probability.map_or_else(|| "-".to_owned(), |probability| format!("{probability:.3}")),
            finding.band.map_or_else(|| "-".to_owned(), |band| format!("{band:?}").to_lowercase()),
            format!("{:.1} ms", finding.timing_us.recorded as f64 / 1000.0),
            place(detail, What::Findings, archive).to_owned(),
            place(detail, What::Deidentified, archive).to_owned(),
        ]);
    }
    table::print(
        &["file", "way", "outcome", "probability", "band", "last byte to finding", "SR", "de-identified copy"],
        &cells,
    );

    println!("\nWhat each says:");
    for Row { picture, detail } in rows {
        let finding = &detail.finding;
        let says = match (&finding.label, &finding.reason) {
            (Some(label), _) => format!("{label}: {}", likely(finding.band)),
            (None, Some(reason)) => reason.clone(),
            (None, None) => String::new(),
        };
        let advice = finding.advice.as_deref().filter(|advice| !advice.is_empty()).map(|advice| format!(": {advice}"));
        println!("  {} ({}): {says}{}", picture.name, picture.shows, advice.unwrap_or_default());
        if let Some(numbers) = numbers(finding) {
            println!("      {numbers}");
        }
    }
    show_places(rows, archive, node)
}

/// Classes, places and sizes of one finding, on one line; none where there are none.
fn numbers(finding: &Finding) -> Option<String> {
    let size = |size: &Measurement| {
        let unit = if size.unit.value == "1" { String::new() } else { format!(" {}", size.unit.value) };
        let places = if size.value.fract() == 0.0 { 0 } else { 2 };
        format!("{} {:.places$}{unit}", size.code.meaning.to_lowercase(), size.value)
    };
    let mut parts: Vec<String> =
        finding.classes.iter().map(|class| format!("{} {:.3}", class.label, class.probability)).collect();
    parts.extend(finding.measurements.iter().map(size));
    parts.extend(finding.regions.iter().flat_map(|region| {
        let sizes = region.measurements.iter().map(size).collect::<Vec<_>>().join(", ");
        (!sizes.is_empty()).then(|| format!("{} ({sizes})", region.label))
    }));
    if let Some(map) = &finding.tile_map {
        let read = map.cells.bytes().filter(u8::is_ascii_digit).count();
        parts.push(format!("map of {} x {} fields, {read} with an answer", map.columns, map.rows));
    }
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The band as a newcomer reads it; "clear" beside the name of a disease could be taken either way.
fn likely(band: Option<Band>) -> &'static str {
    match band {
        Some(Band::Clear) => "unlikely",
        Some(Band::Ambiguous) => "uncertain, a senior reader should look",
        Some(Band::Significant) => "likely, a senior reader should look first",
        None => "no band",
    }
}

/// Where reports, copies, originals and logs lie, to look into after the demo.
fn show_places(rows: &[Row], archive: Option<&Archive>, node: &Node) -> anyhow::Result<()> {
    println!("\nWhere things are:");
    match archive {
        Some(archive) => println!(
            "  in the archive: http://127.0.0.1:{}/instances/ID/file (start it again: Orthanc {})",
            archive.http_port,
            node.folder().join("archive/orthanc.json").display()
        ),
        None => println!("  in {}:", node.state().join("outbox").display()),
    }
    for Row { picture, detail } in rows {
        for (what, kind) in [(What::Findings, "SR"), (What::Deidentified, "copy")] {
            if let Some(parcel) = parcel_of(detail, what) {
                println!("    {:<24}  {kind:<4}  {}", picture.name, name_of(parcel, archive)?);
            }
        }
    }
    for reason in quarantine_reasons(rows) {
        println!("  quarantined, because {reason}");
    }
    println!("  objects as received: {}", node.state().join("objects").display());
    println!("  log of the box: {}\n", node.log_path().display());
    Ok(())
}

fn parcel_of(detail: &Detail, what: What) -> Option<&ParcelState> {
    detail.sent.iter().find(|parcel| parcel.parcel.what == what)
}

/// Where the SR or the copy of one picture is, for a cell of the table.
fn place(detail: &Detail, what: What, archive: Option<&Archive>) -> &'static str {
    match (parcel_of(detail, what), archive) {
        (Some(parcel), _) if !parcel.set_aside.is_empty() => "refused",
        (Some(parcel), Some(_)) if !parcel.delivered.is_empty() => "in the archive",
        (Some(_), _) => "held in outbox",
        (None, _) if detail.quarantined.iter().any(|held| held.what == what) => "quarantined",
        (None, _) => "-",
    }
}

/// The archive's own id of a parcel, or its file in the outbox.
fn name_of(parcel: &ParcelState, archive: Option<&Archive>) -> anyhow::Result<String> {
    match archive {
        Some(archive) => {
            Ok(archive.find(parcel.parcel.sop_instance_uid.as_str())?.unwrap_or_else(|| "missing".to_owned()))
        }
        None => Ok(parcel.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())),
    }
}

fn quarantine_reasons(rows: &[Row]) -> Vec<String> {
    let mut reasons: Vec<String> =
        rows.iter().flat_map(|row| &row.detail.quarantined).map(|held| held.reason.clone()).collect();
    reasons.sort();
    reasons.dedup();
    reasons
}

fn judge(rows: &[Row], archive: Option<&Archive>) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for Row { picture, detail } in rows {
        let mut lines = pictures::complaints(picture, detail);
        let has = |what| detail.sent.iter().any(|parcel| parcel.parcel.what == what);
        if !has(What::Findings) {
            lines.push("has no structured report".into());
        }
        let copied = has(What::Deidentified);
        let held_back = detail.quarantined.iter().any(|held| held.what == What::Deidentified);
        if copied == held_back {
            lines.push(format!(
                "its de-identified copy is sent: {copied}, quarantined: {held_back}; one of both must be so"
            ));
        }
        for parcel in &detail.sent {
            let uid = parcel.parcel.sop_instance_uid.as_str();
            if let Some(archive) = archive.filter(|_| parcel.set_aside.is_empty())
                && archive.find(uid)?.is_none()
            {
                lines.push(format!("the archive does not hold {uid}"));
            }
            for (destination, reason) in &parcel.set_aside {
                lines.push(format!("{destination} refused {uid}: {reason}"));
            }
        }
        wrong.extend(lines.into_iter().map(|line| format!("{}: {line}", picture.name)));
    }
    let probability =
        |name| rows.iter().find(|row| row.picture.name == name).and_then(|row| row.detail.finding.probability);
    if probability(PHOTOGRAPH.name) != probability(SENT_PHOTOGRAPH.name) {
        wrong.push("the same photograph got another probability over C-STORE than through the capture folder".into());
    }
    Ok(wrong)
}

fn local(node: &Node, path: &Path) -> PathBuf {
    node.state().join(path)
}

fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now())
}

/// One line that overwrites itself, on a terminal only.
fn progress(says: &str) {
    use std::io::{IsTerminal as _, Write as _};
    let mut out = std::io::stdout();
    if out.is_terminal() {
        // A terminal that went away shows no progress; nothing else depends on it.
        let _unseen = write!(out, "\r  waiting   {says}\x1b[K\r").and_then(|()| out.flush());
    }
}
