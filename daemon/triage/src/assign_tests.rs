use super::*;
use crate::config::RawConfig;
use crate::reading::{Call, Reading};
use fovea_core::{FindingId, Priority, ReaderGrade, Sha256, Uid};
use proptest::prelude::*;

const ROOM: &str = r#"
utc_offset = "+00:00"
[[readers]]
name = "expert"
grade = "expert"
duty = ["mon 08:00-12:00"]
open_max = 2
[[readers]]
name = "senior-b"
grade = "senior"
agreement = { share = 0.90, n = 300 }
open_max = 2
[[readers]]
name = "senior-a"
grade = "senior"
agreement = { share = 1.0, n = 2 }
open_max = 2
[[readers]]
name = "trained"
grade = "trained"
open_max = 2
[[readers]]
name = "thyroid"
grade = "expert"
tasks = ["thyroid_nodule"]
"#;

/// Monday 2026-11-23 at this hour, UTC.
fn monday(hour: i64) -> UnixMicros {
    UnixMicros((1_795_392_000 + hour * 3600) * 1_000_000)
}

fn config(text: &str) -> Config {
    Config::try_from(toml::from_str::<RawConfig>(text).unwrap()).unwrap()
}

fn item(subject: Subject, arrived: UnixMicros) -> Item {
    let (priority, reader_grade) = match subject {
        Subject::Significant => (Priority::Urgent, ReaderGrade::Senior),
        Subject::Ambiguous => (Priority::High, ReaderGrade::Senior),
        Subject::Ungradable => (Priority::High, ReaderGrade::Any),
        Subject::Clear | Subject::NotAnalysed => (Priority::Routine, ReaderGrade::Any),
    };
    Item {
        id: FindingId::of(&Uid::derived("item", &["1"]), &Sha256::of(b"1"), None),
        task: "eye".into(),
        arrived,
        subject,
        probability: None,
        priority,
        reader_grade,
        readings: Vec::new(),
    }
}

fn read(item: &Item, readings: &[(&str, Grade, Call)]) -> Item {
    let reading =
        |(reader, grade, call): &(&str, Grade, Call)| Reading { reader: (*reader).into(), grade: *grade, call: *call };
    Item { readings: readings.iter().map(reading).collect(), ..item.clone() }
}

/// The reader's name and whether it is an escalation, or what else.
fn to(config: &Config, item: &Item, open: &[u32], now: UnixMicros) -> Result<(String, bool), Assignment<'static>> {
    match assign(config, item, open, now) {
        Assignment::To { reader, index, escalated, .. } => {
            assert_eq!(config.readers()[index], *reader);
            Ok((reader.name.clone(), escalated))
        }
        Assignment::Anyone { grade, stage } => Err(Assignment::Anyone { grade, stage }),
        Assignment::Waits { why, next_duty, stage, escalated } => {
            Err(Assignment::Waits { why, next_duty, stage, escalated })
        }
        Assignment::Done(call) => Err(Assignment::Done(call)),
    }
}

fn name(found: Result<(String, bool), Assignment<'_>>) -> String {
    found.unwrap_or_else(|other| panic!("{other:?}")).0
}

#[test]
fn without_readers_the_band_says_who() {
    let config = Config::default();
    for (subject, grade) in [
        (Subject::Significant, Grade::Senior),
        (Subject::Ambiguous, Grade::Senior),
        (Subject::Clear, Grade::Trained),
        (Subject::Ungradable, Grade::Trained),
        (Subject::NotAnalysed, Grade::Trained),
    ] {
        let found = assign(&config, &item(subject, monday(9)), &[], monday(9));
        assert_eq!(found, Assignment::Anyone { grade, stage: Stage::First }, "{subject:?}");
    }
}

#[test]
fn what_is_not_clear_goes_to_the_most_experienced_and_what_is_to_the_least() {
    let config = config(ROOM);
    for subject in [Subject::Significant, Subject::Ambiguous] {
        let at = |hour, open: &[u32]| name(to(&config, &item(subject, monday(hour)), open, monday(hour)));
        assert_eq!(at(9, &[]), "expert");
        // Full, or off duty: the senior who was found right more often, by what the numbers prove.
        assert_eq!(at(9, &[2]), "senior-b");
        assert_eq!(at(13, &[]), "senior-b");
        assert_eq!(at(13, &[0, 2]), "senior-a");
    }
    for subject in [Subject::Clear, Subject::Ungradable, Subject::NotAnalysed] {
        let at = |open: &[u32]| name(to(&config, &item(subject, monday(9)), open, monday(9)));
        assert_eq!(at(&[]), "trained");
        // Then the senior with less in hand, then the one found right more often.
        assert_eq!(at(&[0, 1, 0, 2]), "senior-a");
        assert_eq!(at(&[0, 0, 0, 2]), "senior-b");
    }
}

#[test]
fn a_task_goes_to_those_who_do_it_and_what_has_none_to_all() {
    let config = config(ROOM);
    let thyroid = Item { task: "thyroid_nodule".into(), ..item(Subject::Significant, monday(13)) };
    assert_eq!(name(to(&config, &thyroid, &[], monday(13))), "thyroid");
    assert_eq!(name(to(&config, &item(Subject::Significant, monday(13)), &[], monday(13))), "senior-b");
    let none = Item { task: String::new(), ..item(Subject::NotAnalysed, monday(13)) };
    assert_eq!(name(to(&config, &none, &[2, 2, 2, 2, 0], monday(13))), "thyroid");
}

#[test]
fn what_nobody_can_take_waits_and_is_escalated_when_due() {
    let text = r#"
utc_offset = "+00:00"
[[readers]]
name = "senior"
grade = "senior"
duty = ["mon 08:00-12:00", "tue 08:00-12:00"]
open_max = 1
[[readers]]
name = "trained"
grade = "trained"
duty = ["mon 08:00-20:00"]
open_max = 1
"#;
    let config = config(text);
    let stage = Stage::First;
    let waits = |why, next_duty, escalated| Err(Assignment::Waits { why, next_duty, stage, escalated });
    let found = |arrived, open: &[u32], now| to(&config, &item(Subject::Significant, arrived), open, now);
    // Senior full; then off duty until Tuesday.
    assert_eq!(found(monday(9), &[1], monday(9)), waits(Waiting::AllFull, None, false));
    assert_eq!(found(monday(13), &[], monday(13)), waits(Waiting::NobodyOnDuty, Some(monday(32)), false));
    // Due after 45 minutes of 60: one hour later the trained reader has it, and a senior reads it second.
    assert_eq!(found(monday(13), &[], monday(14)), Ok(("trained".into(), true)));
    assert_eq!(found(monday(9), &[1], monday(10)), Ok(("trained".into(), true)));
    assert_eq!(found(monday(9), &[1, 1], monday(10)), Ok(("senior".into(), true)));
    let once = read(&item(Subject::Significant, monday(13)), &[("trained", Grade::Trained, Call::Positive)]);
    assert_eq!(next_step(&config, &once), Step::Read { stage: Stage::Second, grade: Grade::Senior });
    // Which waits for a senior, however long it is due: no second trained reader ends it.
    let senior_later =
        |why, next_duty| Err(Assignment::Waits { why, next_duty, stage: Stage::Second, escalated: true });
    assert_eq!(to(&config, &once, &[], monday(14)), senior_later(Waiting::NobodyOnDuty, Some(monday(32))));
    assert_eq!(to(&config, &once, &[1], monday(33)), Ok(("senior".into(), true)));
    // At night nobody is there; the one who comes first is named.
    assert_eq!(found(monday(13), &[], monday(21)), waits(Waiting::NobodyOnDuty, Some(monday(32)), true));
    // Whom nobody is left to read for says so.
    let both = read(&once, &[("trained", Grade::Trained, Call::Positive), ("SENIOR", Grade::Senior, Call::Negative)]);
    let left = Err(Assignment::Waits {
        why: Waiting::NobodyLeft,
        next_duty: None,
        stage: Stage::Adjudication,
        escalated: false,
    });
    assert_eq!(to(&config, &both, &[], monday(13)), left);
}

#[test]
fn two_who_differ_are_settled_by_the_most_experienced_third() {
    let config = config(&format!("{ROOM}[[rules]]\ntask = 'eye'\nsecond_read = 'always'\n"));
    let clear = item(Subject::Clear, monday(9));
    assert_eq!(next_step(&config, &clear), Step::Read { stage: Stage::First, grade: Grade::Trained });
    let once = read(&clear, &[("trained", Grade::Trained, Call::Negative)]);
    assert_eq!(next_step(&config, &once), Step::Read { stage: Stage::Second, grade: Grade::Trained });
    assert_eq!(name(to(&config, &once, &[], monday(9))), "senior-b");
    let agreed =
        read(&clear, &[("trained", Grade::Trained, Call::Negative), ("senior-b", Grade::Senior, Call::Negative)]);
    assert_eq!(assign(&config, &agreed, &[], monday(9)), Assignment::Done(Call::Negative));
    let differ =
        read(&clear, &[("trained", Grade::Trained, Call::Negative), ("senior-b", Grade::Senior, Call::Positive)]);
    assert_eq!(next_step(&config, &differ), Step::Read { stage: Stage::Adjudication, grade: Grade::Senior });
    assert_eq!(name(to(&config, &differ, &[], monday(9))), "expert");
    assert_eq!(name(to(&config, &differ, &[], monday(13))), "senior-a");
    for call in [Call::Positive, Call::Negative, Call::Ungradable] {
        let mut settled = differ.clone();
        settled.readings.push(Reading { reader: "expert".into(), grade: Grade::Expert, call });
        assert_eq!(next_step(&config, &settled), Step::Done(call));
    }
}

#[test]
fn two_below_the_grade_settle_nothing_even_when_they_agree() {
    let config = config(ROOM);
    let trained = |name| (name, Grade::Trained, Call::Negative);
    let twice = read(&item(Subject::Significant, monday(9)), &[trained("trained"), trained("gone")]);
    assert_eq!(next_step(&config, &twice), Step::Read { stage: Stage::Adjudication, grade: Grade::Senior });
    let clear = Item { readings: twice.readings.clone(), ..item(Subject::Clear, monday(9)) };
    assert_eq!(next_step(&config, &clear), Step::Done(Call::Negative));
}

#[test]
fn second_readings_follow_the_rule_of_the_task() {
    let rule = |rest: &str| config(&format!("{ROOM}[[rules]]\ntask = 'eye'\n{rest}"));
    let twice = |config: &Config, subject, call| {
        let once = read(&item(subject, monday(9)), &[("expert", Grade::Expert, call)]);
        matches!(next_step(config, &once), Step::Read { stage: Stage::Second, .. })
    };
    use Subject::{Ambiguous, Clear, NotAnalysed, Significant, Ungradable};
    let all = [Significant, Ambiguous, Clear, Ungradable, NotAnalysed];
    for (text, expected) in [
        ("", [false; 5]),
        ("second_read = 'significant'", [true, false, false, false, false]),
        ("second_read = 'not_clear'", [true, true, false, false, false]),
        ("second_read = 'always'", [true; 5]),
        ("second_read_sample_percent = 100", [true; 5]),
    ] {
        let config = rule(text);
        assert_eq!(all.map(|subject| twice(&config, subject, Call::Positive)), expected, "{text}");
    }
    let differs = rule("second_read_if_model_differs = true");
    assert!(twice(&differs, Significant, Call::Negative) && twice(&differs, Clear, Call::Positive));
    assert!(!twice(&differs, Significant, Call::Positive) && !twice(&differs, Clear, Call::Negative));
    assert!(!twice(&differs, Ambiguous, Call::Negative) && !twice(&differs, Significant, Call::Ungradable));
}

#[test]
fn a_sample_is_of_the_size_asked_and_always_the_same() {
    let sample = |percent: u32| {
        let config = config(&format!("[[rules]]\ntask = '*'\nsecond_read_sample_percent = {percent}"));
        let once = read(&item(Subject::Clear, monday(9)), &[("a", Grade::Expert, Call::Negative)]);
        let chosen = (0..4000_u32).filter(|number| {
            let id = FindingId::of(&Uid::derived("item", &[&number.to_string()]), &Sha256::of(b"1"), None);
            matches!(next_step(&config, &Item { id, ..once.clone() }), Step::Read { .. })
        });
        chosen.collect::<Vec<_>>()
    };
    assert_eq!(sample(0).len(), 0);
    assert!((320..480).contains(&sample(10).len()), "{}", sample(10).len());
    // A larger sample holds the smaller one.
    let (ten, twenty) = (sample(10), sample(20));
    assert!(ten.iter().all(|number| twenty.contains(number)));
}

#[test]
fn a_readers_list_holds_what_the_reader_may_read_in_order() {
    let config = config(ROOM);
    let [expert, senior, _, trained, thyroid] = config.readers() else { panic!("five readers") };
    let now = monday(9);
    let mut items = [Subject::Clear, Subject::Significant, Subject::Ungradable].map(|subject| item(subject, now));
    items[0].id = FindingId::of(&Uid::derived("item", &["2"]), &Sha256::of(b"2"), None);
    let list = |reader, items: &[Item], now| {
        worklist_of(&config, reader, items, now).iter().map(|place| place.index).collect::<Vec<_>>()
    };
    assert_eq!(list(senior, &items, now), [1, 2, 0]);
    assert_eq!(list(trained, &items, now), [2, 0]);
    assert!(list(thyroid, &items, now).is_empty());
    items[2] = read(&items[2], &[("Senior-B", Grade::Senior, Call::Ungradable)]);
    // Settled by one reading: in nobody's list.
    assert_eq!(list(senior, &items, now), [1, 0]);
    // Off duty is no reason to refuse someone who is there.
    assert_eq!(list(expert, &items, monday(9)), list(expert, &items, now));
    assert!(may_read(&config, expert, &items[1], monday(30)));
}

fn any_subject() -> impl Strategy<Value = Subject> {
    prop_oneof![
        Just(Subject::Significant),
        Just(Subject::Ambiguous),
        Just(Subject::Clear),
        Just(Subject::Ungradable),
        Just(Subject::NotAnalysed),
    ]
}

fn any_call() -> impl Strategy<Value = Call> {
    prop_oneof![Just(Call::Positive), Just(Call::Negative), Just(Call::Ungradable)]
}

proptest! {
    #[test]
    fn an_item_ends_after_at_most_three_readings_by_different_people_on_duty(
        subject in any_subject(), second in 0..4_usize, sample in 0..=100_u32, calls in [any_call(), any_call(), any_call()],
        open in proptest::collection::vec(0..4_u32, 0..6), hour in 0..168_i64, waited in 0..300_i64,
    ) {
        let second = ["never", "significant", "not_clear", "always"][second];
        let rule = format!("[[rules]]\ntask = '*'\nsecond_read = '{second}'\nsecond_read_sample_percent = {sample}\n");
        let config = config(&format!("{ROOM}{rule}"));
        let now = monday(hour);
        let mut item = item(subject, UnixMicros(now.0 - waited * 60_000_000));
        for call in calls {
            match assign(&config, &item, &open, now) {
                Assignment::To { reader, index, escalated, .. } => {
                    prop_assert!(reader.duty.is_on(now) && reader.reads(&item.task));
                    prop_assert!(item.readings.iter().all(|reading| reading.reader != reader.name));
                    let full = open.get(index).is_some_and(|open| *open >= reader.open_max);
                    prop_assert!(escalated || !full);
                    prop_assert!(!escalated || is_due(&config, &item, now));
                    item.readings.push(Reading { reader: reader.name.clone(), grade: reader.grade, call });
                }
                Assignment::Waits { escalated, .. } => {
                    prop_assert_eq!(escalated, is_due(&config, &item, now));
                    return Ok(());
                }
                Assignment::Done(_) => {
                    // Never without the grade that the finding asked for.
                    let best = item.readings.iter().map(|reading| reading.grade).max();
                    prop_assert!(best >= Some(Grade::from(item.reader_grade)));
                    return Ok(());
                }
                Assignment::Anyone { .. } => prop_assert!(false, "readers are configured"),
            }
        }
        prop_assert!(matches!(next_step(&config, &item), Step::Done(_)));
        let best = item.readings.iter().map(|reading| reading.grade).max();
        prop_assert!(best >= Some(Grade::from(item.reader_grade)));
    }
}
