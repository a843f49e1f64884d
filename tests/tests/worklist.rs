//! The list that a reader works through, as the box gives it.
//!
//! In: a box with outcomes. Out: `foveactl worklist`. Promise: every open finding stands in it once, in the order of need by `[triage]`, with
//! the reason in words.

use fovea_core::{Priority, sop_class};
use fovea_tests::node::Setup;
use fovea_tests::paths;
use fovea_tests::sample::Sample;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn worklist(state: &Path, arguments: &[&str]) -> String {
    let mut foveactl = Command::new(paths::program("foveactl").expect("foveactl is built"));
    let output = foveactl.arg("--state").arg(state).arg("worklist").args(arguments).output().expect("foveactl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("its output is text")
}

#[test]
fn open_findings_stand_in_the_order_of_need_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let triage = "[triage]\nurgent_wait_max_min = 30\n[[triage.readers]]\nname = \"reader-1\"\ngrade = \"senior\"\n";
    let node = Setup::new(folder.path()).unwrap().config(triage).start().unwrap();
    // No model looks at a plain secondary capture; one at the retina, and noise in its place is ungradable or worse.
    let mut eye = Sample::secondary_capture(2).class(sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT, "OP").size(100, 100);
    eye.samples_per_pixel = 3;
    let samples = [Sample::secondary_capture(1), eye];
    let files: Vec<_> = samples.iter().map(|sample| sample.write(folder.path()).unwrap()).collect();
    node.send(&files).unwrap();
    for sample in &samples {
        node.ctl().wait_for_finding(&sample.sop_instance_uid(), Duration::from_secs(30)).unwrap();
    }
    let retina = node.capture_and_wait(&paths::sample("retina.jpg").unwrap(), Duration::from_secs(30)).unwrap();

    let findings = node.ctl().findings().unwrap();
    let rows: Vec<Value> =
        worklist(node.state(), &["--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids = |from: &mut dyn Iterator<Item = String>| from.collect::<std::collections::BTreeSet<_>>();
    let listed = ids(&mut rows.iter().map(|row| row["finding_id"].as_str().unwrap().to_owned()));
    assert_eq!((listed, rows.len()), (ids(&mut findings.iter().map(|f| f.finding_id.to_string())), findings.len()));
    let level = |row: &Value| serde_json::from_value::<Priority>(row["priority"].clone()).unwrap();
    assert!(rows.windows(2).all(|pair| level(&pair[0]) >= level(&pair[1])), "fresh ones stand by priority: {rows:?}");
    for row in &rows {
        let finding = findings.iter().find(|f| row["finding_id"] == f.finding_id.as_str()).unwrap();
        let why = row["why"].as_str().unwrap();
        let word = match finding.band {
            Some(band) => format!("{band:?}").to_lowercase(),
            None => serde_json::to_value(finding.outcome).unwrap().as_str().unwrap().replace('_', " "),
        };
        assert!(why.starts_with(&format!("{word}, waiting ")), "{why} of {finding:?}");
        let limit_us = row["deadline_unix_us"].as_i64().unwrap() - row["arrived_at_unix_us"].as_i64().unwrap();
        let limit_min = match finding.priority {
            Priority::Urgent => 30,
            Priority::High => 120,
            Priority::Routine => 240,
        };
        assert_eq!(limit_us, limit_min * 60_000_000, "{row}");
    }
    let text = worklist(node.state(), &["--limit", "1"]);
    assert!(text.contains(rows[0]["finding_id"].as_str().unwrap()) && text.contains("1 of 3 open findings"), "{text}");
    assert!(rows.iter().any(|row| row["finding_id"] == retina.finding_id.as_str()));
}
