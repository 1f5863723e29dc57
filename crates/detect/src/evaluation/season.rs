//! The daily pattern of a signal, once it is proven.
//!
//! Model: half-hour slots of the day, each with its mean over the days. The pattern counts only if it has foretold the
//! means of at least a day of slots clearly better than the value just before did; until then it changes nothing. A
//! proven pattern widens what is normal: a value is unusual if it is neither like the last hour nor like this time of
//! earlier days.

use serde::{Deserialize, Serialize};

use super::normal_range::Baseline;

/// Length of a slot, in ms.
const SLOT_MS: i64 = 30 * 60 * 1000;
/// Slots of a day.
const SLOTS: usize = 48;
/// Age of a signal from which its slots are kept, in ms: signals of short life cost nothing.
const MIN_AGE_MS: i64 = SLOT_MS;
/// Weight of the newest day in the mean of a slot.
const NEWEST_DAY_WEIGHT: f32 = 0.3;
/// Forecasts that must have been compared: one day.
const MIN_FORECASTS: u32 = 48;
/// Largest error of the pattern, as a share of the error of taking the value just before.
const MAX_ERROR_SHARE: f64 = 0.7;
/// Weight of older errors, per slot.
const ERROR_DECAY: f64 = 0.98;

/// The means by time of day.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Season {
    slots: Vec<Slot>,
    open: i64,
    sum: f64,
    count: u32,
    forecasts: u32,
    /// Decayed sums of the errors of the pattern and of the value before.
    errors: (f64, f64),
    before: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Slot {
    mean: f32,
    error: f32,
    days: u8,
}

impl Season {
    /// Adds a good point; creates the pattern once the signal is old enough.
    pub(super) fn add(season: &mut Option<Box<Self>>, since_ms: Option<i64>, at_ms: i64, value: f64, center: f64) {
        if season.is_none() && since_ms.is_some_and(|since_ms| at_ms - since_ms >= MIN_AGE_MS) {
            *season = Some(Box::new(Self {
                slots: vec![Slot::default(); SLOTS],
                open: at_ms.div_euclid(SLOT_MS),
                sum: 0.0,
                count: 0,
                forecasts: 0,
                errors: (0.0, 0.0),
                before: Some(center),
            }));
        }
        let Some(season) = season else { return };
        let number = at_ms.div_euclid(SLOT_MS);
        if number != season.open {
            season.close();
            season.open = number;
        }
        season.sum += value;
        season.count += 1;
    }

    fn close(&mut self) {
        if self.count == 0 {
            return;
        }
        let mean = self.sum / f64::from(self.count);
        let index = slot_index(self.open);
        let slot = &mut self.slots[index];
        if let (Some(before), true) = (self.before, slot.days > 0) {
            let (pattern, plain) = self.errors;
            let error = (mean - f64::from(slot.mean)).abs();
            self.errors = (pattern * ERROR_DECAY + error, plain * ERROR_DECAY + (mean - before).abs());
            self.forecasts = self.forecasts.saturating_add(1);
            slot.error += NEWEST_DAY_WEIGHT * (error as f32 - slot.error);
            slot.mean += NEWEST_DAY_WEIGHT * (mean as f32 - slot.mean);
        } else {
            slot.mean = mean as f32;
        }
        slot.days = slot.days.saturating_add(1);
        (self.before, self.sum, self.count) = (Some(mean), 0.0, 0);
    }

    /// Widens a baseline by what is normal at this time of the day.
    pub(super) fn apply(&self, plain: Baseline, at_ms: i64) -> Baseline {
        let slot = self.slots[slot_index(at_ms.div_euclid(SLOT_MS))];
        let (pattern, past) = self.errors;
        if self.forecasts < MIN_FORECASTS || slot.days < 2 || pattern > MAX_ERROR_SHARE * past {
            return plain;
        }
        let mean = f64::from(slot.mean);
        Baseline {
            spread: plain.spread.max(f64::from(slot.error)),
            high: plain.high.max(mean),
            low: plain.low.min(mean),
            ..plain
        }
    }
}

const fn slot_index(number: i64) -> usize {
    number.rem_euclid(SLOTS as i64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Six days of a value every five minutes.
    fn season(value: impl Fn(i64) -> f64) -> Season {
        let mut season = None;
        for step in 0..6 * 288 {
            Season::add(&mut season, Some(0), step * 300_000, value(step % 288), value(0));
        }
        *season.unwrap()
    }

    #[test]
    fn a_daily_pattern_widens_what_is_normal_and_noise_does_not() {
        let plain = Baseline { center: 10.0, spread: 1.0, count: 900, high: 11.0, low: 9.0 };
        let nine = 9 * 3_600_000;
        // A busy half hour every morning.
        let daily = season(|step| if (108..114).contains(&step) { 80.0 } else { 10.0 });
        assert_eq!(daily.apply(plain, nine).high, 80.0);
        assert_eq!(daily.apply(plain, nine + 2 * 3_600_000), plain);
        let mut noise = 1_u64;
        let mut season = None;
        for step in 0..6 * 288 {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Season::add(&mut season, Some(0), step * 300_000, (noise >> 40) as f64, 0.0);
        }
        assert_eq!(season.unwrap().apply(plain, nine), plain);
    }
}
