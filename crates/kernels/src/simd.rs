//! Loops compiled several times, for the instructions that the processor turns out to have.

use std::sync::OnceLock;

use pulp::Arch;

/// Values taken together in code that must stay in registers.
pub(crate) const LANES: usize = 8;

/// What the processor can do; asked once, because asking traps into a hypervisor.
pub(crate) fn arch() -> Arch {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(Arch::new)
}

/// Defines a function whose body is compiled for each set of vector instructions; the best one that the processor has
/// runs. All lifetimes in its arguments are `'a`. What the body calls must be `#[inline(always)]`.
macro_rules! vectorised {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $output:ty)? $body:block) => {
        $(#[$doc])*
        #[allow(unused_parens)]
        $vis fn $name<'a>($($argument: $type),*) $(-> $output)? {
            struct Work<'a> {
                $($argument: $type,)*
                lifetime: std::marker::PhantomData<&'a ()>,
            }
            impl<'a> pulp::WithSimd for Work<'a> {
                type Output = ($($output)?);
                #[inline(always)]
                fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
                    let Self { $($argument,)* .. } = self;
                    $body
                }
            }
            $crate::simd::arch().dispatch(Work { $($argument,)* lifetime: std::marker::PhantomData })
        }
    };
}
pub(crate) use vectorised;

/// A fold in 32 lanes, which are joined at the end: the compiler may not reorder a plain one into vectors.
#[inline(always)]
pub(crate) fn fold(
    values: &[f32],
    start: f32,
    step: impl Fn(f32, f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let (blocks, rest) = values.as_chunks::<32>();
    let mut lanes = [start; 32];
    for block in blocks {
        for (lane, &x) in lanes.iter_mut().zip(block) {
            *lane = step(*lane, x);
        }
    }
    let mut result = start;
    for &x in rest {
        result = step(result, x);
    }
    for lane in lanes {
        result = join(result, lane);
    }
    result
}

/// The greater of two numbers, as one instruction.
#[inline(always)]
pub(crate) fn higher(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// The lesser of two numbers, as one instruction.
#[inline(always)]
pub(crate) fn lower(a: f32, b: f32) -> f32 {
    if a < b { a } else { b }
}

/// eˣ to two units in the last place, in plain arithmetic: x = n·ln 2 + r, and a polynomial of eʳ (Cephes' `expf`).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding 1.5 · 2²³ rounds to a whole number, which then stands in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let polynomial = ((((1.987_569_2e-4 * r + 1.398_2e-3) * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r
        + 1.666_666_5e-1)
        * r
        + 0.5;
    let power = f32::from_bits((shifted.to_bits().wrapping_add(127)) << 23);
    (polynomial * r * r + r + 1.0) * power
}

/// The logistic function.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The error function to 2·10⁻⁷ (Abramowitz and Stegun 7.1.26).
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let polynomial =
        ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_7) * t - 0.284_496_74) * t + 0.254_829_6) * t;
    (1.0 - polynomial * exp(-a * a)).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_that_of_the_library() {
        let error = |x: f32| ((f64::from(exp(x)) - f64::from(x).exp()) / f64::from(x).exp()).abs();
        let worst = (-8000..8000).map(|i| error(i as f32 * 0.01)).fold(0.0, f64::max);
        assert!(worst < 3e-7, "{worst}");
        assert!(exp(f32::NAN).is_nan() && exp(1000.0) > 1e38 && exp(-1000.0) < 1e-37);
    }

    #[test]
    fn erf_has_the_known_values() {
        let known = [
            (0.0, 0.0),
            (0.1, 0.112_462_916),
            (0.5, 0.520_499_9),
            (1.0, 0.842_700_8),
            (2.0, 0.995_322_3),
            (4.0, 1.0),
            (90.0, 1.0),
        ];
        for (x, y) in known {
            assert!((erf(x) - y).abs() < 4e-7 && (erf(-x) + y).abs() < 4e-7, "{x}: {}", erf(x));
        }
    }

    #[test]
    fn a_fold_sees_every_value_once() {
        for length in [0, 1, 31, 32, 33, 100] {
            let values: Vec<f32> = (0..length).map(|i| i as f32).collect();
            let sum = fold(&values, 0.0, |a, b| a + b, |a, b| a + b);
            assert_eq!(sum, values.iter().sum::<f32>());
        }
    }
}
