//! Kubernetes' quantities, as whole numbers.

/// The smallest part of a unit that is told from the next.
const NANOS: u128 = 1_000_000_000;

/// How many bytes a quantity such as `10Gi` or `1.5e9` stands for, rounded up; `None` if it is
/// none, or negative, or more than fits.
pub(crate) fn bytes(quantity: &str) -> Option<u64> {
    times(quantity, 1)?.try_into().ok()
}

/// How many thousand millionth parts of a unit a quantity such as `250m` stands for, as [`bytes`]
/// does.
pub(crate) fn nanos(quantity: &str) -> Option<u128> {
    times(quantity, NANOS)
}

fn times(quantity: &str, parts: u128) -> Option<u128> {
    let end = quantity.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mantissa: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (factor, divisor) = scale(suffix)?;
    let decimals = u32::try_from(fraction.len()).ok()?;
    let divisor = divisor.checked_mul(10_u128.checked_pow(decimals)?)?;
    Some(mantissa.checked_mul(factor)?.checked_mul(parts)?.div_ceil(divisor))
}

/// What a suffix multiplies by, and what it divides by.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    let thousands = |power| (1000_u128.pow(power), 1);
    Some(match suffix {
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "" => (1, 1),
        "k" => thousands(1),
        "M" => thousands(2),
        "G" => thousands(3),
        "T" => thousands(4),
        "P" => thousands(5),
        "E" => thousands(6),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => return power_of_ten(exponent.strip_prefix(['e', 'E'])?),
    })
}

fn power_of_ten(exponent: &str) -> Option<(u128, u128)> {
    let power: i32 = exponent.parse().ok()?;
    let factor = 10_u128.checked_pow(power.unsigned_abs())?;
    Some(if power < 0 { (1, factor) } else { (factor, 1) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quantity_is_read_as_kubernetes_reads_it() {
        for (text, expected) in [
            ("0", 0),
            ("1024", 1024),
            ("10Gi", 10 << 30),
            ("1.5Gi", 3 << 29),
            (".5Ki", 512),
            ("10G", 10_000_000_000),
            ("1500m", 2),
            ("1u", 1),
            ("2e3", 2000),
            ("2E3", 2000),
            ("2e+3", 2000),
            ("2500e-3", 3),
            ("1E", 1_000_000_000_000_000_000),
            ("15Ei", 15 << 60),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn parts_of_a_unit_are_told_apart() {
        assert_eq!(nanos("250m"), nanos("0.25"));
        assert!(nanos("100m") < nanos("101m") && nanos("999m") < nanos("1"));
        assert_eq!((nanos("1n"), nanos("0.1n"), nanos("-1")), (Some(1), Some(1), None));
        assert_eq!(nanos("15Ei"), Some((15 << 60) * NANOS));
    }

    #[test]
    fn what_is_no_quantity_has_no_size() {
        for text in ["", ".", "Gi", "1.2.3", "-1Gi", "1gi", "1 Gi", "1e", "16Ei", "1e99", "ten"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd_to_be_read(text in "[0-9.eEGiKmn+-]{0,40}|.*") {
            let _ = bytes(&text);
        }

        #[test]
        fn a_plain_number_is_itself(number: u64) {
            prop_assert_eq!(bytes(&number.to_string()), Some(number));
        }
    }
}
