//! Times as Kafka's tools write them. Unlike theirs they are always UTC's, as in the log of a node.

use std::time::{SystemTime, UNIX_EPOCH};

const MS_PER_DAY: i64 = 24 * 60 * 60 * 1000;
/// Days of 400 years, after which the calendar repeats itself.
const DAYS_PER_ERA: i64 = 146_097;
/// From the first of March of year 0, with which the calendar's arithmetic begins, to 1970.
const DAYS_TO_1970: i64 = 719_468;

/// `2026-11-22 05:25:06,990`.
pub fn date_time(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
    let (year, month, day) = date(ms / MS_PER_DAY);
    let ms = ms % MS_PER_DAY;
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02},{:03}", ms % 1000)
}

/// Year, month and day. Years are counted from March here, so that the leap day is their last.
fn date(days_since_1970: i64) -> (i64, i64, i64) {
    let days = days_since_1970 + DAYS_TO_1970;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_to_the_millisecond() {
        for (ms, expected) in [
            (0, "1970-01-01 00:00:00,000"),
            (951_782_399_999, "2000-02-28 23:59:59,999"),
            (951_782_400_000, "2000-02-29 00:00:00,000"),
            (1_709_251_199_001, "2024-02-29 23:59:59,001"),
            (1_795_325_106_990, "2026-11-22 05:25:06,990"),
            (4_107_542_400_000, "2100-03-01 00:00:00,000"),
        ] {
            assert_eq!(date_time(UNIX_EPOCH + Duration::from_millis(ms)), expected);
        }
    }
}
