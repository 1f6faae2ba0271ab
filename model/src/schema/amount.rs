//! Amount: what the store works out itself, exact until it is rounded once to its field's scale.
//!
//! A value that a client sent is never rounded: strict refuses one with more digits after the point
//! than its field has, lenient keeps it. A derived one (a line's total, a default) was sent by
//! nobody, so it is made to fit: half away from zero, or as the field's `rounding` says. Promise:
//! never more than 28 digits, and none is lost without a refusal that names the field.

use std::cmp::Ordering;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::reject::Reject;
use crate::schema::{Field, FieldType};
use crate::value::{Number, Value};

/// Most digits of a derived amount.
const DIGITS_MAX: usize = 28;
/// The rule an amount of more digits breaks.
const TOO_LONG: &str = "must be a number of at most 28 digits";
/// Decimal digits of one limb of a product: two limbs multiplied fit in 128 bits.
const LIMB_DIGITS: usize = 14;
const LIMB: u128 = 100_000_000_000_000;

/// How a derived amount is made to fit the scale of its field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rounding {
    /// To the nearest, a half away from zero: `2.345` is `2.35`, `-2.345` is `-2.35`.
    #[default]
    HalfAway,
    /// To the nearest, a half to the even neighbour: `2.345` is `2.34`.
    HalfEven,
    /// To the nearest, a half toward zero.
    HalfDown,
    /// Away from zero.
    Up,
    /// Toward zero.
    Down,
    /// Toward positive infinity.
    Ceiling,
    /// Toward negative infinity.
    Floor,
}

impl Rounding {
    /// The names a definition may use.
    pub const NAMES: &str =
        "half-away (also half-up), half-even, half-down, up, down, ceiling, floor";

    /// Reads a name of a definition; `None` for any other.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "half-away" | "half-up" => Self::HalfAway,
            "half-even" => Self::HalfEven,
            "half-down" => Self::HalfDown,
            "up" => Self::Up,
            "down" => Self::Down,
            "ceiling" => Self::Ceiling,
            "floor" => Self::Floor,
            _ => return None,
        })
    }

    /// Whether the digits that are kept become one more; `dropped` is how what is cut off compares
    /// with half a digit, and is not nothing.
    fn steps(self, negative: bool, last_is_odd: bool, dropped: Ordering) -> bool {
        match self {
            Self::HalfAway => dropped.is_ge(),
            Self::HalfEven => dropped.is_gt() || (dropped.is_eq() && last_is_odd),
            Self::HalfDown => dropped.is_gt(),
            Self::Up => true,
            Self::Down => false,
            Self::Ceiling => !negative,
            Self::Floor => negative,
        }
    }
}

impl Field {
    /// How many digits this field has after the point; `None` where the definition does not say.
    pub(super) fn decimals(&self) -> Option<u32> {
        match self.kind {
            FieldType::Integer => Some(0),
            FieldType::Number => self.scale.or_else(|| self.precision.map(|_| 0)),
            FieldType::String
            | FieldType::Boolean
            | FieldType::Json
            | FieldType::Date
            | FieldType::Time
            | FieldType::Timestamp
            | FieldType::Opaque => None,
        }
    }

    /// The product of two numbers, or of texts of them, as this field holds it; `None` where one is
    /// no number.
    ///
    /// # Errors
    /// [`Reject::Invalid`] naming this field where it has more than 28 digits.
    pub fn product(
        &self,
        table: &str,
        one: &Value,
        other: &Value,
    ) -> Result<Option<Value>, Reject> {
        let Some((a, b)) = number(one).zip(number(other)) else { return Ok(None) };
        // The full product first and rounding once: rounding in between would lose a cent now and
        // then.
        let exact = a.to_decimal().zip(b.to_decimal()).map(|(a, b)| BigDecimal::product(a, b));
        let fitted = exact.and_then(|exact| self.fitted(exact));
        let too_long = || {
            let shown = Value::from(format!("{} × {}", a.as_str(), b.as_str()));
            self.invalid(table, TOO_LONG, &shown)
        };
        fitted.map(|number| Some(Value::Number(number))).ok_or_else(too_long)
    }

    /// A default as this field holds it: rounded to its scale. `None` for a number of more than 28
    /// digits that would have to be.
    pub(super) fn fitted_default(&self, number: &Number) -> Option<Number> {
        if self.decimals().is_none() {
            return Some(number.clone());
        }
        let exact = BigDecimal::of(number.to_decimal()?);
        // Its own spelling stays where nothing has to be cut off.
        if exact.scale <= self.decimals()? { Some(number.clone()) } else { self.fitted(exact) }
    }

    fn fitted(&self, exact: BigDecimal) -> Option<Number> {
        match self.decimals() {
            Some(scale) => exact.rounded(scale, self.rounding).into_number(),
            None => exact.into_number(),
        }
    }
}

impl Value {
    /// The product of two numbers, given as numbers or as texts of them, exactly; `None` where one
    /// is none, or the product has more than 28 digits.
    pub fn times(&self, other: &Self) -> Option<Self> {
        let (a, b) = (number(self)?.to_decimal()?, number(other)?.to_decimal()?);
        BigDecimal::product(a, b).into_number().map(Value::Number)
    }
}

fn number(value: &Value) -> Option<Number> {
    Number::parse(value.key_text()?.trim())
}

/// A decimal of any length.
struct BigDecimal {
    negative: bool,
    /// 0 to 9 each, the most significant first; more than `scale` of them.
    digits: Vec<u8>,
    /// How many of them stand after the point.
    scale: u32,
}

impl BigDecimal {
    fn of(decimal: Decimal) -> Self {
        Self::product(decimal, Decimal::ONE)
    }

    fn product(a: Decimal, b: Decimal) -> Self {
        // The decimal library rounds a product of more than 28 digits without a word, so it is
        // worked out digit for digit.
        let (left, right) = (limbs(a), limbs(b));
        let mut sums = [0_u128; 6];
        for (i, x) in left.iter().enumerate() {
            for (j, y) in right.iter().enumerate() {
                sums[i + j] += x * y;
            }
        }
        let mut carried = 0;
        let mut text = Vec::new();
        for sum in sums {
            let limb = sum + carried;
            carried = limb / LIMB;
            text.push(format!("{:0LIMB_DIGITS$}", limb % LIMB));
        }
        let digits: Vec<u8> =
            text.iter().rev().flat_map(|limb| limb.bytes()).map(|d| d - b'0').collect();
        let scale = a.scale() + b.scale();
        // One digit stands before the point, a zero too.
        let keep = usize::try_from(scale).unwrap_or(0) + 1;
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        let cut = zeros.min(digits.len() - keep);
        let negative = a.is_sign_negative() != b.is_sign_negative();
        Self { negative, digits: digits[cut..].to_vec(), scale }
    }

    /// With at most `scale` digits after the point.
    fn rounded(self, scale: u32, rounding: Rounding) -> Self {
        if self.scale <= scale {
            return self;
        }
        let cut = usize::try_from(self.scale - scale).unwrap_or(0);
        let (kept, dropped) = self.digits.split_at(self.digits.len() - cut);
        let mut digits = kept.to_vec();
        let some = |digits: &[u8]| digits.iter().any(|digit| *digit != 0);
        let half = dropped[0].cmp(&5).then_with(|| match some(&dropped[1..]) {
            true => Ordering::Greater,
            false => Ordering::Equal,
        });
        let odd = digits.last().is_some_and(|digit| digit % 2 == 1);
        // Zeros that are cut off change nothing in any mode.
        if some(dropped) && rounding.steps(self.negative, odd, half) {
            add_one(&mut digits);
        }
        Self { negative: self.negative, digits, scale }
    }

    /// `None` where it has more than 28 digits, zeros at its end not counted.
    fn into_number(self) -> Option<Number> {
        let text = self.text();
        let fits = |text: &str| {
            let digits = text.trim_start_matches(['-', '0', '.']).bytes();
            let fits = digits.filter(u8::is_ascii_digit).count() <= DIGITS_MAX;
            // A decimal also has at most 28 digits after its point.
            Number::parse(text).filter(|number| fits && number.to_decimal().is_some())
        };
        fits(&text).or_else(|| {
            let (whole, fraction) = text.split_once('.')?;
            let fraction = fraction.trim_end_matches('0');
            if fraction.is_empty() { fits(whole) } else { fits(&format!("{whole}.{fraction}")) }
        })
    }

    fn text(&self) -> String {
        let before = self.digits.len() - usize::try_from(self.scale).unwrap_or(0);
        let negative = self.negative && self.digits.iter().any(|digit| *digit != 0);
        let mut text = String::from(if negative { "-" } else { "" });
        for (place, digit) in self.digits.iter().enumerate() {
            if place == before {
                text.push('.');
            }
            text.push(char::from(b'0' + digit));
        }
        text
    }
}

/// A decimal's digits without its point, the least significant limb first.
fn limbs(decimal: Decimal) -> [u128; 3] {
    let all = decimal.mantissa().unsigned_abs();
    [all % LIMB, all / LIMB % LIMB, all / LIMB / LIMB]
}

fn add_one(digits: &mut Vec<u8>) {
    for digit in digits.iter_mut().rev() {
        if *digit < 9 {
            *digit += 1;
            return;
        }
        *digit = 0;
    }
    digits.insert(0, 1);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::schema::Schema;

    fn field(members: &str) -> Result<Field, String> {
        let doc = format!(r#"[{{"name":"t","fields":[{{"name":"f",{members}}}]}}]"#);
        let doc = Value::from_json(doc.as_bytes()).unwrap();
        let read = Schema::read("m", &doc).and_then(crate::schema::ParsedSchema::strict);
        let schema = read.map_err(|error| error.to_string())?;
        Ok(schema.tables[0].fields[0].clone())
    }

    fn product(members: &str, a: &str, b: &str) -> String {
        let [a, b] = [a, b].map(|json| Value::from_json(json.as_bytes()).unwrap());
        match field(members).unwrap().product("t", &a, &b) {
            Ok(value) => value.map_or_else(|| "none".to_owned(), |value| value.to_json()),
            Err(reject) => reject.to_string(),
        }
    }

    #[test]
    fn a_product_is_rounded_once_to_its_fields_scale() {
        const MONEY: &str = r#""type":"DECIMAL(14,2)""#;
        for (members, a, b, stored) in [
            (MONEY, "0.333", "12.99", "4.33"),
            (MONEY, "2", r#""50.50""#, "101.00"),
            (MONEY, "2", "50", "100"),
            (MONEY, "1.5", "0.67", "1.01"),
            (MONEY, "-1.5", "0.67", "-1.01"),
            (MONEY, "-0.001", "1", "0.00"),
            (MONEY, "9.999", "1", "10.00"),
            (MONEY, "0.3333333333333333333333333333", "0.0149999999999999999999999999", "0.00"),
            (r#""type":"DECIMAL(14)""#, "1.5", "1", "2"),
            (r#""type":"int""#, "2.5", "1.1", "3"),
            (r#""type":"decimal""#, "0.333", "12.99", "4.32567"),
            (MONEY, r#""many""#, "1", "none"),
        ] {
            assert_eq!(product(members, a, b), stored, "{members} {a} {b}");
        }
    }

    #[test]
    fn a_field_says_how_its_amounts_are_rounded() {
        for (rounding, positive, negative) in [
            ("half-away", "2.35", "-2.35"),
            ("half-up", "2.35", "-2.35"),
            ("half-even", "2.34", "-2.34"),
            ("half-down", "2.34", "-2.34"),
            ("up", "2.35", "-2.35"),
            ("down", "2.34", "-2.34"),
            ("ceiling", "2.35", "-2.34"),
            ("floor", "2.34", "-2.35"),
        ] {
            let members = format!(r#""type":"DECIMAL(9,2)","rounding":"{rounding}""#);
            assert_eq!(product(&members, "2.345", "1"), positive, "{rounding}");
            assert_eq!(product(&members, "2.345", "-1"), negative, "{rounding}");
            assert_eq!(product(&members, "2.3400", "1"), "2.34", "{rounding}: nothing is cut off");
        }
        for (members, said) in [
            (r#""type":"decimal","rounding":"bankers""#, "half-even"),
            (r#""type":"decimal","rounding":2"#, "half-even"),
            (r#""type":"text","rounding":"down""#, "numbers"),
        ] {
            let refused = field(members).unwrap_err();
            assert!(refused.contains(said) && refused.contains("rounding"), "{refused}");
        }
    }

    #[test]
    fn more_than_28_digits_are_refused_by_the_fields_name() {
        let long = "1234567890123456789012345678";
        for (members, a, b) in [
            (r#""type":"DECIMAL(14,2)""#, long, "10"),
            (r#""type":"decimal""#, "0.12345678901234567", "0.12345678901234567"),
            (r#""type":"decimal""#, "1e60", "1"),
        ] {
            let refused = product(members, a, b);
            assert!(refused.starts_with("t.f must be a number of at most 28 digits"), "{refused}");
        }
        assert_eq!(product(r#""type":"decimal""#, "0.50000000000000000000", "0.2000000000"), "0.1");
    }

    #[test]
    fn a_default_is_rounded_to_its_fields_scale() {
        let default = |members: &str| match field(members)?.default {
            Some(crate::schema::Default::Value(value)) => Ok(value.to_json()),
            other => Err(format!("{other:?}")),
        };
        for (members, stored) in [
            (r#""type":"DECIMAL(14,2)","default":"0.005""#, "0.01"),
            (r#""type":"DECIMAL(14,2)","defaultValue":0.145,"rounding":"half-even""#, "0.14"),
            (r#""type":"DECIMAL(14,2)","defaultValue":0.5"#, "0.5"),
            (r#""type":"decimal","precision":5,"scale":1,"defaultValue":"1.25""#, "1.3"),
            (r#""type":"int","defaultValue":1.5"#, "2"),
            (r#""type":"decimal","defaultValue":1.005"#, "1.005"),
        ] {
            assert_eq!(default(members), Ok(stored.to_owned()), "{members}");
        }
        let long = r#""type":"DECIMAL(9,2)","defaultValue":"1e60""#;
        assert!(default(long).unwrap_err().contains("28 digits"));
    }

    proptest! {
        #[test]
        fn a_product_is_what_exact_arithmetic_says(
            a in -999_999_999_999_i64..999_999_999_999, b in -999_999_999_999_i64..999_999_999_999,
            scales in (0..9_u32, 0..9_u32),
        ) {
            let [one, other] = [Decimal::new(a, scales.0), Decimal::new(b, scales.1)];
            let found = BigDecimal::product(one, other).into_number().unwrap().to_decimal().unwrap();
            prop_assert_eq!(found, one.checked_mul(other).unwrap());
            let rounded = BigDecimal::product(one, other).rounded(2, Rounding::HalfAway);
            let expected = found.round_dp_with_strategy(
                2, rust_decimal::RoundingStrategy::MidpointAwayFromZero);
            prop_assert_eq!(rounded.into_number().unwrap().to_decimal().unwrap(), expected);
        }
    }
}
