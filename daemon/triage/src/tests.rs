use super::*;
use fovea_core::{
    AeTitle, ClassScore, Code, Measure, Measurement, ModelRef, ObjectHeader, Quality, Region, Sender, Sha256,
    StageTimes, TileMap, Uid, sop_class,
};
use proptest::prelude::*;

fn accepted() -> Accepted {
    let uid = |text| Uid::new(text).unwrap();
    Accepted {
        seq: 1,
        header: ObjectHeader {
            sop_class_uid: uid(sop_class::OPHTHALMIC_PHOTOGRAPHY_8_BIT),
            sop_instance_uid: uid("1.2.3.4"),
            study_uid: uid("1.2"),
            series_uid: uid("1.2.3"),
            transfer_syntax_uid: uid("1.2.840.10008.1.2.1"),
            modality: Some("OP".into()),
            body_part: None,
            laterality: None,
            rows_px: Some(1536),
            columns_px: Some(2048),
            frames: 1,
            photometric: Some("RGB".into()),
            burned_in_annotation: None,
            pixel_data_offset: Some(1000),
        },
        sender: Sender::Dimse(AeTitle::new("SCOPE").unwrap()),
        last_byte_at: UnixMicros(1_000_000),
        accepted_at: UnixMicros(1_000_700),
        data_set_sha256: Sha256::of(b"object"),
        file_bytes: 9,
    }
}

fn scores(probability: f64) -> Scores {
    let code = Code::new("SCT", "4855003", "Diabetic retinopathy");
    Scores {
        label: "referable".into(),
        code,
        probability,
        classes: Vec::new(),
        clear_below: 0.2,
        significant_from: 0.7,
    }
}

fn analysis(verdict: Verdict) -> Analysis {
    Analysis {
        verdict,
        task: "diabetic_retinopathy_screening".into(),
        model: Some(ModelRef { id: "dr".into(), version: "1".into(), sha256: Sha256::of(b"model") }),
        device: Some("CPU".into()),
        times: StageTimes { decode_us: 20_000, preprocess_us: 5_000, infer_us: 4_000 },
        ..Analysis::not_analysed(Reason::new("", "", ""))
    }
}

fn region(outline_px: Vec<[f32; 2]>) -> Region {
    Region { label: "r".into(), code: None, outline_px, measurements: Vec::new() }
}

fn of(verdict: Verdict) -> Finding {
    triage(&accepted(), analysis(verdict), UnixMicros(1_002_000), UnixMicros(1_040_000))
}

#[test]
fn each_band_has_its_priority_and_reader_and_thresholds_belong_to_the_upper_band() {
    for (probability, band, priority, reader) in [
        (0.0, Band::Clear, Priority::Routine, ReaderGrade::Any),
        (0.199, Band::Clear, Priority::Routine, ReaderGrade::Any),
        (0.2, Band::Ambiguous, Priority::High, ReaderGrade::Senior),
        (0.699, Band::Ambiguous, Priority::High, ReaderGrade::Senior),
        (0.7, Band::Significant, Priority::Urgent, ReaderGrade::Senior),
        (1.0, Band::Significant, Priority::Urgent, ReaderGrade::Senior),
    ] {
        let finding = of(Verdict::Scored(scores(probability)));
        assert_eq!(finding.outcome, Outcome::Finding);
        assert_eq!((finding.probability, finding.band), (Some(probability), Some(band)));
        assert_eq!((finding.priority, finding.reader_grade), (priority, reader), "{probability}");
        assert_eq!((finding.reason, finding.status), (None, FindingStatus::Preliminary));
    }
}

#[test]
fn an_ungradable_picture_is_looked_at_soon_and_says_what_to_do() {
    let finding = of(Verdict::Ungradable(Reason::new("out_of_focus", "out of focus", "take it again")));
    assert_eq!((finding.outcome, finding.priority), (Outcome::Ungradable, Priority::High));
    assert_eq!(finding.reason_code.as_deref(), Some("out_of_focus"));
    assert_eq!(finding.advice.as_deref(), Some("take it again"));
    assert_eq!((finding.probability, finding.band, finding.label, finding.code), (None, None, None, None));
}

#[test]
fn what_was_not_analysed_is_routine_and_has_no_empty_advice() {
    let analysis = Analysis::not_analysed(Reason::new("no_eligible_model", "no eligible model", ""));
    let finding = triage(&accepted(), analysis, UnixMicros(1_001_000), UnixMicros(1_002_000));
    assert_eq!((finding.outcome, finding.priority), (Outcome::NotAnalysed, Priority::Routine));
    assert_eq!((finding.reason.as_deref(), finding.advice), (Some("no eligible model"), None));
    assert_eq!((finding.timing_us.decoded, finding.timing_us.inferred, finding.timing_us.recorded), (0, 0, 2_000));
}

#[test]
fn what_is_no_probability_or_has_no_order_is_not_analysed() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.01, 1.01] {
        let finding = of(Verdict::Scored(scores(bad)));
        assert_eq!((finding.outcome, finding.probability), (Outcome::NotAnalysed, None), "{bad}");
        assert_eq!(finding.reason_code.as_deref(), Some("model_answer_invalid"));
        for thresholds in [(bad, 0.7), (0.2, bad), (0.8, 0.7)] {
            let (clear_below, significant_from) = thresholds;
            let finding = of(Verdict::Scored(Scores { clear_below, significant_from, ..scores(0.5) }));
            let in_order = clear_below.is_finite() && significant_from.is_finite() && clear_below <= significant_from;
            assert_eq!(finding.outcome == Outcome::Finding, in_order, "{thresholds:?}");
        }
    }
}

#[test]
fn steps_are_told_as_offsets_from_the_last_byte() {
    let timing = of(Verdict::Scored(scores(0.5))).timing_us;
    let expected = Timing {
        received: 700,
        queued: 2_000,
        decoded: 22_000,
        preprocessed: 27_000,
        inferred: 31_000,
        recorded: 40_000,
    };
    assert_eq!(timing, expected);
}

#[test]
fn the_largest_answer_of_a_worker_fits_the_ledger() {
    let long = || "\u{1}\u{10ffff}\"".repeat(5000);
    let code = || Code { scheme: long(), value: long(), meaning: long() };
    let outline = vec![[-1.234_567_9e-38_f32; 2]; 64];
    let class = ClassScore { label: long(), code: code(), probability: 1.0 / 3.0 };
    let classes = vec![class; 500];
    let mut largest = analysis(Verdict::Scored(Scores { label: long(), code: code(), classes, ..scores(1.0 / 3.0) }));
    let (columns, rows, classes) = (128, 128, vec![long(); 10]);
    largest.tile_map = Some(TileMap { columns, rows, field_px: 1, classes, cells: "9".repeat(128 * 128) });
    largest.task = long();
    largest.device = Some(long());
    largest.measurements = vec![Measurement { code: code(), value: -1.234_567_890_123_456_7e-300, unit: code() }; 500];
    let measurements = largest.measurements[..8].to_vec();
    largest.regions = vec![Region { label: long(), code: Some(code()), outline_px: outline, measurements }; 40];
    let measure = Measure { value: -1.234_567_890_123_456_7e-300, unit: long() };
    largest.quality = (0..500).map(|number| (format!("{number}{}", long()), measure.clone())).collect::<Quality>();
    let finding = triage(&accepted(), largest, UnixMicros(0), UnixMicros(i64::MAX));
    let bytes = serde_json::to_vec(&finding).unwrap().len();
    assert!(bytes < 128 * 1024, "{bytes}");
    assert!(finding.tile_map.is_some());
    assert_eq!((finding.regions.len(), finding.measurements.len(), finding.quality.len()), (12, 12, 12));
}

#[test]
fn a_map_that_is_not_whole_is_not_told() {
    let map = |columns, cells: &str| {
        let mut analysis = analysis(Verdict::Scored(scores(0.5)));
        let classes = vec!["a".to_owned(), "b".to_owned()];
        analysis.tile_map = Some(TileMap { columns, rows: 1, field_px: 768, classes, cells: cells.to_owned() });
        triage(&accepted(), analysis, UnixMicros(0), UnixMicros(1)).tile_map.map(|map| map.cells)
    };
    assert_eq!(map(4, "01.?").as_deref(), Some("01.?"));
    for (columns, cells) in [(3, "01.?"), (4, "012."), (4, "01.\u{e9}"), (0, ""), (129, &*"0".repeat(129))] {
        assert_eq!(map(columns, cells), None, "{columns} {cells}");
    }
}

fn any_verdict() -> impl Strategy<Value = Verdict> {
    let reason = ("[a-z_]{1,9}", ".{0,300}", ".{0,300}").prop_map(|(code, text, advice)| Reason { code, text, advice });
    prop_oneof![
        (any::<f64>(), any::<f64>(), any::<f64>()).prop_map(|(probability, clear_below, significant_from)| {
            Verdict::Scored(Scores { clear_below, significant_from, ..scores(probability) })
        }),
        (0.0..=1.0, 0.0..=1.0, 0.0..=1.0).prop_map(|(probability, clear_below, significant_from)| {
            Verdict::Scored(Scores { clear_below, significant_from, ..scores(probability) })
        }),
        reason.clone().prop_map(Verdict::Ungradable),
        reason.prop_map(Verdict::NotAnalysed),
    ]
}

fn any_analysis() -> impl Strategy<Value = Analysis> {
    let regions = proptest::collection::vec(proptest::collection::vec(any::<[f32; 2]>(), 0..1100), 0..6);
    let measurements = proptest::collection::vec(any::<f64>(), 0..40);
    (any_verdict(), any::<u32>(), regions, measurements, any::<[u64; 3]>(), any::<bool>()).prop_map(
        |(verdict, frame, regions, measurements, [decode_us, preprocess_us, infer_us], model)| {
            let code = || Code::new("UCUM", "mm", "millimetre");
            let full = analysis(verdict);
            Analysis {
                frame,
                regions: regions.into_iter().map(region).collect(),
                measurements: measurements
                    .iter()
                    .map(|value| Measurement { code: code(), value: *value, unit: code() })
                    .collect(),
                quality: measurements
                    .iter()
                    .map(|value| (format!("{value}"), Measure { value: *value, unit: "1".into() }))
                    .collect(),
                times: StageTimes { decode_us, preprocess_us, infer_us },
                model: full.model.clone().filter(|_| model),
                ..full
            }
        },
    )
}

proptest! {
    #[test]
    fn inv_02_any_answer_gives_exactly_one_outcome_that_the_ledger_can_hold(
        analysis in any_analysis(), taken_at in any::<i64>(), now in any::<i64>(),
    ) {
        let finding = triage(&accepted(), analysis, UnixMicros(taken_at), UnixMicros(now));
        let scored = finding.outcome == Outcome::Finding;
        prop_assert_eq!(finding.reason.is_none(), scored);
        prop_assert_eq!(finding.reason_code.is_none(), scored);
        prop_assert_eq!(finding.probability.is_some(), scored);
        prop_assert_eq!(finding.band.is_some(), scored);
        prop_assert!(finding.frame >= 1);
        let json = serde_json::to_vec(&finding).unwrap();
        prop_assert!(json.len() < 64 * 1024);
        prop_assert_eq!(serde_json::from_slice::<Finding>(&json).unwrap(), finding);
    }

    #[test]
    fn inv_04_the_same_answer_gives_the_same_finding(analysis in any_analysis(), now in any::<i64>()) {
        // As JSON, because the answer may hold NaN, which equals nothing; a finding holds none.
        let once = triage(&accepted(), analysis.clone(), UnixMicros(0), UnixMicros(now));
        let again = triage(&accepted(), analysis.clone(), UnixMicros(0), UnixMicros(now));
        prop_assert_eq!(&once, &again);
        let later = triage(&accepted(), analysis, UnixMicros(5), UnixMicros(0));
        prop_assert_eq!(once.finding_id, later.finding_id);
    }

    #[test]
    fn a_higher_probability_never_means_a_lower_band_priority_or_reader(
        low in 0.0..=1.0, high in 0.0..=1.0, clear_below in 0.0..=1.0, significant_from in 0.0..=1.0,
    ) {
        let (low, high) = if low <= high { (low, high) } else { (high, low) };
        let (clear_below, significant_from): (f64, f64) = (clear_below, significant_from);
        let (clear_below, significant_from) =
            (clear_below.min(significant_from), clear_below.max(significant_from));
        let at = |probability| of(Verdict::Scored(Scores { clear_below, significant_from, ..scores(probability) }));
        let (low, high) = (at(low), at(high));
        prop_assert!(low.band <= high.band);
        prop_assert!(low.priority <= high.priority && low.reader_grade <= high.reader_grade);
    }
}
