//! Probabilities from log-odds for many rows, for training alone: their derivatives are rounded to 15 bits anyway.
//!
//! Only sums, products and one division, in an order that no compiler changes: the same bits on every CPU, and several
//! rows at a time where it has such instructions.

/// What is added to a small number so that its whole part stands in the lowest bits.
const SHIFTER: f64 = 6_755_399_441_055_744.0;
/// ln 2 in two parts, the first short enough that its products with whole numbers are exact.
const LN_2: (f64, f64) = (0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10);

/// The probability of these log-odds, within 1e-9.
#[inline]
pub(crate) fn probability(log_odds: f64) -> f64 {
    1.0 / (1.0 + exponential(-log_odds))
}

/// e to the power of x, for x brought into -700..700, with a relative error below 1e-9: 2^k times the Taylor series of
/// what is left, which is at most ln 2 / 2.
#[inline]
fn exponential(x: f64) -> f64 {
    let x = x.clamp(-700.0, 700.0);
    let shifted = x * std::f64::consts::LOG2_E + SHIFTER;
    let k = shifted - SHIFTER;
    let r = (x - k * LN_2.0) - k * LN_2.1;
    let series =
        [1.0 / 40320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let power = series.into_iter().reduce(|sum, term| sum * r + term).unwrap_or(1.0);
    f64::from_bits((shifted.to_bits().wrapping_add(1023)) << 52) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_close_to_the_real_one() {
        for i in -80_000..80_000 {
            let x = f64::from(i) / 100.0;
            let real = 1.0 / (1.0 + libm::exp(-x));
            assert!((probability(x) - real).abs() < 1e-9, "{x}");
            let relative = exponential(x) / libm::exp(x.clamp(-700.0, 700.0)) - 1.0;
            assert!(relative.abs() < 1e-9, "{x}: {relative}");
        }
        assert_eq!(probability(0.0), 0.5);
        assert!(probability(f64::INFINITY) <= 1.0 && probability(f64::NEG_INFINITY) >= 0.0);
    }
}
