//! Moments as DICOM dates and times.
//! In: microseconds since 1970 and an offset from UTC. Out: DA and TM texts.
//! Promise: total; years outside 1 to 9999 are clamped to a valid date.

use fovea_core::UnixMicros;

const DAY_US: i64 = 86_400_000_000;

/// `YYYYMMDD` and `HHMMSS.FFFFFF` of `at` in a zone `offset_minutes` east of UTC.
pub fn date_and_time(at: UnixMicros, offset_minutes: i32) -> (String, String) {
    let local_us = at.0.saturating_add(i64::from(offset_minutes) * 60_000_000);
    let (year, month, day) = civil(local_us.div_euclid(DAY_US));
    let in_day = local_us.rem_euclid(DAY_US);
    let seconds = in_day / 1_000_000;
    let date = format!("{:04}{month:02}{day:02}", year.clamp(1, 9999));
    let time = format!("{:02}{:02}{:02}.{:06}", seconds / 3600, seconds / 60 % 60, seconds % 60, in_day % 1_000_000);
    (date, time)
}

/// Year, month, day of a day number counted from 1970-01-01, proleptic Gregorian calendar.
///
/// Counts in eras of 400 years that begin on 1 March, so that the leap day is the last of its year.
fn civil(day_number: i64) -> (i64, i64, i64) {
    let shifted = day_number + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_are_written_in_their_zone() {
        let at = |s: i64, zone| date_and_time(UnixMicros(s * 1_000_000 + 250_000), zone);
        assert_eq!(at(0, 0), ("19700101".into(), "000000.250000".into()));
        assert_eq!(at(951_782_399, 0), ("20000228".into(), "235959.250000".into()));
        assert_eq!(at(951_782_400, 0).0, "20000229");
        assert_eq!(at(1_709_164_800, 0).0, "20240229");
        assert_eq!(at(1_709_164_800, -60), ("20240228".into(), "230000.250000".into()));
        assert_eq!(at(1_709_164_800, 330).1, "053000.250000");
        assert_eq!(at(-1, 0).0, "19691231");
    }

    #[test]
    fn every_day_follows_the_one_before_for_eight_centuries() {
        let (mut year, mut month, mut day) = civil(-146_097);
        for number in -146_096..146_097 {
            let (y, m, d) = civil(number);
            let next_day = (y, m, d) == (year, month, day + 1);
            let next_month = (y, m, d) == (year, month + 1, 1) && day >= 28;
            let next_year = (y, m, d) == (year + 1, 1, 1) && (month, day) == (12, 31);
            assert!(next_day || next_month || next_year, "day {number}");
            (year, month, day) = (y, m, d);
        }
        assert_eq!(civil(146_096), (2369, 12, 31));
    }
}
