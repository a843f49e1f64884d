//! When a reader is on duty: weekly local windows with a fixed offset from UTC.
//!
//! In: texts as a site writes them (`mon-fri 08:00-17:30`), an offset (`+08:00`), a moment. Out: on duty or not, and when next.
//! Promise: pure; no time zone database is asked, so where clocks are changed twice a year the offset is changed by hand.

use fovea_core::UnixMicros;

/// Windows of one reader.
pub const WINDOWS_MAX: usize = 28;
const DAY_MIN: i64 = 24 * 60;
const WEEK_MIN: i64 = 7 * DAY_MIN;
const MINUTE_US: i64 = 60_000_000;
/// 1970-01-01 was a Thursday: so many minutes after the Monday before it.
const EPOCH_IN_WEEK_MIN: i64 = 3 * DAY_MIN;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Why a text is no window or no offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DutyError {
    /// Not `day hh:mm-hh:mm` or `day-day hh:mm-hh:mm`.
    #[error("must be like \"mon-fri 08:00-17:30\"")]
    Window,
    /// Not `+hh:mm` or `-hh:mm` within 14 hours.
    #[error("must be like \"+08:00\", from -14:00 to +14:00")]
    Offset,
    /// Past [`WINDOWS_MAX`].
    #[error("has more than {WINDOWS_MAX} windows")]
    TooMany,
}

/// Minutes of a local week from Monday 00:00: from `from_min` (below a week) for `length_min` (1 to a day).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    from_min: i64,
    length_min: i64,
}

/// Duty hours of one reader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Duty {
    /// Empty: always.
    windows: Vec<Window>,
    offset_min: i64,
}

impl Duty {
    /// Reads windows and the offset they are local to. No window: always on duty. An end at or before its start is on the
    /// next day (`fri 22:00-06:00`); `24:00` is the end of the day.
    ///
    /// # Errors
    /// [`DutyError`] with the place of the window, none for the offset or the number of windows.
    pub fn new(windows: &[String], utc_offset: &str) -> Result<Self, (Option<usize>, DutyError)> {
        let offset_min = offset_min(utc_offset).ok_or((None, DutyError::Offset))?;
        if windows.len() > WINDOWS_MAX {
            return Err((None, DutyError::TooMany));
        }
        let mut read = Vec::new();
        for (place, text) in windows.iter().enumerate() {
            read.extend(days_of(text).ok_or((Some(place), DutyError::Window))?);
        }
        Ok(Self { windows: read, offset_min })
    }

    /// Whether `now` lies in a window: its start belongs to it, its end does not.
    #[must_use]
    pub fn is_on(&self, now: UnixMicros) -> bool {
        let minute = self.minute_of_week(now);
        self.windows.is_empty()
            || self.windows.iter().any(|window| (minute - window.from_min).rem_euclid(WEEK_MIN) < window.length_min)
    }

    /// The moment duty begins next, `now` itself while on duty; none where it would lie past the end of time.
    #[must_use]
    pub fn next_on(&self, now: UnixMicros) -> Option<UnixMicros> {
        if self.is_on(now) {
            return Some(now);
        }
        let minute = self.minute_of_week(now);
        let ahead_min = self.windows.iter().map(|window| (window.from_min - minute).rem_euclid(WEEK_MIN)).min()?;
        let this_minute = now.0.div_euclid(MINUTE_US);
        this_minute.checked_add(ahead_min)?.checked_mul(MINUTE_US).map(UnixMicros)
    }

    fn minute_of_week(&self, now: UnixMicros) -> i64 {
        // Far from overflow: a moment in minutes is below 2^38.
        (now.0.div_euclid(MINUTE_US) + self.offset_min + EPOCH_IN_WEEK_MIN).rem_euclid(WEEK_MIN)
    }
}

/// `mon-fri 08:00-17:30` as one window a day. `sat-mon` runs over the end of the week.
fn days_of(text: &str) -> Option<Vec<Window>> {
    let (days, hours) = text.split_once(' ')?;
    let (from, to) = hours.split_once('-')?;
    let (from, to) = (clock_min(from)?, clock_min(to)?);
    let length_min = if to > from { to - from } else { to + DAY_MIN - from };
    if from == DAY_MIN || length_min == 0 {
        return None;
    }
    let (first, last) = days.split_once('-').unwrap_or((days, days));
    let (first, last) = (day(first)?, day(last)?);
    let count = (last - first).rem_euclid(7);
    Some((0..=count).map(|step| Window { from_min: (first + step) % 7 * DAY_MIN + from, length_min }).collect())
}

fn day(text: &str) -> Option<i64> {
    DAYS.iter().zip(0..).find(|(name, _)| **name == text).map(|(_, number)| number)
}

/// `hh:mm`, 00:00 to 24:00.
fn clock_min(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let two_digits = |text: &str| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !two_digits(hours) || !two_digits(minutes) {
        return None;
    }
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    let total = hours * 60 + minutes;
    (minutes < 60 && total <= DAY_MIN).then_some(total)
}

/// `+hh:mm` or `-hh:mm`, at most 14 hours (the greatest offset in use).
fn offset_min(text: &str) -> Option<i64> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    clock_min(&text[1..]).filter(|minutes| *minutes <= 14 * 60).map(|minutes| sign * minutes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn duty(windows: &[&str], offset: &str) -> Duty {
        Duty::new(&windows.iter().map(ToString::to_string).collect::<Vec<_>>(), offset).unwrap()
    }

    /// Monday 2026-11-23 00:00 UTC.
    const MONDAY: i64 = 1_795_392_000;

    fn at(day: i64, hours: i64, minutes: i64) -> UnixMicros {
        UnixMicros((MONDAY + day * 86_400 + hours * 3600 + minutes * 60) * 1_000_000)
    }

    #[test]
    fn hours_are_local_and_the_end_is_outside() {
        let duty = duty(&["mon-fri 08:00-17:30", "sun 22:00-06:00"], "+08:00");
        // 08:00 at +08:00 is midnight in UTC.
        assert!(duty.is_on(at(0, 0, 0)) && !duty.is_on(UnixMicros(at(0, 0, 0).0 - 1)));
        assert!(duty.is_on(UnixMicros(at(4, 9, 30).0 - 1)) && !duty.is_on(at(4, 9, 30)));
        // Sunday 22:00 local is Sunday 14:00 UTC, and the night belongs to it.
        assert!(!duty.is_on(at(6, 13, 59)) && duty.is_on(at(6, 14, 0)) && duty.is_on(at(6, 21, 59)));
        assert!(!duty.is_on(at(6, 22, 0)));
    }

    #[test]
    fn nobody_with_windows_waits_longer_than_a_week_and_no_window_is_always() {
        assert!(duty(&[], "+00:00").is_on(at(3, 3, 3)));
        let monday = duty(&["mon 08:00-09:00"], "-05:30");
        assert_eq!(monday.next_on(at(0, 13, 29)), Some(at(0, 13, 30)));
        assert_eq!(monday.next_on(at(0, 14, 0)), Some(at(0, 14, 0)));
        assert_eq!(monday.next_on(at(0, 14, 30)), Some(at(7, 13, 30)));
        let weekend = duty(&["sat-mon 00:00-24:00"], "+00:00");
        assert_eq!([0, 1, 5, 6].map(|day| weekend.is_on(at(day, 12, 0))), [true, false, true, true]);
    }

    #[test]
    fn what_is_no_window_or_offset_is_refused() {
        for bad in [
            "",
            "mon",
            "mon 8:00-17:00",
            "mon 08:00",
            "monday 08:00-17:00",
            "mon 08:00-25:00",
            "mon 08:60-09:00",
            "mon 24:00-24:00",
            "mon  08:00-17:00",
            "mon 08:00-17:00 ",
            "mon-tue-wed 08:00-09:00",
            "mon +8:00-09:00",
        ] {
            let found = Duty::new(&["tue 01:00-02:00".into(), bad.into()], "+00:00");
            assert_eq!(found, Err((Some(1), DutyError::Window)), "{bad:?}");
        }
        for bad in ["", "8", "08:00", "+8:00", "+14:01", "+24:00", "-15:00", "\u{2212}08:00", "UTC", "+08:0\u{e9}"] {
            assert_eq!(Duty::new(&[], bad), Err((None, DutyError::Offset)), "{bad:?}");
        }
        assert_eq!(Duty::new(&vec!["mon 01:00-02:00".into(); 29], "+00:00"), Err((None, DutyError::TooMany)));
    }

    proptest! {
        #[test]
        fn duty_is_on_when_it_is_said_to_begin_and_off_until_then(now in any::<i64>(), minute in 0..1440_i64, day in 0..7_usize) {
            let from = format!("{:02}:{:02}", minute / 60, minute % 60);
            let duty = duty(&[&format!("{} {from}-{from}", DAYS[(day + 2) % 7]), &format!("{} 12:00-12:01", DAYS[day])], "+05:45");
            let Some(next) = duty.next_on(UnixMicros(now)) else { return Ok(()) };
            prop_assert!(duty.is_on(next) && next.0 >= now && next.0.saturating_sub(now) <= WEEK_MIN * MINUTE_US);
            prop_assert!(next.0 == now || !duty.is_on(UnixMicros(next.0 - 1)));
        }
    }
}
