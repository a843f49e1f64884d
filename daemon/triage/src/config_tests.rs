use super::*;

fn parse(text: &str) -> Result<Config, String> {
    let raw: RawConfig = toml::from_str(text).map_err(|error| error.to_string())?;
    Config::try_from(raw).map_err(|error| error.to_string())
}

const WHOLE: &str = r#"
urgent_wait_max_min = 20
high_wait_max_min = 60
routine_wait_max_min = 480
due_at_percent = 80
ageing_levels = 0.5
utc_offset = "+08:00"

[[readers]]
name = "reader-li"
grade = "expert"
tasks = ["diabetic_retinopathy_screening"]
duty = ["mon-fri 08:00-17:30", "sat 09:00-12:00"]
open_max = 12
agreement = { share = 0.96, n = 412 }

[[readers]]
name = "night"
grade = "senior"
utc_offset = "-05:00"
duty = ["mon-sun 20:00-06:00"]

[[readers]]
name = "nurse.3"
grade = "trained"

[[rules]]
task = "diabetic_retinopathy_screening"
second_read = "significant"
second_read_sample_percent = 5
second_read_if_model_differs = true
second_reader_grade = "senior"
adjudicator_grade = "expert"

[[rules]]
task = "*"
second_read_if_model_differs = true
"#;

#[test]
fn an_empty_section_asks_nothing_of_a_site() {
    assert_eq!(parse(""), Ok(Config::default()));
    assert_eq!(Config::default().readers(), []);
    assert_eq!(Config::default().rule("any_task").second_read, SecondRead::Never);
}

#[test]
fn a_whole_section_is_read_as_written() {
    let config = parse(WHOLE).unwrap();
    let waits = [Priority::Urgent, Priority::High, Priority::Routine].map(|priority| config.wait_max_min(priority));
    assert_eq!(waits, [20, 60, 480]);
    let [li, night, nurse] = config.readers() else { panic!("three readers") };
    assert!(li.reads("diabetic_retinopathy_screening") && !li.reads("thyroid_nodule") && li.reads(""));
    assert_eq!((li.grade, li.open_max, night.open_max), (Grade::Expert, 12, 20));
    assert!(nurse.reads("thyroid_nodule") && nurse.agreement.is_none());
    let rule = config.rule("diabetic_retinopathy_screening");
    assert_eq!((rule.second_read, rule.sample_percent), (SecondRead::Significant, 5));
    assert_eq!((rule.second_grade, rule.adjudicator_grade), (Grade::Senior, Grade::Expert));
    let other = config.rule("thyroid_nodule");
    assert!(other.if_model_differs && other.second_read == SecondRead::Never);
    assert_eq!(other.adjudicator_grade, Grade::Senior);
}

#[test]
fn every_bad_value_is_refused_by_its_key() {
    let reader = |rest: &str| format!("[[readers]]\nname = 'a'\ngrade = 'senior'\n{rest}");
    let many = |count: usize, table: &dyn Fn(usize) -> String| (0..count).map(table).collect::<String>();
    let too_many_readers = many(201, &|number| format!("[[readers]]\nname = 'r{number}'\ngrade = 'trained'\n"));
    let too_many_rules = many(65, &|number| format!("[[rules]]\ntask = 't{number}'\n"));
    let too_many_tasks = reader(&format!("tasks = [{}]", "'t',".repeat(33)));
    let cases: Vec<(String, &str)> = vec![
        ("urgent = 1".into(), "urgent"),
        ("urgent_wait_max_min = 0".into(), "triage.urgent_wait_max_min is 0, it must be 1 to 10080"),
        ("urgent_wait_max_min = -1".into(), "urgent_wait_max_min"),
        ("urgent_wait_max_min = 121".into(), "triage.high_wait_max_min is 120, it must be 121 to 10080"),
        ("high_wait_max_min = 300".into(), "triage.routine_wait_max_min"),
        ("routine_wait_max_min = 10081".into(), "triage.routine_wait_max_min"),
        ("due_at_percent = 49".into(), "triage.due_at_percent"),
        ("due_at_percent = 101".into(), "triage.due_at_percent"),
        ("ageing_levels = 2.1".into(), "triage.ageing_levels"),
        ("ageing_levels = nan".into(), "triage.ageing_levels"),
        ("ageing_levels = -0.1".into(), "triage.ageing_levels"),
        ("[[readers]]\nname = 'Dr A Person'\ngrade = 'senior'".into(), "triage.readers[0].name"),
        ("[[readers]]\nname = ''\ngrade = 'senior'".into(), "triage.readers[0].name"),
        ("[[readers]]\nname = 'a'\ngrade = 'boss'".into(), "grade"),
        ("[[readers]]\nname = 'a'".into(), "grade"),
        (format!("{}{}", reader(""), reader("").replace("'a'", "'A'")), "triage.readers[1].name"),
        (reader("age = 50"), "age"),
        (reader("tasks = ['Eye']"), "triage.readers[0].tasks"),
        (too_many_tasks, "triage.readers[0].tasks"),
        (reader("duty = ['mon 08:00-12:00']"), "triage.readers[0].utc_offset is missing"),
        (reader("utc_offset = '8'"), "triage.readers[0].utc_offset"),
        (format!("utc_offset = '8'\n{}", reader("")), "triage.utc_offset"),
        (reader("utc_offset = '+00:00'\nduty = ['mon 08:00-12:00', 'x']"), "triage.readers[0].duty[1]"),
        (reader(&format!("utc_offset = '+00:00'\nduty = [{}]", "'mon 08:00-12:00',".repeat(29))), "readers[0].duty"),
        (reader("open_max = 0"), "triage.readers[0].open_max"),
        (reader("open_max = 1001"), "triage.readers[0].open_max"),
        (reader("agreement = { share = 1.1, n = 5 }"), "triage.readers[0].agreement.share"),
        (reader("agreement = { share = nan, n = 5 }"), "triage.readers[0].agreement.share"),
        (reader("agreement = { share = 0.9, n = 0 }"), "triage.readers[0].agreement.n"),
        (reader("agreement = { share = 0.9 }"), "`n`"),
        (too_many_readers, "triage.readers are more than 200"),
        ("[[rules]]\ntask = ''".into(), "triage.rules[0].task"),
        ("[[rules]]\ntask = 'a'\n[[rules]]\ntask = 'a'".into(), "triage.rules[1].task"),
        ("[[rules]]\ntask = 'a'\nsecond_read = 'twice'".into(), "second_read"),
        (
            "[[rules]]\ntask = 'a'\nsecond_read_sample_percent = 101".into(),
            "triage.rules[0].second_read_sample_percent",
        ),
        ("[[rules]]\ntask = 'a'\nthird = 1".into(), "third"),
        (
            format!("{}[[rules]]\ntask = 'a'\nsecond_read = 'always'", reader("")),
            "triage.rules[0].task asks for second",
        ),
        (too_many_rules, "triage.rules are more than 64"),
    ];
    for (text, key) in cases {
        let error = parse(&text).err().unwrap_or_else(|| panic!("{text:?} was taken"));
        assert!(error.contains(key), "{text:?} gave {error:?}, not {key:?}");
    }
}

#[test]
fn few_agreements_count_less_than_many() {
    let at_least = |share: f64, n: u32| {
        let text = format!("[[readers]]\nname = 'a'\ngrade = 'senior'\nagreement = {{ share = {share:?}, n = {n} }}");
        parse(&text).unwrap().readers()[0].agreement_at_least()
    };
    assert!(at_least(1.0, 3) < at_least(0.96, 250));
    assert!((at_least(0.9, 100) - 0.8256).abs() < 1e-4);
    for (share, n) in [(0.0, 1), (1.0, 1), (0.0, 1_000_000), (1.0, 1_000_000)] {
        assert!((0.0..=1.0).contains(&at_least(share, n)), "{share} of {n}");
    }
}
