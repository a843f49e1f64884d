use super::*;
use crate::reader::Grade;

fn config(change: impl FnOnce(&mut RawSimConfig)) -> SimConfig {
    let mut raw = RawSimConfig::default();
    change(&mut raw);
    SimConfig::try_from(raw).unwrap()
}

fn row(report: &Report, load: f64, policy: Policy, truth: Truth) -> Row {
    report.row(load, policy, truth).unwrap().clone()
}

#[test]
fn the_significant_wait_half_as_long_at_most_and_nobody_past_the_limit() {
    let config = config(|raw| raw.loads = vec![0.8]);
    for seed in 1..=8 {
        let report = simulate(&config, seed);
        let ratio = report.p95_ratio(0.8, Policy::WithLimit).unwrap();
        assert!(ratio <= 0.5, "seed {seed}: {ratio}");
        for truth in [Truth::Significant, Truth::NotSignificant] {
            assert_eq!(row(&report, 0.8, Policy::WithLimit, truth).over_limit, 0, "seed {seed}");
        }
    }
}

#[test]
fn without_a_limit_the_longest_wait_grows_and_the_limit_takes_that_back() {
    // What a published simulation of chest radiographs found (doi 10.1007/s00330-020-07480-7): sorting by need alone
    // makes the longest wait of the significant longer, because those that the model misses stand last.
    for seed in 1..=4 {
        let report = simulate(&config(|raw| raw.loads = vec![0.95]), seed);
        let longest = |policy| row(&report, 0.95, policy, Truth::Significant).max_min;
        let (first_come, without, with) =
            (longest(Policy::FirstCome), longest(Policy::WithoutLimit), longest(Policy::WithLimit));
        assert!(without > 3.0 * first_come, "seed {seed}: {without} and {first_come}");
        assert!(with < without / 3.0 && with <= 240.0, "seed {seed}: {with} of {without}");
        let mean = |policy| row(&report, 0.95, policy, Truth::Significant).mean_min;
        assert!(mean(Policy::WithLimit) < mean(Policy::FirstCome) / 3.0);
    }
}

#[test]
fn a_seed_gives_one_report_and_another_seed_another() {
    let config = config(|raw| raw.cases = 2_000);
    assert_eq!(simulate(&config, 7), simulate(&config, 7));
    assert_ne!(simulate(&config, 7).rows, simulate(&config, 8).rows);
}

#[test]
fn first_come_waits_as_theory_says() {
    // One reader, lognormal service: mean wait = load / (1 - load) * mean * (1 + cv^2) / 2 (Pollaczek and Khinchine).
    let config = config(|raw| {
        (raw.cases, raw.loads, raw.senior_readers) = (200_000, vec![0.6], 1);
    });
    let report = simulate(&config, 1);
    let rows = [Truth::Significant, Truth::NotSignificant].map(|truth| row(&report, 0.6, Policy::FirstCome, truth));
    let total: f64 = rows.iter().map(|row| row.mean_min * row.cases as f64).sum();
    let mean = total / rows.iter().map(|row| row.cases as f64).sum::<f64>();
    let squared_cv = (0.6_f64 * 0.6).exp() - 1.0;
    let expected = 0.6 / 0.4 * 4.0 * (1.0 + squared_cv) / 2.0;
    assert!((mean / expected - 1.0).abs() < 0.05, "{mean} and {expected}");
}

#[test]
fn every_case_is_read_once_its_order_is_kept_and_first_come_is_first_served() {
    let config = config(|raw| {
        (raw.cases, raw.trained_readers) = (3_000, 1);
    });
    let cases = cases(&config, 0.9, 3);
    for policy in Policy::ALL {
        let seen = room::run(&config.triage, policy, &cases);
        assert!(seen.iter().all(|seen| seen.wait_us >= 0));
        let begun = |number: usize| cases[number].item.arrived.0 + seen[number].wait_us;
        if policy == Policy::FirstCome {
            assert!((1..cases.len()).all(|number| begun(number - 1) <= begun(number)));
        }
        // No more than three readings at once, at any begin.
        for number in 0..cases.len() {
            let now = begun(number);
            let running =
                (0..cases.len()).filter(|other| begun(*other) <= now && now < begun(*other) + cases[*other].reading_us);
            assert!(running.count() <= 3, "{policy:?} {number}");
        }
    }
}

#[test]
fn what_is_not_clear_is_read_by_seniors_and_second_readings_by_them_when_it_was_not() {
    let config = config(|raw| {
        (raw.cases, raw.loads, raw.trained_readers, raw.not_analysed, raw.ungradable) = (5_000, vec![0.6], 2, 0.0, 0.0);
        (raw.sensitivity, raw.sensitivity_significant) = (1.0, 1.0);
    });
    assert_eq!(config.triage.readers().iter().filter(|reader| reader.grade == Grade::Senior).count(), 2);
    let significant = row(&simulate(&config, 1), 0.6, Policy::WithLimit, Truth::Significant);
    assert_eq!(significant.by_senior, significant.cases);
}

#[test]
fn the_model_answers_as_often_as_its_figures_say() {
    let config = config(|raw| raw.cases = 100_000);
    let cases = cases(&config, 0.8, 5);
    let share = |truth: Option<Truth>, wanted: &dyn Fn(&Item) -> bool| {
        let of = cases.iter().filter(|case| truth.is_none_or(|truth| case.truth == truth));
        let (all, found) =
            of.fold((0.0, 0.0), |(all, found), case| (all + 1.0, found + f64::from(u8::from(wanted(&case.item)))));
        found / all
    };
    let raw = &config.raw;
    let gradable = 1.0 - raw.ungradable - raw.not_analysed;
    for (truth, subject, expected) in [
        (None, Subject::NotAnalysed, raw.not_analysed),
        (None, Subject::Ungradable, raw.ungradable),
        (Some(Truth::Significant), Subject::Significant, gradable * raw.sensitivity_significant),
        (Some(Truth::Significant), Subject::Clear, gradable * (1.0 - raw.sensitivity)),
        (Some(Truth::NotSignificant), Subject::Significant, gradable * (1.0 - raw.specificity)),
        (Some(Truth::NotSignificant), Subject::Clear, gradable * raw.specificity_clear),
    ] {
        let found = share(truth, &|item| item.subject == subject);
        assert!((found - expected).abs() < 0.01, "{truth:?} {subject:?}: {found}, not {expected}");
    }
    let probability = |item: &Item| item.probability;
    let in_band = cases.iter().filter_map(|case| Some((case.item.subject, probability(&case.item)?)));
    for (subject, probability) in in_band {
        let band = match subject {
            Subject::Significant => SIGNIFICANT_FROM..=1.0,
            Subject::Ambiguous => CLEAR_BELOW..=SIGNIFICANT_FROM,
            _ => 0.0..=CLEAR_BELOW,
        };
        assert!(band.contains(&probability), "{subject:?} {probability}");
    }
}

#[test]
fn what_cannot_be_simulated_is_refused_by_name() {
    type Change = fn(&mut RawSimConfig);
    let cases: [(Change, &str); 14] = [
        (|raw| raw.cases = 999, "cases"),
        (|raw| raw.loads.clear(), "loads"),
        (|raw| raw.loads = vec![0.5; 9], "loads"),
        (|raw| raw.loads = vec![1.0], "loads"),
        (|raw| raw.loads = vec![f64::NAN], "loads"),
        (|raw| raw.senior_readers = 0, "senior_readers"),
        (|raw| raw.trained_readers = 51, "trained_readers"),
        (|raw| raw.reading_mean_min = 0.0, "reading_mean_min"),
        (|raw| raw.reading_log_sd = f64::INFINITY, "reading_log_sd"),
        (|raw| raw.prevalence = 0.0, "prevalence"),
        (|raw| raw.sensitivity_significant = 0.97, "sensitivity_significant"),
        (|raw| raw.specificity_clear = 0.93, "specificity_clear"),
        (|raw| raw.ungradable = 0.6, "ungradable"),
        (|raw| raw.triage.due_at_percent = 0, "due_at_percent"),
    ];
    for (change, key) in cases {
        let mut raw = RawSimConfig::default();
        change(&mut raw);
        let error = SimConfig::try_from(raw).expect_err(key).to_string();
        assert!(error.contains(key), "{error} does not name {key}");
    }
    assert_eq!(SimConfig::try_from(RawSimConfig::default()), Ok(SimConfig::default()));
}

/// The number before " %" in the last column of a row of the card, as a share.
fn card_share(row: &str) -> f64 {
    let card = include_str!("../../../../image/models/dr-screening/bundle/card.md");
    let line = card.lines().find(|line| line.starts_with(&format!("| {row} |"))).unwrap_or_else(|| panic!("no {row}"));
    let last = line.trim_end_matches('|').rsplit('|').next().unwrap().trim();
    let percent: f64 = last.split(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{line}"));
    percent / 100.0
}

#[test]
fn the_figures_are_those_of_the_eye_bundle_that_ships() {
    let manifest: toml::Value =
        toml::from_str(include_str!("../../../../image/models/dr-screening/bundle/bundle.toml")).unwrap();
    assert_eq!(manifest["version"].as_str(), Some("2.0.0"), "a new version: set the simulator's figures to its own");
    let main = &manifest["networks"][0]["outputs"][0];
    assert_eq!(
        (main["clear_below"].as_float(), main["significant_from"].as_float()),
        (Some(CLEAR_BELOW), Some(SIGNIFICANT_FROM))
    );
    let raw = RawSimConfig::default();
    for (row, found) in [
        (format!("Sensitivity at {CLEAR_BELOW} (not clear)"), raw.sensitivity),
        (format!("Sensitivity at {SIGNIFICANT_FROM} (significant)"), raw.sensitivity_significant),
        (format!("Specificity at {SIGNIFICANT_FROM}"), raw.specificity),
        (format!("Specificity at {CLEAR_BELOW}"), raw.specificity_clear),
    ] {
        assert!((card_share(&row) - found).abs() < 1e-9, "{row}: {} in the card, {found} here", card_share(&row));
    }
    let card = include_str!("../../../../image/models/dr-screening/bundle/card.md");
    let refused = format!("refuses {:.1} % of clean photographs", 100.0 * raw.ungradable);
    assert!(card.contains(&refused), "the card does not say that the gate {refused}");
}

/// The two rooms that `docs/triage.md` shows.
#[test]
fn the_documented_tables_are_what_the_simulator_says() {
    let text = include_str!("../../../../docs/triage.md");
    for trained in [0, 2] {
        let table = simulate(&config(|raw| raw.trained_readers = trained), 1).markdown();
        assert!(
            text.contains(&table),
            "docs/triage.md has drifted; with {trained} trained readers it is now:\n\n{table}"
        );
    }
}
