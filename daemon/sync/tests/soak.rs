//! Three simulated days: losses, outages of every kind, a budget, pixels at night only; time runs as fast as the work allows.
//!
//! In: a script made from a seed, which is printed. Out: what the archive holds and in which order it came. Promise: everything that was
//! dispatched arrives once, byte for byte; pixels keep their hours; at the end of an outage findings go before pixels.
//!
//! The clock stands still while anything is at work (tokio's paused clock), and is moved in small steps while a line is open and in
//! large ones while none is. Sockets, associations and the whole task are the real ones.

#![allow(clippy::unwrap_used)] // a helper that panics fails its test, as it should

mod support;

use fovea_core::*;
use fovea_store::MemoryStore;
use fovea_sync::{Clock, Config, Counters, Custodian, Ports, RawConfig, run};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::*;
use tokio::sync::Notify;
use tokio::time::{Instant, advance};
use tokio_util::sync::CancellationToken;

/// One step of the clock while a line is open, and while none is.
const STEP_BUSY: Duration = Duration::from_millis(20);
const STEP_IDLE: Duration = Duration::from_secs(60);
/// So many turns without a sign of life, and nothing is going on: opening a line takes fewer.
const QUIET_TURNS: u32 = 12;
const HOUR: u64 = 3600;
/// An object that was begun in its hours may end a little later.
const LATE_S: u64 = 120;

/// xorshift64*: the same script for the same seed on every machine.
struct Random(u64);

impl Random {
    fn seeded() -> Self {
        let given = std::env::var("FOVEA_SEED").ok().and_then(|text| text.parse().ok());
        let seed: u64 = given.unwrap_or_else(|| {
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos().into()
        });
        println!("FOVEA_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % end
    }
}

/// What is wrong with the archive for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outage {
    Full,
    Ill,
    Aborts,
}

struct Script {
    /// When which outage begins and ends, seconds from the start.
    outages: Vec<(u64, u64, Outage)>,
    /// When each study comes, and whether it is urgent.
    studies: Vec<(u64, bool)>,
}

impl Script {
    fn new(random: &mut Random, hours: u64) -> Self {
        let (mut outages, mut at) = (Vec::new(), HOUR);
        while at < hours * HOUR {
            let ends = at + 600 + random.below(2 * HOUR);
            let kind = [Outage::Full, Outage::Ill, Outage::Aborts][random.below(3) as usize];
            outages.push((at, ends, kind));
            at = ends + HOUR + random.below(4 * HOUR);
        }
        let studies = (0..hours * 8).map(|_| (random.below(hours * HOUR), random.below(10) == 0));
        let mut studies: Vec<_> = studies.collect();
        studies.sort_unstable();
        Self { outages, studies }
    }

    fn outage(&self, at_s: u64) -> Option<Outage> {
        self.outages.iter().find(|(from, to, _)| (*from..*to).contains(&at_s)).map(|(_, _, kind)| *kind)
    }
}

/// First arrivals: when, and what.
type Arrivals = Arc<Mutex<Vec<(u64, String)>>>;

/// Answers as the script says; one object in fifty breaks the association.
fn behaviour(script: Arc<Script>, started: Instant, random: Mutex<Random>, arrivals: Arrivals) -> Behaviour {
    Arc::new(move |name, _| {
        let at_s = started.elapsed().as_secs();
        match script.outage(at_s) {
            Some(Outage::Full) => return Answer::Say(0xA700),
            Some(Outage::Ill) => return Answer::Say(0x0110),
            Some(Outage::Aborts) => return Answer::Abort,
            None => (),
        }
        if random.lock().unwrap().below(50) == 0 {
            return Answer::Abort;
        }
        arrivals.lock().unwrap().push((at_s, name.to_owned()));
        Answer::Say(0)
    })
}

fn is_finding(name: &str) -> bool {
    name.starts_with("2.")
}

/// Runs the script and everything after it until the outbox is empty.
async fn soak(hours: u64) {
    let mut random = Random::seeded();
    let script = Arc::new(Script::new(&mut random, hours));
    let (started, arrivals) = (Instant::now(), Arrivals::default());
    let second = Mutex::new(Random(random.below(u64::MAX) | 1));
    let archive = Archive::start(behaviour(script.clone(), started, second, arrivals.clone())).await;
    let outbox = Arc::new(MemoryStore::new());
    // Midnight of some day: all hours are local to UTC here.
    let clock: Clock = Arc::new(move || UnixMicros(20_000 * 86_400_000_000 + started.elapsed().as_micros() as i64));
    let destination = scripted(archive.address);
    let (doorbell, counters, stop) = (Arc::new(Notify::new()), Arc::new(Counters::default()), CancellationToken::new());
    let named = [(&destination, doorbell.clone())];
    let custodian = Custodian::new(named, outbox.clone(), outbox.clone(), clock.clone());
    let ports = Ports { inbox: outbox.clone(), ledger: outbox.clone(), outbox: outbox.clone(), clock };
    let task = tokio::spawn(run(destination, ports, custodian, doorbell.clone(), counters.clone(), stop.clone()));

    let (mut next, mut dispatched_at) = (0, BTreeMap::new());
    let (mut quiet, mut last_sign) = (0, (counters.snapshot(), 0));
    let waiting = || outbox.waiting("vna", &[What::Findings, What::Deidentified], 1).unwrap();
    while next < script.studies.len() || !waiting().is_empty() {
        let at_s = started.elapsed().as_secs();
        assert!(at_s < (hours + 72) * HOUR, "it never ends: {:?}", counters.snapshot());
        while script.studies.get(next).is_some_and(|(at, _)| *at <= at_s) {
            let lane = if script.studies[next].1 { Lane::UrgentFindings } else { Lane::Findings };
            let (report, copy) = (format!("2.{}", next + 1), format!("3.{}", next + 1));
            let parcels = [(report.as_str(), lane, 3_000), (copy.as_str(), Lane::Pixels, 20_000)];
            dispatch(&outbox, &format!("1.{}", next + 1), &parcels);
            dispatched_at.insert(report, at_s);
            dispatched_at.insert(copy, at_s);
            next += 1;
            doorbell.notify_one();
        }
        // Time stands still while a blocking call runs: the sockets and the task get their turn.
        tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_micros(200))).await.unwrap();
        let sign = (counters.snapshot(), archive.offered().len());
        quiet = if sign.0.connected || sign != last_sign { 0 } else { quiet + 1 };
        last_sign = sign;
        let is_quiet = quiet >= QUIET_TURNS;
        advance(if is_quiet { STEP_IDLE } else { STEP_BUSY }).await;
        quiet = if is_quiet { 0 } else { quiet };
    }
    stop.cancel();
    task.await.unwrap().unwrap();
    let arrivals = arrivals.lock().unwrap().clone();
    println!("{} parcels in {hours} h with {} outages", arrivals.len(), script.outages.len());
    assert_all_arrived_once(&archive, &dispatched_at, &counters.snapshot());
    assert_order(&script, &arrivals, &dispatched_at);
}

fn scripted(address: SocketAddr) -> fovea_sync::Destination {
    let text = format!(
        "[[destination]]\nname = 'vna'\nkind = 'dimse'\naddress = '{address}'\nae_title = 'ARCHIVE'\n\
         what = ['findings', 'deidentified']\nretry_min_ms = 1000\nretry_max_ms = 300000\nresponse_timeout_ms = 30000\n\
         budget.bytes_per_second = 2000\nhours.pixels = ['20:00-06:00']\nhours.utc_offset = '+00:00'\n"
    );
    let raw: RawConfig = toml::from_str(&text).unwrap();
    Config::new(raw, &AeTitle::new("FOVEA").unwrap()).unwrap().destinations.remove(0)
}

fn assert_all_arrived_once(archive: &Archive, dispatched: &BTreeMap<String, u64>, counters: &fovea_sync::Snapshot) {
    let mut held: BTreeMap<String, usize> = BTreeMap::new();
    for (name, bytes) in &archive.seen.lock().unwrap().stored {
        *held.entry(name.clone()).or_default() += 1;
        assert_eq!(*bytes, data_set(name, bytes.len()), "{name} byte for byte");
    }
    assert_eq!(held.keys().collect::<Vec<_>>(), dispatched.keys().collect::<Vec<_>>(), "each parcel, and nothing else");
    let twice: Vec<_> = held.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "answered with success, and sent again: {twice:?}");
    assert_eq!(counters.set_aside, 0, "nobody refused anything");
}

fn assert_order(script: &Script, arrivals: &[(u64, String)], dispatched_at: &BTreeMap<String, u64>) {
    for (at, name) in arrivals.iter().filter(|(_, name)| !is_finding(name)) {
        let is_night = |at: u64| !(6..20).contains(&(at / HOUR % 24));
        assert!(is_night(*at) || is_night(at.saturating_sub(LATE_S)), "{name} came at second {at}, pixels go at night");
    }
    for (_, ends, kind) in &script.outages {
        let waited = |name: &str, stored_at: u64| dispatched_at[name] < *ends && stored_at >= *ends;
        let after: Vec<_> = arrivals.iter().filter(|(at, name)| waited(name, *at)).collect();
        let last_finding = after.iter().rposition(|(_, name)| is_finding(name)).unwrap_or(0);
        let before_it = after[..last_finding].iter().filter(|(_, name)| !is_finding(name)).count();
        // One object finds out that the archive is back; one that broke off on the way waits a moment, in which one other may go.
        assert!(before_it <= 3, "{before_it} pictures went before a finding that waited over an outage ({kind:?})");
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_day_of_losses_and_outages_delivers_everything_once_and_findings_first() {
    soak(12).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "minutes: make test-long"]
async fn three_days_of_losses_and_outages_deliver_everything_once_and_findings_first() {
    soak(72).await;
}
