//! What the box knows, as tables or JSON lines.

use crate::client::Client;
use crate::table::{Table, duration, json_line};
use fovea_core::{Band, Finding, Outcome};
use fovea_review::{FindingDetail, FindingPage, Scheduled, Worklist};
use serde_json::Value;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Rows asked for at once.
const PAGE: usize = 500;
/// How long one request of `--follow` waits for news.
const FOLLOW_WAIT_MS: u64 = 20_000;

pub async fn findings(client: &Client, mut after: u64, follow: bool, json: bool) -> anyhow::Result<()> {
    let mut table = Table::new(&["place", "finding", "outcome", "p", "band", "priority", "time", "what"]);
    loop {
        let page: FindingPage = client.get(&format!("/v1/findings?after={after}&limit={PAGE}")).await?;
        let all_read = page.findings.is_empty();
        for row in page.findings {
            after = row.place;
            if json { json_line(&row.finding)? } else { table.row(finding_cells(row.place, &row.finding)) }
        }
        if all_read {
            break;
        }
    }
    if !json {
        table.print()?;
    }
    if follow { self::follow(client, after, json).await } else { Ok(()) }
}

/// Prints findings as they are recorded, until the reader or the daemon goes away.
async fn follow(client: &Client, mut after: u64, json: bool) -> anyhow::Result<()> {
    loop {
        let path = format!("/v1/findings?after={after}&limit={PAGE}&wait_ms={FOLLOW_WAIT_MS}");
        let page: FindingPage = client.get(&path).await?;
        for row in page.findings {
            after = row.place;
            let mut out = std::io::stdout().lock();
            if json {
                json_line(&row.finding)?;
            } else {
                writeln!(out, "{}", finding_cells(row.place, &row.finding).join("  "))?;
            }
            out.flush()?;
        }
    }
}

fn finding_cells(place: u64, finding: &Finding) -> Vec<String> {
    let what = match finding.outcome {
        Outcome::Finding => finding.label.clone().unwrap_or_default(),
        Outcome::Ungradable | Outcome::NotAnalysed => finding.reason.clone().unwrap_or_default(),
    };
    vec![
        place.to_string(),
        finding.finding_id.to_string(),
        outcome_word(finding.outcome).to_owned(),
        finding.probability.map_or_else(|| "-".to_owned(), |p| format!("{p:.3}")),
        finding.band.map_or("-", band_word).to_owned(),
        format!("{:?}", finding.priority).to_lowercase(),
        duration(finding.timing_us.recorded),
        what,
    ]
}

fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Finding => "finding",
        Outcome::Ungradable => "ungradable",
        Outcome::NotAnalysed => "not_analysed",
    }
}

fn band_word(band: Band) -> &'static str {
    match band {
        Band::Clear => "clear",
        Band::Ambiguous => "ambiguous",
        Band::Significant => "significant",
    }
}

pub async fn show(client: &Client, id: &str, json: bool) -> anyhow::Result<()> {
    anyhow::ensure!(
        id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')),
        "an id is a finding id (f- and 32 hexadecimal digits, see `foveactl findings`) or a SOP Instance UID"
    );
    let detail: FindingDetail = client.get(&format!("/v1/findings/{id}")).await?;
    if json {
        return json_line(&detail);
    }
    let finding = &detail.finding;
    let mut table = Table::new(&["finding", finding.finding_id.as_str()]);
    let mut row = |name: &str, value: String| table.row(vec![name.to_owned(), value]);
    row("object", detail.object_path.clone());
    row("outcome", format!("{} (preliminary: not verified by a person)", outcome_word(finding.outcome)));
    if let Some(reason) = &finding.reason {
        row("reason", reason.clone());
    }
    if let Some(advice) = finding.advice.as_ref().filter(|advice| !advice.is_empty()) {
        row("what to do", advice.clone());
    }
    if let (Some(label), Some(p)) = (&finding.label, finding.probability) {
        row("label", label.clone());
        row("probability", format!("{p:.3} ({})", finding.band.map_or("-", band_word)));
    }
    if let Some(model) = &finding.model {
        row("model", format!("{} {} on {}", model.id, model.version, finding.device.as_deref().unwrap_or("-")));
    }
    for (name, measure) in &finding.quality {
        row(&format!("quality {name}"), format!("{:.3} {}", measure.value, measure.unit));
    }
    row("last byte to record", duration(finding.timing_us.recorded));
    for state in &detail.sent {
        let whereto: Vec<&str> = state.delivered.iter().map(|(name, _)| name.as_str()).collect();
        let stands =
            if whereto.is_empty() { "held in the outbox".to_owned() } else { format!("at {}", whereto.join(", ")) };
        row(&format!("{:?}", state.parcel.what).to_lowercase(), format!("{} {stands}", state.parcel.sop_instance_uid));
    }
    for held in &detail.quarantined {
        row(&format!("{:?}", held.what).to_lowercase(), format!("quarantined: {}", held.reason));
    }
    Ok(table.print()?)
}

pub async fn worklist(client: &Client, limit: u16, json: bool) -> anyhow::Result<()> {
    let list: Worklist = client.get(&format!("/v1/worklist?limit={limit}")).await?;
    if json {
        return list.rows.iter().try_for_each(json_line);
    }
    let mut table = Table::new(&["", "finding", "priority", "reader", "why", "task", "what"]);
    for (number, row) in (1..).zip(&list.rows) {
        let number: u32 = number;
        table.row(vec![
            number.to_string(),
            row.finding_id.to_string(),
            format!("{:?}", row.priority).to_lowercase(),
            format!("{:?}", row.reader_grade).to_lowercase(),
            row.why.clone(),
            row.task.clone(),
            row.label.clone().unwrap_or_default(),
        ]);
    }
    table.print()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{} of {} open findings", list.rows.len(), list.open)?;
    if list.left_out > 0 {
        writeln!(out, "{} older ones are not in the list: see foveactl findings", list.left_out)?;
    }
    Ok(())
}

pub async fn scheduled(client: &Client, json: bool) -> anyhow::Result<()> {
    let list: Scheduled = client.get("/v1/scheduled").await?;
    if json {
        return list.items.iter().try_for_each(json_line);
    }
    let mut table = Table::new(&["date", "time", "patient", "id", "accession", "modality", "station", "what"]);
    for item in &list.items {
        let what = if item.step_description.is_empty() { &item.procedure_description } else { &item.step_description };
        let cells = [
            &item.start_date,
            &item.start_time,
            &item.patient_name,
            &item.patient_id,
            &item.accession_number,
            &item.modality,
            &item.station_ae_title,
            what,
        ];
        table.row(cells.into_iter().cloned().collect());
    }
    table.print()?;
    let mut out = std::io::stdout().lock();
    match (list.is_configured, list.fetched_at_unix_us) {
        (false, _) => writeln!(out, "no worklist provider is configured: see [worklist] in fovea.toml")?,
        (true, None) => writeln!(out, "{} planned; not fetched since the box started", list.items.len())?,
        (true, Some(at)) => {
            let age = SystemTime::now().duration_since(UNIX_EPOCH + Duration::from_micros(at.0.unsigned_abs()));
            writeln!(out, "{} planned; fetched {} s ago", list.items.len(), age.unwrap_or_default().as_secs())?;
        }
    }
    if let Some(error) = list.error {
        writeln!(out, "the last try failed: {error}")?;
    }
    Ok(())
}

pub async fn status(client: &Client, json: bool) -> anyhow::Result<()> {
    let status: Value = client.get("/v1/status").await?;
    if json {
        return json_line(&status);
    }
    let mut table = Table::new(&["part", "state"]);
    flatten("", &status, &mut |name, value| table.row(vec![name.to_owned(), value]));
    Ok(table.print()?)
}

/// Every leaf with its path, for instance `receive.objects_accepted`.
pub fn flatten(path: &str, value: &Value, leaf: &mut impl FnMut(&str, String)) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| flatten(&below(key), value, leaf)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(index, value)| flatten(&below(&index.to_string()), value, leaf));
        }
        Value::Null => leaf(path, "-".to_owned()),
        Value::String(text) => leaf(path, text.clone()),
        other => leaf(path, other.to_string()),
    }
}
