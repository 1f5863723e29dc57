//! Stores doubles as decimals `mantissa / 10^exponent` where that is exact.
//!
//! Problem: 0.1 uses 52 bits as a double and two digits as a decimal. Model: a value is stored as an integer mantissa
//! of at most 2^53 and an exponent of at most 22. Both are exact doubles, so one division, which IEEE 754 rounds
//! correctly, gives the value back bit for bit. Multiplying by a negative power would not: 10^-1 is not a double.
//! Guarantee: [`Decimal::from_f64`] returns a decimal only if the division was tried and agreed. Everything else is
//! stored as a double: -0, NaN with its payload, infinities, integers beyond 2^53, and doubles that use all their bits.
//!
//! Neighbouring values compress best with one exponent, so a run of samples uses the smallest exponent that fits all of
//! them.

/// Powers of ten that are exact doubles.
pub(crate) const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];
/// Largest mantissa: integers up to 2^53 are exact doubles.
const MAX_MANTISSA: f64 = 9_007_199_254_740_992.0;
/// 2^52: from here on doubles are integers.
const TWO_POW_52: f64 = TWO_POW_52_BITS as f64;
const TWO_POW_52_BITS: u64 = 1 << 52;

/// Mantissas from here on take as many bits as a double.
const LONG_MANTISSA: u64 = 100_000_000_000_000;

/// `mantissa / 10^exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decimal {
    pub(crate) mantissa: i64,
    pub(crate) exponent: u8,
}

impl Decimal {
    /// Returns the value with this exponent, if that is exact.
    #[inline]
    pub(crate) fn with_exponent(value: f64, exponent: u8) -> Option<Self> {
        let power = *POWERS_OF_TEN.get(usize::from(exponent))?;
        // The comparison of bits rejects NaN and -0.
        let mantissa = round_to_mantissa(value * power)?;
        ((mantissa as f64 / power).to_bits() == value.to_bits()).then_some(Self { mantissa, exponent })
    }

    /// Returns the value with the smallest exponent that is exact.
    pub(crate) fn from_f64(value: f64) -> Option<Self> {
        // If a small exponent is exact, so is a larger one, so one attempt with the largest decides. At the largest
        // exponent that the magnitude allows, neighbouring mantissas may be the same double, so the one below is tried
        // first.
        let max_exponent = max_exponent(value)?;
        let below = max_exponent.checked_sub(1).and_then(|exponent| Self::with_exponent(value, exponent));
        let mut found = below.or_else(|| Self::with_exponent(value, max_exponent))?;
        while found.exponent > 0 && found.mantissa % 10 == 0 {
            found = Self { mantissa: found.mantissa / 10, exponent: found.exponent - 1 };
        }
        Some(found)
    }

    /// Returns whether the value has a fraction and as many digits as a double can hold.
    const fn has_long_mantissa(self) -> bool {
        self.exponent > 0 && self.mantissa.unsigned_abs() >= LONG_MANTISSA
    }

    /// Converts back to a double.
    #[cfg(test)]
    pub(crate) fn value(self) -> f64 {
        self.mantissa as f64 / POWERS_OF_TEN[usize::from(self.exponent)]
    }
}

/// Rounds to the nearest integer, half to even, or returns `None` beyond [`MAX_MANTISSA`]. Without SSE 4.1
/// [`f64::round_ties_even`] is a call into the C library, which costs as much as the rest.
#[inline]
fn round_to_mantissa(value: f64) -> Option<i64> {
    let size = value.abs();
    let rounded = if size < TWO_POW_52 {
        // Adding 2^52 leaves no bits for a fraction: the sum is rounded, and its low bits are the integer.
        ((size + TWO_POW_52).to_bits() & (TWO_POW_52_BITS - 1)).cast_signed()
    } else if size <= MAX_MANTISSA {
        size as i64
    } else {
        return None;
    };
    Some(if value < 0.0 { -rounded } else { rounded })
}

/// Placeholder for a value that is not a decimal.
const PLACEHOLDER: Decimal = Decimal { mantissa: 0, exponent: 0 };

/// Returns the largest exponent that keeps the mantissa of a value within bounds.
fn max_exponent(value: f64) -> Option<u8> {
    let size = value.abs();
    if size > MAX_MANTISSA || value.is_nan() {
        return None;
    }
    Some(POWERS_OF_TEN.partition_point(|power| size * power <= MAX_MANTISSA).saturating_sub(1) as u8)
}

/// Runs of values as columns of decimals.
#[derive(Debug, Default)]
pub(crate) struct DecimalColumns {
    pub(crate) mantissas: Vec<i64>,
    pub(crate) exponents: Vec<i8>,
    /// Whether each value is a decimal.
    pub(crate) is_decimal: Vec<bool>,
}

impl DecimalColumns {
    /// Allocates the columns for this number of values.
    pub(crate) fn with_capacity(count: usize) -> Self {
        Self {
            mantissas: Vec::with_capacity(count),
            exponents: Vec::with_capacity(count),
            is_decimal: Vec::with_capacity(count),
        }
    }

    /// Removes all values and keeps the allocations.
    pub(crate) fn clear(&mut self) {
        self.truncate(0);
    }

    /// Appends a run of values with the smallest exponent that fits the decimals among them. If most values need long
    /// mantissas, as computed means do, the whole run is stored as doubles: the mantissas would be as long as doubles
    /// and would widen the deltas of the next series in the same block.
    pub(crate) fn push(&mut self, run: &[f64]) {
        let start = self.is_decimal.len();
        let mut exponent = 0;
        // A larger exponent restarts the run; most runs need their largest exponent within the first few values.
        while let Err(finer) = self.try_push(run, exponent) {
            self.truncate(start);
            exponent = finer;
        }
    }

    /// Appends a run with this exponent, or returns the larger exponent that a value needs.
    fn try_push(&mut self, run: &[f64], exponent: u8) -> Result<(), u8> {
        let start = self.is_decimal.len();
        let mut long_mantissas = 0;
        let exact_count = self.push_leading(run, exponent);
        for value in &run[exact_count..] {
            let decimal = match Decimal::with_exponent(*value, exponent) {
                None => Decimal::from_f64(*value).filter(|decimal| !decimal.has_long_mantissa()),
                exact => exact,
            };
            match decimal {
                Some(finer) if finer.exponent > exponent => return Err(finer.exponent),
                Some(decimal) => self.push_one(decimal, true),
                None => {
                    long_mantissas += 1;
                    if long_mantissas * 2 > run.len() {
                        self.truncate(start);
                        run.iter().for_each(|_| self.push_one(PLACEHOLDER, false));
                        return Ok(());
                    }
                    self.push_one(PLACEHOLDER, false);
                }
            }
        }
        Ok(())
    }

    /// Appends values while this exponent is exact for them, usually all, and returns their number.
    fn push_leading(&mut self, run: &[f64], exponent: u8) -> usize {
        let Some(power) = POWERS_OF_TEN.get(usize::from(exponent)) else { return 0 };
        let start = self.is_decimal.len();
        self.mantissas.resize(start + run.len(), 0);
        let mut exact_count = 0;
        for (slot, value) in self.mantissas[start..].iter_mut().zip(run) {
            let Some(mantissa) = round_to_mantissa(value * power) else { break };
            if (mantissa as f64 / power).to_bits() != value.to_bits() {
                break;
            }
            *slot = mantissa;
            exact_count += 1;
        }
        self.mantissas.truncate(start + exact_count);
        self.exponents.resize(start + exact_count, exponent as i8);
        self.is_decimal.resize(start + exact_count, true);
        exact_count
    }

    #[inline]
    fn push_one(&mut self, value: Decimal, is_decimal: bool) {
        self.mantissas.push(value.mantissa);
        self.exponents.push(value.exponent as i8);
        self.is_decimal.push(is_decimal);
    }

    fn truncate(&mut self, count: usize) {
        self.mantissas.truncate(count);
        self.exponents.truncate(count);
        self.is_decimal.truncate(count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(value: f64) -> Option<Decimal> {
        let found = Decimal::from_f64(value);
        if let Some(found) = found {
            assert_eq!(found.value().to_bits(), value.to_bits(), "{value:e}");
            assert!(found.mantissa.unsigned_abs() <= 1 << 53 && found.exponent <= 22, "{found:?}");
        }
        found
    }

    #[test]
    fn converts_decimal_literals_and_rejects_inexact_values() {
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
        for inexact in
            [-0.0, f64::NAN, payload, f64::INFINITY, f64::NEG_INFINITY, 1e308, 5e-324, 9_007_199_254_740_994.0]
        {
            assert_eq!(check(inexact), None, "{inexact:e}");
        }
    }

    #[test]
    fn uses_one_exponent_per_run() {
        let run = |values: &[f64]| {
            let mut all = DecimalColumns::default();
            all.push(values);
            all.is_decimal
                .iter()
                .zip(all.exponents)
                .map(|(is_decimal, exponent)| is_decimal.then_some(exponent))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(&[1.0, 0.5, 20.25, f64::NAN, 3.0]), [Some(2), Some(2), Some(2), None, Some(2)]);
        assert_eq!(run(&[1.0, 2.0]), [Some(0); 2]);
        assert_eq!(run(&[std::f64::consts::PI]), [None], "sixteen digits");
        assert_eq!(
            run(&[0.1 + 0.2, 0.1, 0.5, 0.25]),
            [None, Some(2), Some(2), Some(2)],
            "one computed value among others"
        );
        assert_eq!(run(&[9e15, 9e15 + 2.0]), [Some(0); 2], "integers may be long");
        assert_eq!(run(&[9e15, 0.25]), [Some(0), Some(2)], "also beside fractions");
        assert_eq!(run(&[0.1, std::f64::consts::PI, std::f64::consts::E]), [None; 3], "most need long mantissas");
    }

    proptest! {
        #[test]
        fn rounds_like_the_standard_library(whole in -(1_i64 << 53)..=1_i64 << 53, part in -1_f64..1.0) {
            for value in [whole as f64, whole as f64 / 2.0, part, whole as f64 / 4.0 + part] {
                prop_assert_eq!(round_to_mantissa(value), Some(value.round_ties_even() as i64), "{}", value);
            }
        }

        #[test]
        fn any_decimal_is_exact(bits: u64) {
            check(f64::from_bits(bits));
        }

        #[test]
        fn finds_decimal_literals(mantissa in -(1_i64 << 46)..1_i64 << 46, exponent in 0_usize..=15) {
            let value: f64 = format!("{mantissa}e-{exponent}").parse().unwrap();
            let found = check(value).unwrap();
            prop_assert!(usize::from(found.exponent) <= exponent);
        }
    }
}
