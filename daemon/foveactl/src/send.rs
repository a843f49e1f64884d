//! Sends DICOM files over one or more associations, as a scope or cart would.
//!
//! In: files and folders. Out: C-STORE, a progress line, a line for each object that was not stored.
//! Promise: every object ends as stored, warned or failed, also when the node goes away in the middle; a refused one does not stop the others. Also the load
//! generator of the benches, so small files are read whole and each association has its own task.

use crate::SendArgs;
use crate::table::{duration, json_line};
use anyhow::{Context as _, bail};
use fovea_core::{AeTitle, Uid};
use fovea_dimse::{Context, Part10Head, Scu, ScuConfig, part10_head};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A file up to this size is read whole before it is sent.
const WHOLE_BYTES_MAX: u64 = 16 << 20;
/// Presentation contexts of one association (PS3.8 section 9.3.2.2: odd ids from 1 to 255).
const CONTEXTS_MAX: usize = 128;
/// Files found below the given folders.
const FILES_MAX: usize = 1_000_000;

/// A DICOM node, written AE@HOST:PORT.
#[derive(Clone, Debug)]
pub struct Node {
    ae: AeTitle,
    address: String,
}

impl FromStr for Node {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (ae, address) = text.split_once('@').ok_or("write it as AE@HOST:PORT")?;
        let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        port.ok_or("the part behind @ is HOST:PORT")?;
        Ok(Self { ae: AeTitle::new(ae).map_err(|error| error.to_string())?, address: address.to_owned() })
    }
}

struct Item {
    path: PathBuf,
    head: Part10Head,
}

/// How one file ended.
#[derive(Serialize)]
struct Sent {
    path: PathBuf,
    sop_instance_uid: Uid,
    outcome: &'static str,
    /// DIMSE status or error, in words.
    says: String,
    us: u64,
}

pub async fn run(args: SendArgs, json: bool) -> anyhow::Result<ExitCode> {
    let items = items(&args.paths)?;
    let total = items.len();
    let progress = ProgressBar::new(total as u64);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} objects  {per_sec}  {elapsed}")?);
    let begun = Instant::now();
    let config = Arc::new(ScuConfig {
        address: args.to.address.clone(),
        called_ae: args.to.ae.clone(),
        calling_ae: args.calling_ae.clone(),
        connect_timeout: Duration::from_secs(10),
        response_timeout: Duration::from_secs(60),
        max_pdu_bytes: 256 << 10,
        tls: None,
    });
    let mut sent = Vec::with_capacity(total);
    for group in grouped(items) {
        sent.extend(send_group(&config, group, args.associations, &progress).await?);
    }
    progress.finish_and_clear();
    report(&sent, begun.elapsed(), json)
}

/// Sends the items of one set of contexts over `associations` associations that share one queue. What none of them
/// could send has failed, for the reason that ended the last of them.
async fn send_group(
    config: &Arc<ScuConfig>,
    group: Group,
    associations: u16,
    progress: &ProgressBar,
) -> anyhow::Result<Vec<Sent>> {
    let tasks = usize::from(associations).min(group.items.len());
    let queue = Arc::new(Mutex::new(group.items.into_iter()));
    let contexts: Arc<[Context]> = group.contexts.into();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..tasks {
        running.spawn(associate(Arc::clone(config), Arc::clone(&contexts), Arc::clone(&queue), progress.clone()));
    }
    let (mut sent, mut reason) = (Vec::new(), None);
    while let Some(part) = running.join_next().await {
        let (part, error) = part.context("a sending task ended early")?;
        sent.extend(part);
        reason = error.or(reason);
    }
    let says = reason.map(|error| format!("{error:#}")).unwrap_or_default();
    for item in queue.lock().unwrap_or_else(PoisonError::into_inner).by_ref() {
        let instance = item.head.sop_instance_uid;
        sent.push(Sent { path: item.path, sop_instance_uid: instance, outcome: "failed", says: says.clone(), us: 0 });
        progress.inc(1);
    }
    Ok(sent)
}

/// Sends from the queue until it is empty, or no association can be had: then with the reason.
async fn associate(
    config: Arc<ScuConfig>,
    contexts: Arc<[Context]>,
    queue: Arc<Mutex<std::vec::IntoIter<Item>>>,
    progress: ProgressBar,
) -> (Vec<Sent>, Option<anyhow::Error>) {
    let mut sent = Vec::new();
    let connect = || async {
        Scu::connect(&config, &contexts).await.with_context(|| {
            format!(
                "associate with {} at {}: is it running, and does it know us as {}?",
                config.called_ae, config.address, config.calling_ae
            )
        })
    };
    let mut scu = match connect().await {
        Ok(scu) => scu,
        Err(error) => return (sent, Some(error)),
    };
    loop {
        let item = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(item) = item else { break };
        let begun = Instant::now();
        let (outcome, says, usable) = store(&mut scu, &item).await;
        let us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        sent.push(Sent { path: item.path, sop_instance_uid: item.head.sop_instance_uid, outcome, says, us });
        progress.inc(1);
        if !usable {
            // The association is gone: the rest of the queue deserves a fresh one.
            scu = match connect().await {
                Ok(scu) => scu,
                Err(error) => return (sent, Some(error)),
            };
        }
    }
    // All that was sent is answered: a release that is not says nothing about it.
    let _answered = scu.release().await;
    (sent, None)
}

/// One C-STORE: outcome, words, and whether the association can go on.
async fn store(scu: &mut Scu, item: &Item) -> (&'static str, String, bool) {
    let head = &item.head;
    if !scu.accepts(&head.sop_class_uid, &head.transfer_syntax_uid) {
        return ("failed", "the node takes neither this class nor this transfer syntax".to_owned(), true);
    }
    let result = match content(item) {
        Err(error) => return ("failed", format!("{error:#}"), true),
        Ok(Content::Whole(bytes)) => {
            scu.store(&head.sop_class_uid, &head.sop_instance_uid, &head.transfer_syntax_uid, bytes.as_slice()).await
        }
        Ok(Content::Stream(file)) => {
            let file = tokio::io::BufReader::with_capacity(1 << 20, tokio::fs::File::from_std(file));
            scu.store(&head.sop_class_uid, &head.sop_instance_uid, &head.transfer_syntax_uid, file).await
        }
    };
    match result {
        Ok(status) if status.is_success() => ("stored", status.to_string(), true),
        Ok(status) if status.is_warning() => ("warned", status.to_string(), true),
        Ok(status) => ("failed", status.to_string(), true),
        Err(error) => ("failed", format!("{:#}", anyhow::Error::new(error)), false),
    }
}

enum Content {
    Whole(Vec<u8>),
    Stream(File),
}

fn content(item: &Item) -> anyhow::Result<Content> {
    let mut file = File::open(&item.path)?;
    let bytes = file.metadata()?.len().saturating_sub(item.head.data_set_offset);
    file.seek(SeekFrom::Start(item.head.data_set_offset))?;
    if bytes > WHOLE_BYTES_MAX {
        return Ok(Content::Stream(file));
    }
    let mut whole = Vec::with_capacity(usize::try_from(bytes)?);
    file.read_to_end(&mut whole)?;
    Ok(Content::Whole(whole))
}

/// Items whose contexts fit one association.
struct Group {
    contexts: Vec<Context>,
    items: Vec<Item>,
}

/// Splits by class and syntax into as few associations as the limit of contexts allows.
fn grouped(items: Vec<Item>) -> Vec<Group> {
    let mut by_kind: BTreeMap<(Uid, Uid), Vec<Item>> = BTreeMap::new();
    for item in items {
        let kind = (item.head.sop_class_uid.clone(), item.head.transfer_syntax_uid.clone());
        by_kind.entry(kind).or_default().push(item);
    }
    let mut groups: Vec<Group> = Vec::new();
    for ((sop_class_uid, transfer_syntax_uid), items) in by_kind {
        let context = Context { sop_class_uid, transfer_syntax_uids: vec![transfer_syntax_uid] };
        match groups.last_mut().filter(|group| group.contexts.len() < CONTEXTS_MAX) {
            Some(group) => {
                group.contexts.push(context);
                group.items.extend(items);
            }
            None => groups.push(Group { contexts: vec![context], items }),
        }
    }
    groups
}

/// Reads the head of every Part 10 file named or found below a named folder; other files in folders are passed over.
fn items(paths: &[PathBuf]) -> anyhow::Result<Vec<Item>> {
    let mut items = Vec::new();
    for path in paths {
        if path.is_dir() {
            below(path, &mut items)?;
        } else {
            let head = head(path).with_context(|| format!("{} is not a DICOM Part 10 file", path.display()))?;
            items.push(Item { path: path.clone(), head });
        }
    }
    if items.is_empty() {
        bail!("no DICOM Part 10 file among the paths given");
    }
    Ok(items)
}

fn below(folder: &Path, items: &mut Vec<Item>) -> anyhow::Result<()> {
    let list = std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut paths = list.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() && !path.is_symlink() {
            below(&path, items)?;
        } else if let Ok(head) = head(&path) {
            items.push(Item { path, head });
        }
        anyhow::ensure!(items.len() <= FILES_MAX, "more than {FILES_MAX} files: send them in parts");
    }
    Ok(())
}

fn head(path: &Path) -> anyhow::Result<Part10Head> {
    Ok(part10_head(&mut std::io::BufReader::new(File::open(path)?))?)
}

fn report(sent: &[Sent], took: Duration, json: bool) -> anyhow::Result<ExitCode> {
    let failed = sent.iter().filter(|sent| sent.outcome == "failed").count();
    let warned = sent.iter().filter(|sent| sent.outcome == "warned").count();
    if json {
        sent.iter().try_for_each(json_line)?;
    } else {
        let mut out = std::io::stdout().lock();
        for sent in sent.iter().filter(|sent| sent.outcome != "stored") {
            writeln!(out, "{}: {}: {}", sent.path.display(), sent.outcome, sent.says)?;
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let rate = sent.len() as f64 / took.as_secs_f64().max(1e-9);
        writeln!(
            out,
            "{} stored, {warned} with a warning, {failed} failed in {} ({rate:.0}/s)",
            sent.len() - failed,
            duration(micros)
        )?;
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ae_host_and_port() {
        let node: Node = "FOVEA@127.0.0.1:11112".parse().unwrap();
        assert_eq!((node.ae.as_str(), node.address.as_str()), ("FOVEA", "127.0.0.1:11112"));
        for bad in ["127.0.0.1:11112", "FOVEA@127.0.0.1", "FOVEA@host:port", "@host:1", "SEVENTEEN_LETTERS@h:1"] {
            assert!(bad.parse::<Node>().is_err(), "{bad}");
        }
    }

    /// A node that takes one object and is gone.
    async fn node_that_dies() -> String {
        use fovea_dimse::{ContextAnswer, Limits, Requested, Status};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            drop(listener);
            let second = Duration::from_secs(5);
            let limits = Limits { pdu_bytes_max: 16 * 1024, associate: second, idle: second, message: second };
            let requested = Requested::read(stream, limits).await.unwrap();
            let accepted = requested.accept(|_, syntaxes| ContextAnswer::Accept(syntaxes[0].clone()));
            let mut association = accepted.await.unwrap();
            let message = association.next_command().await.unwrap().unwrap();
            while association.next_data().await.unwrap().is_some() {}
            association.respond(&message, Status::SUCCESS).await.unwrap();
            association.next_command().await.unwrap();
            association.abort().await;
        });
        address
    }

    #[tokio::test]
    async fn every_object_ends_as_stored_or_failed_when_the_node_goes_away_in_the_middle() {
        let folder = tempfile::tempdir().unwrap();
        let syntax = Uid::new("1.2.840.10008.1.2.1").unwrap();
        for n in 1..=5 {
            let (class, instance) = (Uid::new("1.2.3").unwrap(), Uid::new(&format!("1.2.4.{n}")).unwrap());
            let head = fovea_dimse::part10_prefix(&class, &instance, &syntax, None);
            std::fs::write(folder.path().join(format!("{n}.dcm")), [head, vec![0; 100]].concat()).unwrap();
        }
        let group = grouped(items(&[folder.path().to_owned()]).unwrap()).remove(0);
        let title = |text| AeTitle::new(text).unwrap();
        let config = Arc::new(ScuConfig {
            address: node_that_dies().await,
            called_ae: title("NODE"),
            calling_ae: title("FOVEACTL"),
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(5),
            max_pdu_bytes: 16 << 10,
            tls: None,
        });
        let sent = send_group(&config, group, 1, &ProgressBar::hidden()).await.unwrap();
        let outcomes: Vec<_> = sent.iter().map(|sent| sent.outcome).collect();
        assert_eq!(outcomes, ["stored", "failed", "failed", "failed", "failed"]);
        assert!(sent.iter().all(|sent| !sent.says.is_empty()));
        assert_eq!(report(&sent, Duration::from_secs(1), true).unwrap(), ExitCode::FAILURE);
    }

    #[test]
    fn kinds_are_split_at_the_limit_of_contexts() {
        let item = |n: usize| Item {
            path: PathBuf::from(n.to_string()),
            head: Part10Head {
                sop_class_uid: Uid::new(&format!("1.2.{n}")).unwrap(),
                sop_instance_uid: Uid::new(&format!("1.3.{n}")).unwrap(),
                transfer_syntax_uid: Uid::new("1.2.840.10008.1.2.1").unwrap(),
                source_ae: None,
                data_set_offset: 0,
            },
        };
        let groups = grouped((0..300).map(item).collect());
        assert_eq!(groups.iter().map(|group| group.contexts.len()).collect::<Vec<_>>(), [128, 128, 44]);
        assert_eq!(groups.iter().map(|group| group.items.len()).sum::<usize>(), 300);
    }
}
