//! The daily pattern of a signal, once it is proven.
//!
//! Model: half-hour slots of the day, each with what two points in a row reached at least and at most on its last three
//! days. The pattern counts only if it has foretold the middle of at least a day of slots clearly better than the slot
//! just before did; until then it changes nothing. A proven pattern widens what is normal: a value is unusual if it is
//! neither like the last hours nor like this time of earlier days.
//!
//! All points count, also those of a finding: what comes every day opens an incident on the first days only. A fault of
//! one day hides none of the next: an extreme is usual if two of the last three days reached it.

use serde::{Deserialize, Serialize};

use super::normal_range::Baseline;

/// Length of a slot, in ms.
const SLOT_MS: i64 = 30 * 60 * 1000;
/// A pattern may come this much earlier or later than on the days before, in ms.
const SHIFT_MS: i64 = 10 * 60 * 1000;
/// Slots of a day.
const SLOTS: usize = 48;
/// Days that are remembered.
const DAYS: usize = 3;
/// Age of a signal from which its slots are kept, in ms: signals of short life cost nothing.
const MIN_AGE_MS: i64 = SLOT_MS;
/// Forecasts that must have been compared: one day.
const MIN_FORECASTS: u32 = 48;
/// Largest error of the pattern, as a share of the error of taking the slot just before.
const MAX_ERROR_SHARE: f64 = 0.7;
/// Weight of older errors, per slot.
const ERROR_DECAY: f64 = 0.98;

/// The extremes by time of day.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Season {
    slots: Vec<Slot>,
    /// Number of the slot that is being filled, since 1970.
    open: i64,
    /// What two points in a row have reached in it: at least, at most.
    reached: Option<(f32, f32)>,
    newest: Option<f32>,
    forecasts: u32,
    /// Decayed sums of the errors of the pattern and of the slot before.
    errors: (f64, f64),
    /// Middle of the slot before.
    before: Option<f64>,
}

/// One time of the day, the newest day first.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Slot {
    lows: [f32; DAYS],
    highs: [f32; DAYS],
    days: u8,
}

impl Slot {
    fn add(&mut self, (low, high): (f32, f32)) {
        self.lows.rotate_right(1);
        self.highs.rotate_right(1);
        (self.lows[0], self.highs[0]) = (low, high);
        self.days = self.days.saturating_add(1).min(DAYS as u8);
    }

    /// Returns what at least two days have gone down to, and up to.
    fn usual(&self) -> Option<(f64, f64)> {
        let days = usize::from(self.days);
        if days < 2 {
            return None;
        }
        let second = |mut values: [f32; DAYS], from_top: bool| {
            let values = &mut values[..days];
            values.sort_unstable_by(f32::total_cmp);
            f64::from(if from_top { values[days - 2] } else { values[1] })
        };
        Some((second(self.lows, false), second(self.highs, true)))
    }

    /// Returns what the slot foretells: the middle of what is usual, or of its only day.
    fn middle(&self) -> f64 {
        let (low, high) = self.usual().unwrap_or((f64::from(self.lows[0]), f64::from(self.highs[0])));
        f64::midpoint(low, high)
    }
}

impl Season {
    /// Adds a point; creates the pattern once the signal is old enough.
    pub(super) fn add(season: &mut Option<Box<Self>>, since_ms: Option<i64>, at_ms: i64, value: f64) {
        if season.is_none() && since_ms.is_some_and(|since_ms| at_ms - since_ms >= MIN_AGE_MS) {
            *season = Some(Box::new(Self {
                slots: vec![Slot::default(); SLOTS],
                open: at_ms.div_euclid(SLOT_MS),
                reached: None,
                newest: None,
                forecasts: 0,
                errors: (0.0, 0.0),
                before: None,
            }));
        }
        let Some(season) = season else { return };
        let number = at_ms.div_euclid(SLOT_MS);
        if number != season.open {
            season.close();
            season.open = number;
        }
        let value = value as f32;
        let before = season.newest.replace(value).unwrap_or(value);
        let (low, high) = (before.max(value), before.min(value));
        let reached = season.reached.map_or((low, high), |(least, most)| (least.min(low), most.max(high)));
        season.reached = Some(reached);
    }

    fn close(&mut self) {
        let Some((low, high)) = self.reached.take() else { return };
        self.newest = None;
        let middle = f64::midpoint(f64::from(low), f64::from(high));
        let amplitude = self.amplitude();
        let slot = &mut self.slots[slot_index(self.open)];
        if let (Some(before), true) = (self.before, slot.days > 0) {
            let (pattern, plain) = self.errors;
            // A fault far beyond the pattern must not outweigh it for days.
            let error = |foretold: f64| (middle - foretold).abs().min(amplitude);
            self.errors = (pattern * ERROR_DECAY + error(slot.middle()), plain * ERROR_DECAY + error(before));
            self.forecasts = self.forecasts.saturating_add(1);
        }
        slot.add((low, high));
        self.before = Some(middle);
    }

    /// Returns the distance of the lowest and the highest usual value of the day.
    fn amplitude(&self) -> f64 {
        let usual = self.slots.iter().filter_map(Slot::usual);
        let range = usual.reduce(|(low, high), (lower, higher)| (low.min(lower), high.max(higher)));
        range.map_or(f64::INFINITY, |(low, high)| high - low)
    }

    /// Returns what is usual at this time of the day, at least and at most; `None` while there is no proven pattern.
    pub(super) fn usual(&self, at_ms: i64) -> Option<(f64, f64)> {
        let (pattern, plain) = self.errors;
        if self.forecasts < MIN_FORECASTS || pattern > MAX_ERROR_SHARE * plain {
            return None;
        }
        let near = [at_ms - SHIFT_MS, at_ms, at_ms + SHIFT_MS].map(|at_ms| slot_index(at_ms.div_euclid(SLOT_MS)));
        let usual = near.into_iter().filter_map(|index| self.slots[index].usual());
        usual.reduce(|(low, high), (lower, higher)| (low.min(lower), high.max(higher)))
    }

    /// Widens a baseline by what is normal at this time of the day.
    pub(super) fn apply(&self, plain: Baseline, at_ms: i64) -> Baseline {
        let Some((low, high)) = self.usual(at_ms) else { return plain };
        Baseline { high: plain.high.max(high), low: plain.low.min(low), ..plain }
    }
}

const fn slot_index(number: i64) -> usize {
    number.rem_euclid(SLOTS as i64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const NINE_MS: i64 = 9 * 3_600_000;

    /// Some days of a value every five minutes, by the day and the number of five minutes.
    fn season(days: i64, value: impl Fn(i64, i64) -> f64) -> Season {
        let mut season = None;
        for step in 0..days * 288 {
            Season::add(&mut season, Some(0), step * 300_000, value(step / 288, step % 288));
        }
        *season.unwrap()
    }

    #[test]
    fn a_daily_pattern_widens_what_is_normal_and_noise_does_not() {
        let plain = Baseline { center: 10.0, spread: 1.0, count: 900, high: 11.0, low: 9.0 };
        // A busy half hour every morning.
        let daily = season(3, |_, step| if (108..114).contains(&step) { 80.0 } else { 10.0 });
        assert_eq!(daily.apply(plain, NINE_MS).high, 80.0);
        assert_eq!(daily.apply(plain, NINE_MS + 2 * 3_600_000), plain);
        let noise = |day: i64, step: i64| {
            let seed = ((day * 288 + step) as u64 + 1).wrapping_mul(6_364_136_223_846_793_005);
            ((seed ^ (seed >> 29)).wrapping_mul(1_442_695_040_888_963_407) >> 40) as f64
        };
        assert_eq!(season(6, noise).apply(plain, NINE_MS), plain);
    }

    #[test]
    fn a_fault_of_one_day_hides_none_of_the_next() {
        let night = |step: i64| if step < 72 { 2.0 } else { 10.0 };
        let found = season(6, |day, step| if day == 4 && (100..130).contains(&step) { 500.0 } else { night(step) });
        assert_eq!(found.usual(NINE_MS).unwrap().1, 10.0);
        assert_eq!(found.usual(3 * 3_600_000).unwrap(), (2.0, 2.0));
    }
}
