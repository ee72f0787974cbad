//! Hiding the border between a filled hole and what is around it.
//!
//! The tokens around a hole are forced, so the structure goes on; but the decoder gives back known pixels only nearly,
//! and the difference between them and the pixels that are kept shows as an edge. Here that difference is carried on into the
//! hole and fades there: the correction c is the picture minus what was made outside the hole and solves
//! Δc = c ÷ [`REACH`]² inside (a screened membrane; without the screen this is the seamless cloning of Pérez, Gangnet
//! and Blake, 2003, which would tint a hole that is open on one side to its far end).

use earthmapper_geo::picture::{Mask, Picture};

/// Pixels after which the correction has fallen to 1/e.
const REACH: f32 = 16.0;

/// Sweeps of successive over-relaxation, each forward and back; the rest is then below one grey level.
const SWEEPS: usize = 60;

/// Over-relaxation: near the best for a reach of 16 pixels.
const OVER: f32 = 1.9;

/// `made` inside the hole, corrected so that it meets `kept`; `kept` elsewhere. All of one size.
pub(crate) fn filled(kept: &Picture, made: &Picture, hole: &Mask) -> Picture {
    let (width, height) = (kept.width() as usize, kept.height() as usize);
    let (kept_rgb, made_rgb) = (kept.rgb().as_chunks::<3>().0, made.rgb().as_chunks::<3>().0);
    let open: Vec<usize> = (0..width * height).filter(|&i| hole.holes()[i]).collect();
    let mut correction: Vec<[f32; 3]> = kept_rgb
        .iter()
        .zip(made_rgb)
        .zip(hole.holes())
        .map(|((kept, made), open)| match open {
            true => [0.0; 3],
            false => std::array::from_fn(|c| f32::from(kept[c]) - f32::from(made[c])),
        })
        .collect();
    let relax = |correction: &mut [[f32; 3]], i: usize| {
        let (x, y) = (i % width, i / width);
        let neighbours = [
            (x > 0).then(|| i - 1),
            (x + 1 < width).then(|| i + 1),
            (y > 0).then(|| i - width),
            (y + 1 < height).then(|| i + width),
        ];
        let (mut sum, mut count) = ([0.0f32; 3], 0.0f32);
        for neighbour in neighbours.into_iter().flatten() {
            (0..3).for_each(|c| sum[c] += correction[neighbour][c]);
            count += 1.0;
        }
        let whole = count + 1.0 / (REACH * REACH);
        (0..3).for_each(|c| correction[i][c] += OVER * (sum[c] / whole - correction[i][c]));
    };
    for _ in 0..SWEEPS {
        open.iter().for_each(|&i| relax(&mut correction, i));
        open.iter().rev().for_each(|&i| relax(&mut correction, i));
    }
    let mut result = kept.clone();
    let pixels = result.rgb_mut().as_chunks_mut::<3>().0;
    for i in open {
        pixels[i] = std::array::from_fn(|c| {
            (f32::from(made_rgb[i][c]) + correction[i][c]).round().clamp(0.0, 255.0) as u8
        });
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: u32 = 96;

    fn hole() -> Mask {
        Mask::drawn(SIDE, SIDE, |x, _| x >= 32)
    }

    #[test]
    fn a_difference_at_the_border_fades_into_the_hole() {
        let kept = Picture::filled(SIDE, SIDE, [120, 100, 90]);
        let made = Picture::filled(SIDE, SIDE, [100, 100, 110]);
        let filled = filled(&kept, &made, &hole());
        let red: Vec<u8> = (0..SIDE).map(|x| filled.pixel(x, SIDE / 2)[0]).collect();
        assert!(red[..32].iter().all(|&red| red == 120), "what is kept stays");
        assert!(red[32] >= 118, "no step at the border: {red:?}");
        assert!(red.windows(2).all(|pair| pair[0] >= pair[1] && pair[0] - pair[1] <= 2), "{red:?}");
        // After one reach 1/e of the 20 is left; after four, next to nothing.
        assert!((i32::from(red[31 + 16]) - 107).abs() <= 1 && red[95] <= 101, "{red:?}");
        assert_eq!(filled.pixel(40, 3)[1], 100, "where nothing differs nothing changes");
    }

    #[test]
    fn what_fits_is_left_alone() {
        let picture = Picture::drawn(SIDE, SIDE, |x, y| [(x * 2) as u8, (y * 2) as u8, 7]);
        assert_eq!(filled(&picture, &picture, &hole()), picture);
    }
}
