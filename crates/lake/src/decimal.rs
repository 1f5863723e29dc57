//! Doubles as decimals: what exporters and people write is `mantissa / 10^exponent`, and packs far better so.
//!
//! Problem: 0.1 has 52 busy bits as a double and two digits as a decimal. Model (decision D5): a value is kept as
//! an integer mantissa of at most 2^53 and an exponent of at most 22, both exact as doubles, so that one division, which
//! IEEE 754 rounds correctly, gives the value back bit for bit. Multiplying by a negative power would not: 10^-1 is no
//! double. Guarantee: [`Decimal::of`] answers only where the division was tried and agreed; everything else (minus zero, NaN
//! with its payload, infinities, integers past 2^53, doubles with all their bits busy) is kept as it is.
//!
//! Neighbours pack best with one exponent, so a run of samples asks for the smallest that holds all of them.

/// Powers of ten that a double holds exactly.
pub(crate) const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];
/// Integers up to here are doubles without loss.
const MAX_MANTISSA: f64 = 9_007_199_254_740_992.0;
/// From here on doubles are whole numbers: 2^52.
const WHOLE: f64 = WHOLE_BITS as f64;
const WHOLE_BITS: u64 = 1 << 52;

/// Mantissas from here on are as long as a double.
const BUSY: u64 = 100_000_000_000_000;

/// `mantissa / 10^exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    pub(crate) mantissa: i64,
    pub(crate) exponent: u8,
}

impl Decimal {
    /// The value with this exponent, if that gives it back bit for bit.
    #[inline]
    pub(crate) fn with(value: f64, exponent: u8) -> Option<Self> {
        let power = *POWERS.get(usize::from(exponent))?;
        // NaN becomes nothing, and minus zero loses its sign: their bits tell.
        let mantissa = nearest(value * power)?;
        ((mantissa as f64 / power).to_bits() == value.to_bits()).then_some(Self { mantissa, exponent })
    }

    /// The value with the smallest exponent there is for it.
    pub(crate) fn of(value: f64) -> Option<Self> {
        // If a small exponent holds it, so does a large one, and one try tells of them all. At the largest that its size
        // allows neighbouring mantissas may be the same double, so the one below is asked first.
        let finest = finest(value)?;
        let below = finest.checked_sub(1).and_then(|exponent| Self::with(value, exponent));
        let mut found = below.or_else(|| Self::with(value, finest))?;
        while found.exponent > 0 && found.mantissa % 10 == 0 {
            found = Self { mantissa: found.mantissa / 10, exponent: found.exponent - 1 };
        }
        Some(found)
    }

    /// Whether it has as many digits as a double can, behind the point.
    const fn is_busy(self) -> bool {
        self.exponent > 0 && self.mantissa.unsigned_abs() >= BUSY
    }

    /// The value.
    #[cfg(test)]
    pub(crate) fn value(self) -> f64 {
        self.mantissa as f64 / POWERS[usize::from(self.exponent)]
    }
}

/// The nearest whole number, unless a mantissa cannot be so large. Without instructions that not every processor has
/// [`f64::round_ties_even`] is a call into the C library, which cost as much as the rest.
#[inline]
fn nearest(value: f64) -> Option<i64> {
    let size = value.abs();
    let whole = if size < WHOLE {
        // Beyond this number doubles have no room for a fraction: the sum is rounded, and its lowest bits are the number.
        ((size + WHOLE).to_bits() & (WHOLE_BITS - 1)).cast_signed()
    } else if size <= MAX_MANTISSA {
        size as i64
    } else {
        return None;
    };
    Some(if value < 0.0 { -whole } else { whole })
}

/// Stands where there is none.
const NONE: Decimal = Decimal { mantissa: 0, exponent: 0 };

/// The largest exponent with which a value of this size keeps its mantissa within bounds.
fn finest(value: f64) -> Option<u8> {
    let size = value.abs();
    if size > MAX_MANTISSA || value.is_nan() {
        return None;
    }
    Some(POWERS.partition_point(|power| size * power <= MAX_MANTISSA).saturating_sub(1) as u8)
}

/// Runs of values as decimals, one after the other: columns of a file.
#[derive(Debug, Default)]
pub(crate) struct Decimals {
    pub(crate) mantissas: Vec<i64>,
    pub(crate) exponents: Vec<i8>,
    /// Which values are decimals.
    pub(crate) found: Vec<bool>,
}

impl Decimals {
    /// Room for so many values.
    pub(crate) fn with_capacity(count: usize) -> Self {
        Self {
            mantissas: Vec::with_capacity(count),
            exponents: Vec::with_capacity(count),
            found: Vec::with_capacity(count),
        }
    }

    /// Forgets them all, and keeps their room.
    pub(crate) fn clear(&mut self) {
        self.truncate(0);
    }

    /// Adds a run of values, with the smallest exponent that holds every decimal among them as far as possible. None of them is
    /// one if most are busy in all their bits, as a computed mean is: their mantissas would be as long as the doubles themselves,
    /// and, packed beside those of the next series, would make these as long.
    pub(crate) fn push(&mut self, run: &[f64]) {
        let start = self.found.len();
        let mut exponent = 0;
        // What comes first is written again for each that is finer; most runs show their finest among the first few.
        while let Err(finer) = self.with(run, exponent) {
            self.truncate(start);
            exponent = finer;
        }
    }

    /// Adds a run with this exponent, unless a value wants a finer one.
    fn with(&mut self, run: &[f64], exponent: u8) -> Result<(), u8> {
        let start = self.found.len();
        let mut busy = 0;
        let known = self.leading(run, exponent);
        for value in &run[known..] {
            let found = match Decimal::with(*value, exponent) {
                None => Decimal::of(*value).filter(|found| !found.is_busy()),
                found => found,
            };
            match found {
                Some(finer) if finer.exponent > exponent => return Err(finer.exponent),
                Some(found) => self.add(found, true),
                None => {
                    busy += 1;
                    if busy * 2 > run.len() {
                        self.truncate(start);
                        run.iter().for_each(|_| self.add(NONE, false));
                        return Ok(());
                    }
                    self.add(NONE, false);
                }
            }
        }
        Ok(())
    }

    /// Adds those that this exponent fits up to the first that it does not: mostly all of them. Says how many.
    fn leading(&mut self, run: &[f64], exponent: u8) -> usize {
        let Some(power) = POWERS.get(usize::from(exponent)) else { return 0 };
        let start = self.found.len();
        self.mantissas.resize(start + run.len(), 0);
        let mut known = 0;
        for (slot, value) in self.mantissas[start..].iter_mut().zip(run) {
            let Some(mantissa) = nearest(value * power) else { break };
            if (mantissa as f64 / power).to_bits() != value.to_bits() {
                break;
            }
            *slot = mantissa;
            known += 1;
        }
        self.mantissas.truncate(start + known);
        self.exponents.resize(start + known, exponent as i8);
        self.found.resize(start + known, true);
        known
    }

    #[inline]
    fn add(&mut self, value: Decimal, found: bool) {
        self.mantissas.push(value.mantissa);
        self.exponents.push(value.exponent as i8);
        self.found.push(found);
    }

    fn truncate(&mut self, count: usize) {
        self.mantissas.truncate(count);
        self.exponents.truncate(count);
        self.found.truncate(count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(value: f64) -> Option<Decimal> {
        let found = Decimal::of(value);
        if let Some(found) = found {
            assert_eq!(found.value().to_bits(), value.to_bits(), "{value:e}");
            assert!(found.mantissa.unsigned_abs() <= 1 << 53 && found.exponent <= 22, "{found:?}");
        }
        found
    }

    #[test]
    fn what_people_write_is_a_decimal_and_what_is_odd_is_none() {
        for (value, mantissa, exponent) in [
            (0.0, 0, 0),
            (0.1, 1, 1),
            (0.3, 3, 1),
            (-12.75, -1275, 2),
            (1e15, 1_000_000_000_000_000, 0),
            (9_007_199_254_740_992.0, 1 << 53, 0),
            (1e-22, 1, 22),
            (0.001_234_567_890_123, 1_234_567_890_123, 15),
        ] {
            assert_eq!(check(value), Some(Decimal { mantissa, exponent }), "{value}");
        }
        let payload = f64::from_bits(0x7ff0_0000_0000_0002);
        for odd in [-0.0, f64::NAN, payload, f64::INFINITY, f64::NEG_INFINITY, 1e308, 5e-324, 9_007_199_254_740_994.0] {
            assert_eq!(check(odd), None, "{odd:e}");
        }
    }

    #[test]
    fn a_run_has_one_exponent() {
        let run = |values: &[f64]| {
            let mut all = Decimals::default();
            all.push(values);
            all.found.iter().zip(all.exponents).map(|(found, exponent)| found.then_some(exponent)).collect::<Vec<_>>()
        };
        assert_eq!(run(&[1.0, 0.5, 20.25, f64::NAN, 3.0]), [Some(2), Some(2), Some(2), None, Some(2)]);
        assert_eq!(run(&[1.0, 2.0]), [Some(0); 2]);
        assert_eq!(run(&[std::f64::consts::PI]), [None], "sixteen digits that say all of it");
        assert_eq!(
            run(&[0.1 + 0.2, 0.1, 0.5, 0.25]),
            [None, Some(2), Some(2), Some(2)],
            "one that was computed among others"
        );
        assert_eq!(run(&[9e15, 9e15 + 2.0]), [Some(0); 2], "whole numbers may be long");
        assert_eq!(run(&[9e15, 0.25]), [Some(0), Some(2)], "and are so beside fractions");
        assert_eq!(run(&[0.1, std::f64::consts::PI, std::f64::consts::E]), [None; 3], "most are busy");
    }

    proptest! {
        #[test]
        fn the_nearest_whole_number_is_the_libraries(whole in -(1_i64 << 53)..=1_i64 << 53, part in -1_f64..1.0) {
            for value in [whole as f64, whole as f64 / 2.0, part, whole as f64 / 4.0 + part] {
                prop_assert_eq!(nearest(value), Some(value.round_ties_even() as i64), "{}", value);
            }
        }

        #[test]
        fn any_bits_come_back_or_are_left_alone(bits: u64) {
            check(f64::from_bits(bits));
        }

        #[test]
        fn written_decimals_are_found(mantissa in -(1_i64 << 46)..1_i64 << 46, exponent in 0_usize..=15) {
            let value: f64 = format!("{mantissa}e-{exponent}").parse().unwrap();
            let found = check(value).unwrap();
            prop_assert!(usize::from(found.exponent) <= exponent);
        }
    }
}
