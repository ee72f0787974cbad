//! The coordinate encoder (Eq. 8): c_g = MLP(SinEmbed(φ) ⊕ SinEmbed(λ)).

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::silu;
use burn::tensor::{DType, Device, Tensor, TensorData};
use earthmapper_geo::Place;

use crate::init::Init;

/// Octaves of the logarithm of the ground size of a pixel.
const SCALE_OCTAVES: usize = 6;

/// Turns places into the condition vector that starts the sequence and drives every adaptive norm.
///
/// Sines and cosines of integer multiples 2^j of latitude and longitude, so that −180° and 180° agree exactly and the
/// highest octave (2^16: one turn per 610 m of a meridian) tells neighbouring tiles apart. A picture without a known
/// place has the learned "nowhere" vector; a known ground size of a pixel adds an encoding of its logarithm.
#[derive(Module, Debug)]
pub struct GeoEmbedding {
    place_in: Linear,
    place_out: Linear,
    scale_in: Linear,
    scale_out: Linear,
    nowhere: Param<Tensor<2>>,
    #[module(skip)]
    octaves: usize,
}

impl GeoEmbedding {
    /// A fresh encoder with vectors of `width`.
    pub fn new(width: usize, octaves: usize, init: &mut Init) -> Self {
        let deviation = |inputs: usize| (1.0 / inputs as f32).sqrt();
        Self {
            place_in: init.linear(4 * octaves, width, deviation(4 * octaves)),
            place_out: init.linear(width, width, deviation(width)),
            scale_in: init.linear(2 * SCALE_OCTAVES, width, deviation(2 * SCALE_OCTAVES)),
            scale_out: init.linear(width, width, deviation(width)),
            nowhere: init.normal([1, width], deviation(width)),
            octaves,
        }
    }

    /// Condition vectors `[batch, width]`; `None` is "nowhere", which guidance drops to.
    pub fn forward(&self, places: &[Option<Place>]) -> Tensor<2> {
        let nowhere = self.nowhere.val();
        let device = &nowhere.device();
        let like = (device, nowhere.dtype());
        let batch = places.len();
        let nowhere = nowhere.expand([batch, self.nowhere.dims()[1]]);
        if places.iter().all(Option::is_none) {
            return nowhere;
        }
        let positions = places.iter().map(|place| match place {
            Some(place) => self.position_features(place),
            None => vec![0.0; 4 * self.octaves],
        });
        let there = self.place_out.forward(silu(self.place_in.forward(rows(positions.collect(), like))));
        let known = column(places.iter().map(Option::is_some), like);
        let place = there * known.clone() + nowhere * (known.neg().add_scalar(1.0));

        let sizes: Vec<Option<f64>> = places.iter().map(|place| place.as_ref()?.metres_per_pixel()).collect();
        if sizes.iter().all(Option::is_none) {
            return place;
        }
        let features = sizes.iter().map(|size| match size {
            Some(size) => scale_features(*size),
            None => vec![0.0; 2 * SCALE_OCTAVES],
        });
        let scale = self.scale_out.forward(silu(self.scale_in.forward(rows(features.collect(), like))));
        place + scale * column(sizes.iter().map(Option::is_some), like)
    }

    /// Sines and cosines of the multiples of latitude, then of longitude.
    fn position_features(&self, place: &Place) -> Vec<f32> {
        let longitude = place.position().longitude().rem_euclid(360.0);
        [place.position().latitude(), longitude]
            .into_iter()
            .flat_map(|degrees| {
                (0..self.octaves).flat_map(move |octave| {
                    // Whole turns are taken off in degrees, where they are exact.
                    let angle = (degrees * f64::from(octave as u32).exp2()).rem_euclid(360.0).to_radians();
                    [angle.sin() as f32, angle.cos() as f32]
                })
            })
            .collect()
    }
}

/// Sines and cosines of multiples of the logarithm; one turn of the lowest octave spans a factor of 2^16.
fn scale_features(metres_per_pixel: f64) -> Vec<f32> {
    let angle = metres_per_pixel.log2() / 16.0 * std::f64::consts::TAU;
    (0..SCALE_OCTAVES)
        .flat_map(|octave| {
            let angle = angle * f64::from(octave as u32).exp2();
            [angle.sin() as f32, angle.cos() as f32]
        })
        .collect()
}

fn rows(features: Vec<Vec<f32>>, like: (&Device, DType)) -> Tensor<2> {
    let shape = [features.len(), features[0].len()];
    Tensor::from_data(TensorData::new(features.concat(), shape), like)
}

fn column(known: impl Iterator<Item = bool>, like: (&Device, DType)) -> Tensor<2> {
    let values: Vec<f32> = known.map(|known| f32::from(u8::from(known))).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count, 1]), like)
}

#[cfg(test)]
mod tests {
    use super::*;
    use earthmapper_geo::LonLat;

    fn place(longitude: f64, latitude: f64, metres: Option<f64>) -> Option<Place> {
        Some(Place::new(LonLat::new(longitude, latitude).unwrap(), metres).unwrap())
    }

    fn vectors(places: &[Option<Place>]) -> Vec<Vec<f32>> {
        let device = Device::flex();
        let embedding = GeoEmbedding::new(24, 17, &mut Init::new(3, &device));
        let flat: Vec<f32> = embedding.forward(places).try_into_vec_as::<f32>().unwrap();
        flat.chunks(24).map(<[f32]>::to_vec).collect()
    }

    fn distance(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
    }

    #[test]
    fn longitude_is_exactly_periodic() {
        let all = vectors(&[place(-180.0, 12.5, None), place(180.0, 12.5, None), place(540.0, 12.5, None)]);
        assert_eq!(all[0], all[1]);
        assert_eq!(all[0], all[2]);
    }

    #[test]
    fn a_few_hundred_metres_and_the_pixel_size_are_told_apart_and_nowhere_is_its_own() {
        let all = vectors(&[
            place(32.58, 0.31, None),
            place(32.583, 0.31, None),
            place(32.58, 0.31, Some(0.6)),
            place(32.58, 0.31, Some(2.4)),
            None,
        ]);
        for i in 0..all.len() {
            for j in 0..i {
                assert!(distance(&all[i], &all[j]) > 0.05, "{i} and {j} look the same");
            }
        }
        assert_eq!(vectors(&[None])[0], all[4], "a batch does not change a vector");
    }
}
