//! When a line may be used, and how much of it: time windows by lane, bytes a second, bytes a day.
//!
//! In: what a site wrote, the clock. Out: open or not, and when next. Promise: findings are never held up by a budget, and by
//! hours only where somebody wrote so; no time zone database is asked, so where clocks are changed twice a year
//! the offset is changed by hand.
//!
//! The budget is spent object by object: one goes at the speed of the line, and the next waits until it is paid. So a finding never
//! waits behind a throttled image, and over time the line carries what was asked.

use fovea_core::{Lane, UnixMicros};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;

const MINUTE_US: i64 = 60_000_000;
const DAY_MIN: i64 = 24 * 60;
/// Windows of one lane.
const WINDOWS_MAX: usize = 16;
/// Slowest line that is worth a budget: a report a second.
const BYTES_PER_SECOND_MIN: u64 = 1_000;

/// `[sync.destination.hours]` as written: local windows such as `"20:00-06:00"`; a lane without any is always open.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawHours {
    /// Of urgent findings.
    pub urgent_findings: Vec<String>,
    /// Of other findings.
    pub findings: Vec<String>,
    /// Of key images.
    pub key_images: Vec<String>,
    /// Of images.
    pub pixels: Vec<String>,
    /// What the windows are local to, for instance `"+08:00"`; needed where there is a window.
    pub utc_offset: Option<String>,
}

/// `[sync.destination.budget]` as written. Findings count and are not held up.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawBudget {
    /// On average.
    pub bytes_per_second: Option<u64>,
    /// From one local midnight to the next (`utc_offset` of the hours, else UTC).
    pub bytes_per_day: Option<u64>,
}

/// Minutes of a local day; a window whose end is not after its start runs over midnight.
#[derive(Clone, Copy, Debug)]
struct Window {
    from_min: i64,
    length_min: i64,
}

/// Checked hours.
#[derive(Clone, Debug, Default)]
pub struct Hours {
    lanes: [Vec<Window>; 4],
    offset_min: i64,
}

impl Hours {
    /// The error names the key.
    pub(crate) fn new(raw: RawHours) -> Result<Self, (&'static str, &'static str)> {
        let lanes = [
            ("hours.urgent_findings", raw.urgent_findings),
            ("hours.findings", raw.findings),
            ("hours.key_images", raw.key_images),
            ("hours.pixels", raw.pixels),
        ];
        if raw.utc_offset.is_none() && lanes.iter().any(|(_, texts)| !texts.is_empty()) {
            return Err((
                "hours.utc_offset",
                "is needed to know what the windows are local to, for instance \"+08:00\"",
            ));
        }
        let offset = raw.utc_offset.as_deref().unwrap_or("+00:00");
        let offset_min =
            offset_min(offset).ok_or(("hours.utc_offset", "must be like \"+08:00\", from -14:00 to +14:00"))?;
        let mut checked = Self { lanes: Default::default(), offset_min };
        for (lane, (key, texts)) in checked.lanes.iter_mut().zip(lanes) {
            let windows: Option<Vec<Window>> = texts.iter().map(|text| window(text)).collect();
            *lane = windows
                .filter(|windows| windows.len() <= WINDOWS_MAX)
                .ok_or((key, "must be at most 16 windows like \"20:00-06:00\""))?;
        }
        Ok(checked)
    }

    fn minute_of_day(&self, now: UnixMicros) -> i64 {
        (now.0.div_euclid(MINUTE_US) + self.offset_min).rem_euclid(DAY_MIN)
    }

    /// The local day, counted from some day.
    fn day(&self, now: UnixMicros) -> i64 {
        (now.0.div_euclid(MINUTE_US) + self.offset_min).div_euclid(DAY_MIN)
    }

    fn until_midnight(&self, now: UnixMicros) -> Duration {
        self.until_minute(now, DAY_MIN - self.minute_of_day(now))
    }

    /// `ahead_min` whole minutes after the start of this one.
    fn until_minute(&self, now: UnixMicros, ahead_min: i64) -> Duration {
        let into_minute_us = now.0.rem_euclid(MINUTE_US);
        Duration::from_micros(u64::try_from(ahead_min * MINUTE_US - into_minute_us).unwrap_or(0))
    }

    /// How long until objects of this lane may go: none when they may now.
    pub(crate) fn opens_in(&self, lane: Lane, now: UnixMicros) -> Option<Duration> {
        let (windows, minute) = (&self.lanes[lane as usize], self.minute_of_day(now));
        let is_open = |window: &Window| (minute - window.from_min).rem_euclid(DAY_MIN) < window.length_min;
        if windows.is_empty() || windows.iter().any(is_open) {
            return None;
        }
        let ahead_min = windows.iter().map(|window| (window.from_min - minute).rem_euclid(DAY_MIN)).min()?;
        Some(self.until_minute(now, ahead_min))
    }
}

/// `hh:mm-hh:mm`, 00:00 to 24:00.
fn window(text: &str) -> Option<Window> {
    let (from, to) = text.split_once('-')?;
    let (from_min, to_min) = (clock_min(from)?, clock_min(to)?);
    let length_min = if to_min > from_min { to_min - from_min } else { to_min + DAY_MIN - from_min };
    (from_min < DAY_MIN && from_min != to_min).then_some(Window { from_min, length_min })
}

fn clock_min(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let two_digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    let (hours, minutes): (i64, i64) = match two_digits(hours) && two_digits(minutes) {
        true => (hours.parse().ok()?, minutes.parse().ok()?),
        false => return None,
    };
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= DAY_MIN).then_some(total)
}

/// `+hh:mm` or `-hh:mm`.
fn offset_min(text: &str) -> Option<i64> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let minutes = clock_min(text.get(1..)?)?;
    (minutes <= 14 * 60).then_some(sign * minutes)
}

/// Checked budget.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    bytes_per_second: Option<u64>,
    bytes_per_day: Option<u64>,
}

impl Budget {
    /// The error names the key.
    pub(crate) fn new(raw: RawBudget) -> Result<Self, (&'static str, &'static str)> {
        if raw.bytes_per_second.is_some_and(|rate| rate < BYTES_PER_SECOND_MIN) {
            return Err(("budget.bytes_per_second", "must be 1000 or more"));
        }
        if raw.bytes_per_day == Some(0) {
            return Err(("budget.bytes_per_day", "must not be 0"));
        }
        Ok(Self { bytes_per_second: raw.bytes_per_second, bytes_per_day: raw.bytes_per_day })
    }

    /// Whether what was sent today must be known.
    pub(crate) fn counts_days(&self) -> bool {
        self.bytes_per_day.is_some()
    }
}

/// What was spent of a budget.
#[derive(Debug)]
pub(crate) struct Purse {
    budget: Budget,
    hours: Hours,
    /// When all that was sent is paid.
    paid_at: Instant,
    day: i64,
    spent_today: u64,
}

impl Purse {
    pub(crate) fn new(budget: Budget, hours: Hours, now: UnixMicros) -> Self {
        let day = hours.day(now);
        Self { budget, hours, paid_at: Instant::now(), day, spent_today: 0 }
    }

    /// Whether a moment lies in the local day that `now` is in.
    pub(crate) fn is_today(&self, at: UnixMicros, now: UnixMicros) -> bool {
        self.hours.day(at) == self.hours.day(now)
    }

    /// What an earlier run sent today.
    pub(crate) fn spent_before(&mut self, bytes: u64) {
        self.spent_today = self.spent_today.saturating_add(bytes);
    }

    /// So many bytes went, or were tried.
    pub(crate) fn spend(&mut self, bytes: u64, now: UnixMicros) {
        self.turn_day(now);
        self.spent_today = self.spent_today.saturating_add(bytes);
        if let Some(rate) = self.budget.bytes_per_second {
            let micros = u128::from(bytes) * 1_000_000 / u128::from(rate);
            let owed = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
            let begins = self.paid_at.max(Instant::now());
            self.paid_at = begins.checked_add(owed).unwrap_or(begins);
        }
    }

    fn turn_day(&mut self, now: UnixMicros) {
        let day = self.hours.day(now);
        if day != self.day {
            (self.day, self.spent_today) = (day, 0);
        }
    }

    /// How long until an object of this lane may go: none when it may now.
    pub(crate) fn opens_in(&mut self, lane: Lane, now: UnixMicros) -> Option<Duration> {
        self.turn_day(now);
        let closed = self.hours.opens_in(lane, now);
        if closed.is_some() || matches!(lane, Lane::UrgentFindings | Lane::Findings) {
            return closed;
        }
        if self.budget.bytes_per_day.is_some_and(|most| self.spent_today >= most) {
            return Some(self.hours.until_midnight(now));
        }
        let unpaid = self.paid_at.saturating_duration_since(Instant::now());
        (!unpaid.is_zero()).then_some(unpaid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64, hour: i64, minute: i64, second: i64) -> UnixMicros {
        UnixMicros((((day * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000)
    }

    fn nights() -> Hours {
        let raw =
            RawHours { pixels: vec!["20:00-06:00".into()], utc_offset: Some("+08:00".into()), ..RawHours::default() };
        Hours::new(raw).unwrap()
    }

    #[test]
    fn pixels_go_at_night_of_the_place_and_findings_at_any_hour() {
        let hours = nights();
        // 20:00 at +08:00 is 12:00 UTC.
        assert_eq!(hours.opens_in(Lane::Pixels, at(5, 11, 59, 59)), Some(Duration::from_secs(1)));
        assert_eq!(hours.opens_in(Lane::Pixels, at(5, 12, 0, 0)), None);
        assert_eq!(hours.opens_in(Lane::Pixels, at(5, 21, 59, 59)), None);
        assert_eq!(hours.opens_in(Lane::Pixels, at(5, 22, 0, 0)), Some(Duration::from_secs(14 * 3600)));
        for hour in 0..24 {
            assert_eq!(hours.opens_in(Lane::Findings, at(5, hour, 30, 0)), None);
        }
    }

    #[test]
    fn wrong_windows_are_refused_by_their_key() {
        for text in ["20-06", "20:00", "24:00-06:00", "06:00-06:00", "25:00-26:00", "aa:bb-cc:dd"] {
            let raw = RawHours { pixels: vec![text.into()], utc_offset: Some("+00:00".into()), ..RawHours::default() };
            assert_eq!(Hours::new(raw).unwrap_err().0, "hours.pixels", "{text}");
        }
        let raw = RawHours { pixels: vec!["20:00-06:00".into()], ..RawHours::default() };
        assert_eq!(Hours::new(raw).unwrap_err().0, "hours.utc_offset");
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_carries_what_the_budget_says_and_findings_do_not_wait_for_it() {
        let budget = Budget::new(RawBudget { bytes_per_second: Some(10_000), bytes_per_day: None }).unwrap();
        let now = at(0, 0, 0, 0);
        let mut purse = Purse::new(budget, Hours::default(), now);
        assert_eq!(purse.opens_in(Lane::Pixels, now), None);
        purse.spend(50_000, now);
        assert_eq!(purse.opens_in(Lane::Findings, now), None);
        purse.spend(10_000, now);
        assert_eq!(purse.opens_in(Lane::KeyImages, now), Some(Duration::from_secs(6)));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(purse.opens_in(Lane::Pixels, now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_day_that_is_spent_ends_at_local_midnight() {
        let budget = Budget::new(RawBudget { bytes_per_second: None, bytes_per_day: Some(1_000) }).unwrap();
        let hours = Hours::new(RawHours { utc_offset: Some("+08:00".into()), ..RawHours::default() }).unwrap();
        // 15:00 UTC is 23:00 there.
        let mut purse = Purse::new(budget, hours, at(5, 15, 0, 0));
        purse.spent_before(999);
        assert_eq!(purse.opens_in(Lane::Pixels, at(5, 15, 0, 0)), None);
        purse.spend(1, at(5, 15, 0, 0));
        assert_eq!(purse.opens_in(Lane::Pixels, at(5, 15, 0, 0)), Some(Duration::from_secs(3600)));
        assert_eq!(purse.opens_in(Lane::Findings, at(5, 15, 0, 0)), None);
        assert_eq!(purse.opens_in(Lane::Pixels, at(5, 16, 0, 0)), None, "a new day");
    }
}
