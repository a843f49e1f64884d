//! What leaves the box, and another try for what a destination refused.
//!
//! In: the daemon's API. Out: a table or JSON lines. Promise: `list` only reads; `retry` says how many wait once more.

use crate::client::Client;
use crate::table::{Table, json_line, size};
use clap::{Args, Subcommand};
use fovea_core::{ParcelState, RULED_OUT};
use fovea_review::{OutboxPage, Retried};
use std::io::Write;

/// Rows asked for at once.
const PAGE: usize = 500;

#[derive(Subcommand)]
pub enum OutboxCommand {
    /// Every parcel, or those that were set aside, with the reason.
    List {
        /// Only what a destination refused for good.
        #[arg(long)]
        set_aside: bool,
    },
    /// Lets what was set aside wait once more, when what was wrong is mended.
    Retry(RetryArgs),
}

#[derive(Args)]
#[group(required = true, multiple = false, id = "which")]
struct Which {
    /// The parcel, by the number in the first column of the list.
    seq: Option<u64>,
    /// Everything that was set aside.
    #[arg(long)]
    all: bool,
}

#[derive(Args)]
pub struct RetryArgs {
    #[command(flatten)]
    which: Which,
    /// At this destination alone.
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
}

pub async fn run(client: &Client, command: Option<OutboxCommand>, json: bool) -> anyhow::Result<()> {
    match command {
        None => list(client, false, json).await,
        Some(OutboxCommand::List { set_aside }) => list(client, set_aside, json).await,
        Some(OutboxCommand::Retry(args)) => retry(client, &args, json).await,
    }
}

fn is_refused((_, reason): &&(String, String)) -> bool {
    reason != RULED_OUT
}

async fn list(client: &Client, set_aside: bool, json: bool) -> anyhow::Result<()> {
    let mut table = Table::new(match set_aside {
        true => &["parcel", "what", "instance", "refused by", "why"],
        false => &["parcel", "what", "instance", "size", "delivered to", "kept by", "refused by"],
    });
    let mut after = 0;
    loop {
        let page: OutboxPage = client.get(&format!("/v1/outbox?after={after}&limit={PAGE}")).await?;
        let Some(last) = page.parcels.last() else { break };
        after = last.parcel.seq;
        for state in &page.parcels {
            if set_aside && !state.set_aside.iter().any(|mark| is_refused(&mark)) {
                continue;
            }
            match (json, set_aside) {
                (true, _) => json_line(state)?,
                (false, true) => refusals(state, &mut table),
                (false, false) => table.row(row(state)),
            }
        }
    }
    if json { Ok(()) } else { Ok(table.print()?) }
}

fn head(state: &ParcelState) -> Vec<String> {
    let what = format!("{:?}", state.parcel.what).to_lowercase();
    vec![state.parcel.seq.to_string(), what, state.parcel.sop_instance_uid.to_string()]
}

fn row(state: &ParcelState) -> Vec<String> {
    let names = |list: Vec<&String>| list.into_iter().cloned().collect::<Vec<_>>().join(", ");
    let mut cells = head(state);
    cells.extend([
        size(state.parcel.file_bytes),
        names(state.delivered.iter().map(|(name, _)| name).collect()),
        names(state.custody.iter().map(|custody| &custody.destination).collect()),
        names(state.set_aside.iter().filter(is_refused).map(|(name, _)| name).collect()),
    ]);
    cells
}

fn refusals(state: &ParcelState, table: &mut Table) {
    for (name, reason) in state.set_aside.iter().filter(is_refused) {
        let mut cells = head(state);
        cells.extend([name.clone(), reason.clone()]);
        table.row(cells);
    }
}

async fn retry(client: &Client, args: &RetryArgs, json: bool) -> anyhow::Result<()> {
    let place = args.which.seq.map_or_else(|| "retry".to_owned(), |seq| format!("{seq}/retry"));
    let whom = args.destination.as_deref().map_or_else(String::new, |name| format!("?destination={}", escaped(name)));
    let retried: Retried = client.post(&format!("/v1/outbox/{place}{whom}"), Vec::new()).await?;
    if json {
        return json_line(&retried);
    }
    let word = if retried.retried == 1 { "waits" } else { "wait" };
    Ok(writeln!(std::io::stdout().lock(), "{} {word} to be sent once more", retried.retried)?)
}

/// RFC 3986 section 2.1: what is not unreserved, by its bytes.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_destination_may_have_any_name() {
        assert_eq!(super::escaped("vna-1 ü&"), "vna-1%20%C3%BC%26");
    }
}
