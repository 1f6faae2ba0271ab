//! Magnitude: a number by its value, whatever its spelling and however many digits it has.
//!
//! Comparing, sorting and naming records all read numbers here, so that two spellings are one
//! number everywhere or nowhere.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::limits::PLAIN_DIGITS_MAX;
use crate::value::Number;

/// A number so that it can be compared exactly: equal numbers are equal, and the order is theirs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Magnitude {
    negative: bool,
    /// How many digits stand before the point, where the first one is not zero.
    scale: i64,
    /// Without zeros at either end; empty for zero.
    digits: String,
}

impl Ord for Magnitude {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |n: &Self| match (n.digits.is_empty(), n.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        sign(self).cmp(&sign(other)).then_with(|| {
            let size = self.scale.cmp(&other.scale).then_with(|| self.digits.cmp(&other.digits));
            if self.negative { size.reverse() } else { size }
        })
    }
}

impl PartialOrd for Magnitude {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Magnitude {
    /// Reads a number.
    pub(crate) fn of(number: &Number) -> Self {
        let (negative, unsigned) = match number.as_str().strip_prefix('-') {
            Some(unsigned) => (true, unsigned),
            None => (false, number.as_str()),
        };
        let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        // Zeros at either end say where the point is, which `scale` says already: without them
        // equal numbers have equal digits.
        let significant = all.trim_start_matches('0');
        let digits = significant.trim_end_matches('0').to_owned();
        if digits.is_empty() {
            return Self { negative: false, scale: 0, digits };
        }
        let before_point = i64::try_from(whole.len()).unwrap_or(i64::MAX);
        let zeros = i64::try_from(all.len() - significant.len()).unwrap_or(i64::MAX);
        // An exponent beyond all measure is as large as can be counted.
        let beyond = if exponent.starts_with('-') { i64::MIN } else { i64::MAX };
        let exponent = exponent.parse().unwrap_or(beyond);
        let scale = exponent.saturating_add(before_point.saturating_sub(zeros));
        Self { negative, scale, digits }
    }

    /// The one spelling of this number: no exponent, no zeros that say nothing; a number further
    /// than [`PLAIN_DIGITS_MAX`] places from the point as `d.ddde<exponent>`.
    fn spelled(&self) -> String {
        let Self { negative, scale, digits } = self;
        let sign = if *negative { "-" } else { "" };
        if digits.is_empty() {
            return "0".to_owned();
        }
        let Some(places) = usize::try_from(scale.unsigned_abs())
            .ok()
            .filter(|places| (*places).max(digits.len()) <= PLAIN_DIGITS_MAX)
        else {
            let (first, rest) = digits.split_at(1);
            let point = if rest.is_empty() { "" } else { "." };
            return format!("{sign}{first}{point}{rest}e{}", scale.saturating_sub(1));
        };
        if *scale <= 0 {
            format!("{sign}0.{}{digits}", "0".repeat(places))
        } else if places >= digits.len() {
            format!("{sign}{digits}{}", "0".repeat(places - digits.len()))
        } else {
            let (whole, fraction) = digits.split_at(places);
            format!("{sign}{whole}.{fraction}")
        }
    }
}

impl Number {
    /// The one spelling of this number: `1`, `1.0` and `1e0` are `1`, with any number of digits.
    /// An exponent that no counter holds is left as it was written.
    pub fn canonical(&self) -> Cow<'_, str> {
        let text = self.as_str();
        // Most keys and counters are plain whole numbers: they are spelled as they stand, without
        // an allocation.
        let whole = text.bytes().all(|byte| byte.is_ascii_digit());
        if whole && text.len() <= PLAIN_DIGITS_MAX && (text == "0" || !text.starts_with('0')) {
            return Cow::Borrowed(text);
        }
        let exponent = text.split_once(['e', 'E']).map(|(_, exponent)| exponent.parse::<i32>());
        match exponent {
            Some(Err(_)) => Cow::Borrowed(text),
            Some(Ok(_)) | None => Cow::Owned(Magnitude::of(self).spelled()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        Number::parse(text).unwrap().canonical().into_owned()
    }

    #[test]
    fn every_spelling_of_a_number_has_one_canonical_text() {
        for (spellings, one) in [
            (
                &["6221031490017", "6221031490017.0", "6221031490017.000", "6.221031490017e12"][..],
                "6221031490017",
            ),
            (&["1.5", "1.50", "15e-1", "0.15E+1", "150e-2"], "1.5"),
            (&["0", "-0", "0.00", "0e9", "-0.0e-7"], "0"),
            (&["-0.05", "-5e-2", "-0.0500"], "-0.05"),
            (
                &["12345678901234567890123456789012345", "12345678901234567890123456789012345.00"],
                "12345678901234567890123456789012345",
            ),
            (&["1e30", "1000000000000000000000000000000"], "1000000000000000000000000000000"),
            (&["1e300", "10e299", "0.1e301"], "1e300"),
            (&["12e-300", "1.2e-299"], "1.2e-299"),
        ] {
            for spelling in spellings {
                assert_eq!(canonical(spelling), one, "{spelling}");
            }
        }
        assert_eq!(canonical("1e99999999999"), "1e99999999999");
    }

    proptest! {
        #[test]
        fn a_canonical_text_is_the_same_number_and_its_own(
            text in "-?(0|[1-9][0-9]{0,70})(\\.[0-9]{1,70})?([eE][+-]?[0-9]{1,3})?",
        ) {
            let number = Number::parse(&text).unwrap();
            let one = Number::parse(&number.canonical()).unwrap();
            prop_assert_eq!(Magnitude::of(&one), Magnitude::of(&number));
            prop_assert_eq!(one.canonical().into_owned(), number.canonical().into_owned());
        }
    }
}
