//! Numbers as JSON writes them, read without losing a digit.
//!
//! serde_json turns whatever is not a plain integer into a double, and rounds
//! doubles by up to one unit in the last place. Counts that claim to be the same
//! for JSON and protobuf need the digits themselves.

use std::borrow::Cow;
use std::iter;

use thiserror::Error;

/// The longest number that is read, in bytes: far more digits than a double has.
const TEXT_BYTES_MAX: usize = 4096;

/// Why a JSON value is not the number that its field needs.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum InvalidNumber {
    #[error("expected a number")]
    NotANumber,
    #[error("expected an integer, found a fraction")]
    Fraction,
    #[error("the number is out of range")]
    OutOfRange,
}

/// An integer from the raw JSON of a number or a string; `1e3` and `1.0` are integers.
pub(super) fn integer(json: &str) -> Result<i128, InvalidNumber> {
    let (text, _) = text_of(json)?;
    Decimal::parse(&text).ok_or(InvalidNumber::NotANumber)?.to_integer()
}

/// An integer from the raw JSON of a number, but not of a string.
pub(super) fn bare_integer(json: &str) -> Result<i128, InvalidNumber> {
    if json.starts_with('"') { Err(InvalidNumber::NotANumber) } else { integer(json) }
}

/// The nearest double to the raw JSON of a number or a string. Strings also name
/// the values that JSON numbers cannot: "NaN", "Infinity" and "-Infinity".
pub(super) fn double(json: &str) -> Result<f64, InvalidNumber> {
    let (text, quoted) = text_of(json)?;
    match text.as_ref() {
        "NaN" if quoted => return Ok(f64::NAN),
        "Infinity" if quoted => return Ok(f64::INFINITY),
        "-Infinity" if quoted => return Ok(f64::NEG_INFINITY),
        _ => {}
    }
    Decimal::parse(&text).ok_or(InvalidNumber::NotANumber)?;
    match text.parse::<f64>() {
        Ok(double) if double.is_finite() => Ok(double),
        Ok(_) => Err(InvalidNumber::OutOfRange),
        Err(_) => Err(InvalidNumber::NotANumber),
    }
}

/// The text inside a JSON string, or of a bare value, and whether it was a string.
fn text_of(json: &str) -> Result<(Cow<'_, str>, bool), InvalidNumber> {
    if json.len() > TEXT_BYTES_MAX {
        return Err(InvalidNumber::NotANumber);
    }
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        None => Ok((Cow::Borrowed(json), false)),
        Some(plain) if !plain.contains('\\') => Ok((Cow::Borrowed(plain), true)),
        Some(_) => match serde_json::from_str(json) {
            Ok(text) => Ok((Cow::Owned(text), true)),
            Err(_) => Err(InvalidNumber::NotANumber),
        },
    }
}

/// A number in JSON's grammar, taken apart.
struct Decimal<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    /// Clamped: what is clamped is out of range of any type, or zero.
    exponent: i32,
}

impl<'a> Decimal<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes() {
            [b'-', rest @ ..] => (true, rest),
            rest => (false, rest),
        };
        let (whole, rest) = digits(rest);
        if whole.is_empty() || (whole.len() > 1 && whole[0] == b'0') {
            return None;
        }
        let (fraction, rest) = match rest {
            [b'.', rest @ ..] => match digits(rest) {
                ([], _) => return None,
                split => split,
            },
            rest => (&[][..], rest),
        };
        let exponent = match rest {
            [] => 0,
            [b'e' | b'E', rest @ ..] => exponent(rest)?,
            _ => return None,
        };
        Some(Decimal { negative, whole, fraction, exponent })
    }

    fn to_integer(&self) -> Result<i128, InvalidNumber> {
        // The digits before the point, once the exponent has moved it.
        let point = self.whole.len() as i64 + i64::from(self.exponent);
        let mut magnitude: u64 = 0;
        let mut length = 0;
        for digit in self.whole.iter().chain(self.fraction).map(|byte| byte - b'0') {
            if length < point {
                magnitude = append(magnitude, digit)?;
            } else if digit != 0 {
                return Err(InvalidNumber::Fraction);
            }
            length += 1;
        }
        if magnitude != 0 {
            for zero in iter::repeat_n(0, usize::try_from(point - length).unwrap_or(0)) {
                magnitude = append(magnitude, zero)?;
            }
        }
        let magnitude = i128::from(magnitude);
        Ok(if self.negative { -magnitude } else { magnitude })
    }
}

fn append(magnitude: u64, digit: u8) -> Result<u64, InvalidNumber> {
    magnitude
        .checked_mul(10)
        .and_then(|tens| tens.checked_add(u64::from(digit)))
        .ok_or(InvalidNumber::OutOfRange)
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    text.split_at(length)
}

fn exponent(text: &[u8]) -> Option<i32> {
    const CLAMP: i32 = 1_000_000;
    const _: () = assert!(CLAMP as usize > 2 * TEXT_BYTES_MAX);
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (magnitude, rest) = digits(text);
    if magnitude.is_empty() || !rest.is_empty() {
        return None;
    }
    let magnitude =
        magnitude.iter().fold(0, |sum: i32, byte| (sum * 10 + i32::from(byte - b'0')).min(CLAMP));
    Some(if negative { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact_up_to_both_ends_of_64_bits() {
        assert_eq!(integer("18446744073709551615"), Ok(i128::from(u64::MAX)));
        assert_eq!(integer("18446744073709551615.000"), Ok(i128::from(u64::MAX)));
        assert_eq!(integer("-9223372036854775808"), Ok(i128::from(i64::MIN)));
        assert_eq!(integer("18446744073709551616"), Err(InvalidNumber::OutOfRange));
    }

    #[test]
    fn an_exponent_or_a_zero_fraction_still_makes_an_integer() {
        for (text, value) in [
            ("1e3", 1000),
            ("1E+3", 1000),
            ("1.0", 1),
            ("-1.50e1", -15),
            ("120e-1", 12),
            ("0.001e3", 1),
            ("1844674407370955161500e-2", i128::from(u64::MAX)),
            ("9007199254740993.0", 9_007_199_254_740_993),
            ("0e99999999999999999999", 0),
            ("-0", 0),
            ("0.000e-5", 0),
        ] {
            assert_eq!(integer(text), Ok(value), "{text}");
            assert_eq!(integer(&format!("\"{text}\"")), Ok(value), "{text} in quotes");
        }
    }

    #[test]
    fn a_fraction_is_not_an_integer() {
        for text in ["1.5", "1e-1", "0.1", "15e-1", "1e-99999999999999999999"] {
            assert_eq!(integer(text), Err(InvalidNumber::Fraction), "{text}");
        }
    }

    #[test]
    fn a_huge_exponent_is_out_of_range_at_once() {
        assert_eq!(integer("1e99999999999999999999"), Err(InvalidNumber::OutOfRange));
        assert_eq!(double("1e400"), Err(InvalidNumber::OutOfRange));
        assert_eq!(double("1e-400"), Ok(0.0));
    }

    #[test]
    fn what_json_would_not_call_a_number_is_none_in_a_string_either() {
        for text in [
            "", " 1", "1 ", "+1", "01", "1.", ".5", "1e", "1e+", "0x10", "1_000", "inf", "nan",
            "-", "١",
        ] {
            let quoted = format!("\"{text}\"");
            assert_eq!(integer(&quoted), Err(InvalidNumber::NotANumber), "{text}");
            assert_eq!(double(&quoted), Err(InvalidNumber::NotANumber), "{text}");
        }
        for json in ["true", "null", "[1]", "{}"] {
            assert_eq!(integer(json), Err(InvalidNumber::NotANumber), "{json}");
        }
    }

    #[test]
    fn doubles_are_rounded_to_the_nearest() {
        assert_eq!(double("0.1"), Ok(0.1));
        assert_eq!(double("\"0.1\""), Ok(0.1));
        assert_eq!(double("9007199254740993"), Ok(9_007_199_254_740_992.0));
        assert_eq!(double("2.2250738585072011e-308"), Ok(2.225_073_858_507_201e-308));
        assert!(double("-0").unwrap().is_sign_negative());
    }

    #[test]
    fn only_strings_name_what_is_not_finite() {
        assert!(double("\"NaN\"").unwrap().is_nan());
        assert_eq!(double("\"Infinity\""), Ok(f64::INFINITY));
        assert_eq!(double("\"-Infinity\""), Ok(f64::NEG_INFINITY));
        assert_eq!(double("NaN"), Err(InvalidNumber::NotANumber));
        assert_eq!(integer("\"NaN\""), Err(InvalidNumber::NotANumber));
    }

    #[test]
    fn escapes_in_a_number_string_are_read() {
        assert_eq!(integer(r#""\u0031\u0032""#), Ok(12));
        assert!(double(r#""\u004eaN""#).unwrap().is_nan());
    }

    #[test]
    fn a_number_of_more_than_4_kib_is_refused() {
        assert_eq!(integer(&"1".repeat(TEXT_BYTES_MAX + 1)), Err(InvalidNumber::NotANumber));
        assert_eq!(integer(&format!("1.{}", "0".repeat(4000))), Ok(1));
    }
}
