use super::*;
use crate::config::RawConfig;
use crate::reader::Grade;
use crate::reading::Call;
use fovea_core::{Sha256, Uid};
use proptest::prelude::*;

const MINUTE: i64 = MINUTE_US as i64;

fn id(number: u64) -> FindingId {
    FindingId::of(&Uid::derived("item", &[&number.to_string()]), &Sha256::of(b"object"), None)
}

fn item(number: u64, arrived_min: i64, priority: Priority, probability: Option<f64>) -> Item {
    let subject = match priority {
        Priority::Urgent => Subject::Significant,
        Priority::High => Subject::Ambiguous,
        Priority::Routine => Subject::Clear,
    };
    Item {
        id: id(number),
        task: "task".into(),
        arrived: UnixMicros(arrived_min * MINUTE),
        subject,
        probability,
        priority,
        reader_grade: ReaderGrade::Any,
        readings: Vec::new(),
    }
}

fn config(ageing_levels: f64, due_at_percent: u32) -> Config {
    Config::try_from(RawConfig { ageing_levels, due_at_percent, ..RawConfig::default() }).unwrap()
}

fn indexes(config: &Config, items: &[Item], now_min: i64) -> Vec<usize> {
    order(config, items, UnixMicros(now_min * MINUTE)).iter().map(|place| place.index).collect()
}

#[test]
fn bands_go_before_certainty_and_certainty_before_arrival() {
    use Priority::{High, Routine, Urgent};
    let items = [
        item(0, 0, Routine, Some(0.1)),
        item(1, 0, High, None),
        item(2, 0, High, Some(1.0)),
        item(3, 0, Urgent, Some(0.4)),
        item(4, 0, Urgent, Some(0.9)),
        item(5, 0, Routine, None),
        item(6, -1, Urgent, Some(0.9)),
    ];
    assert_eq!(indexes(&config(0.0, 100), &items, 1), [6, 4, 3, 2, 1, 0, 5]);
}

#[test]
fn what_is_due_goes_first_by_its_deadline_not_by_its_band() {
    use Priority::{High, Routine, Urgent};
    // Due after 45, 90 and 180 minutes; deadlines at 60, 120 and 240.
    let items = [
        item(0, 100, Urgent, Some(1.0)),
        item(1, 0, Routine, Some(0.0)),
        item(2, 89, High, Some(0.3)),
        item(3, 134, Urgent, Some(0.5)),
        item(4, 136, Urgent, Some(0.9)),
    ];
    // At minute 180: 0 is past its deadline (160), 3 is due until 194, 2 until 209, 1 until 240; 4 is not due.
    assert_eq!(indexes(&config(1.0, 75), &items, 180), [0, 3, 2, 1, 4]);
    // A minute before, the routine item is not due yet, and stands last.
    assert_eq!(indexes(&config(1.0, 75), &items, 179), [0, 3, 2, 4, 1]);
}

#[test]
fn the_reason_is_said_in_words() {
    let config = config(1.0, 75);
    let why = |item: &Item, now_min: i64| Why::of(&config, item, UnixMicros(now_min * MINUTE + 59_000_000)).to_string();
    let urgent = item(0, 0, Priority::Urgent, Some(0.9));
    assert_eq!(why(&urgent, 12), "significant, waiting 12 min");
    assert_eq!(why(&urgent, 45), "significant, waiting 45 min of at most 1 h");
    assert_eq!(why(&urgent, 61), "significant, waiting 1 h 1 min, past the limit of 1 h");
    let ungradable = Item { subject: Subject::Ungradable, ..item(1, 0, Priority::High, None) };
    assert_eq!(why(&ungradable, 0), "ungradable, waiting 0 min");
    // A clock that was set back makes nobody wait a negative time.
    assert_eq!(why(&ungradable, -7), "ungradable, waiting 0 min");
    let reading = |call| Reading { reader: "a".into(), grade: Grade::Senior, call };
    let second = Item { readings: vec![reading(Call::Positive)], ..item(2, 0, Priority::High, Some(0.3)) };
    assert_eq!(why(&second, 60), "second reading, ambiguous, waiting 1 h");
    let third = Item { readings: vec![reading(Call::Positive), reading(Call::Negative)], ..second };
    assert_eq!(why(&third, 60), "two readers differ, ambiguous, waiting 1 h");
    let routine = Item { subject: Subject::NotAnalysed, ..item(3, 0, Priority::Routine, None) };
    assert_eq!(why(&routine, 180), "not analysed, waiting 3 h of at most 4 h");
}

#[test]
fn ten_thousand_items_have_ten_thousand_places() {
    let priority = |number: u64| [Priority::Routine, Priority::High, Priority::Urgent][(number % 3) as usize];
    let items: Vec<Item> = (0..10_000)
        .map(|number| {
            item(number, (number * 7919 % 300) as i64, priority(number), Some((number * 31 % 97) as f64 / 97.0))
        })
        .collect();
    let mut places = Vec::new();
    let times = std::array::from_fn::<_, 9, _>(|_| {
        let started = std::time::Instant::now();
        places = indexes(&Config::default(), &items, 300);
        started.elapsed()
    });
    // Seen with --nocapture; no machine's speed is asserted.
    println!("10,000 items ordered: fastest of 9 {:?}", times.iter().min());
    places.sort_unstable();
    assert!(places.into_iter().eq(0..10_000));
}

fn any_priority() -> impl Strategy<Value = Priority> {
    prop_oneof![Just(Priority::Routine), Just(Priority::High), Just(Priority::Urgent)]
}

fn any_item() -> impl Strategy<Value = Item> {
    // Few ids, moments and probabilities, so that ties are common; and the ends of time and of numbers.
    let arrived = prop_oneof![(0..300_i64).prop_map(|minute| minute * MINUTE), any::<i64>()];
    let probability = prop_oneof![
        Just(None),
        (0..4_u8).prop_map(|quarter| Some(f64::from(quarter) / 4.0)),
        any::<f64>().prop_map(Some),
    ];
    (0..40_u64, arrived, any_priority(), probability).prop_map(|(number, arrived, priority, probability)| Item {
        arrived: UnixMicros(arrived),
        ..item(number, 0, priority, probability)
    })
}

fn any_config() -> impl Strategy<Value = Config> {
    (0.0..=2.0, 50..=100_u32).prop_map(|(ageing_levels, due_at_percent)| config(ageing_levels, due_at_percent))
}

/// What identifies a place whatever index the item had.
fn key(items: &[Item], place: &Place) -> (FindingId, UnixMicros, u64, Priority, Why) {
    let item = &items[place.index];
    (item.id.clone(), item.arrived, item.probability.unwrap_or(-1.0).to_bits(), item.priority, place.why)
}

proptest! {
    #[test]
    fn the_order_is_total_and_does_not_hang_on_the_order_of_the_input(
        config in any_config(), items in proptest::collection::vec(any_item(), 0..60), now in 0..400_i64, turn in 0..60_usize,
    ) {
        // One item a finding, as a list of open findings has.
        let mut items = items;
        items.sort_by(|one, other| one.id.cmp(&other.id));
        items.dedup_by(|one, other| one.id == other.id);
        let now = UnixMicros(now * MINUTE);
        let places = order(&config, &items, now);
        let mut seen: Vec<usize> = places.iter().map(|place| place.index).collect();
        seen.sort_unstable();
        prop_assert!(seen.into_iter().eq(0..items.len()));
        prop_assert_eq!(&order(&config, &items, now), &places);
        let mut turned = items.clone();
        turned.reverse();
        turned.rotate_left(turn.checked_rem(items.len()).unwrap_or(0));
        let keys: Vec<_> = places.iter().map(|place| key(&items, place)).collect();
        let turned_keys: Vec<_> = order(&config, &turned, now).iter().map(|place| key(&turned, place)).collect();
        prop_assert_eq!(keys, turned_keys);
    }

    #[test]
    fn each_neighbour_stands_right(
        config in any_config(), items in proptest::collection::vec(any_item(), 2..60), now in 0..400_i64,
    ) {
        let now = UnixMicros(now * MINUTE);
        for pair in order(&config, &items, now).windows(2) {
            let (first, second) = (&items[pair[0].index], &items[pair[1].index]);
            match (is_due(&config, first, now), is_due(&config, second, now)) {
                (false, second_due) => {
                    prop_assert!(!second_due);
                    let scores = (score(&config, first, now), score(&config, second, now));
                    prop_assert!(scores.0 >= scores.1);
                    if scores.0 == scores.1 {
                        prop_assert!((first.arrived, &first.id) <= (second.arrived, &second.id));
                    }
                }
                (true, false) => (),
                (true, true) => {
                    let keys = |item: &Item| (deadline(&config, item), item.arrived, item.id.clone());
                    prop_assert!(keys(first) <= keys(second));
                }
            }
        }
    }

    #[test]
    fn a_score_is_bounded_whatever_the_probability(
        config in any_config(), item in any_item(), now in any::<i64>(),
    ) {
        prop_assert!((0..=4_900_000).contains(&score(&config, &item, UnixMicros(now))));
        prop_assert!(deadline(&config, &item) >= due_from(&config, &item));
    }

    #[test]
    fn waiting_and_certainty_never_lower_a_score(
        config in any_config(), item in any_item(), now in 0..400_i64, later in 0..400_i64, low in 0.0..=1.0, high in 0.0..=1.0,
    ) {
        let at = |item: &Item, minute: i64| score(&config, item, UnixMicros(minute * MINUTE));
        prop_assert!(at(&item, now) <= at(&item, now + later));
        let (low, high): (f64, f64) = (low, high);
        let with = |probability: f64| Item { probability: Some(probability), ..item.clone() };
        prop_assert!(at(&with(low.min(high)), now) <= at(&with(low.max(high)), now));
    }

    #[test]
    fn nobody_starves_however_many_urgent_ones_keep_coming(
        config in any_config(), priority in any_priority(), ahead in 0..30_u64, new_each_min in 1..4_u64,
    ) {
        // One reader who takes a minute for each, and more urgent arrivals each minute than are read.
        let mut items: Vec<Item> = (1..=ahead).map(|number| item(number, 0, Priority::Urgent, Some(1.0))).collect();
        items.push(item(0, 0, priority, Some(0.0)));
        let mut number = ahead;
        let mut now_min = 0_i64;
        loop {
            let first = indexes(&config, &items, now_min)[0];
            if items.swap_remove(first).id == id(0) {
                break;
            }
            now_min += 1;
            for _ in 0..new_each_min {
                number += 1;
                items.push(item(number, now_min, Priority::Urgent, Some(1.0)));
            }
            // Only those with an earlier deadline can go before it: those that arrived within its longest wait, less their own.
            let limit = i64::from(config.wait_max_min(priority));
            let before = ahead + new_each_min * u64::try_from((limit - 60).max(0)).unwrap();
            prop_assert!(now_min <= limit + i64::try_from(before).unwrap() + 1, "still waiting at {now_min} min");
        }
    }
}
