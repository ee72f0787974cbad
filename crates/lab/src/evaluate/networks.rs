//! The metrics of the field that need a network's weights: FID, KID, precision and recall by Inception, and LPIPS.

use std::sync::{Arc, Mutex};

use earthmapper::Modality;
use earthmapper_geo::picture::Picture;

use super::score::{Better, Metric, Number};
use super::sockets::{PictureMetric, SetMetric};
use crate::metrics::{
    Features, KernelSubsets, NEIGHBOURS, Statistics, frechet_distance, kernel_distance, precision_recall,
};
use crate::nets::{Backbone, Inception, Lpips};

/// Distances between the sets of real and of made photographs, on Inception's features; not of maps, which its
/// classes of things know nothing of.
#[derive(Debug, Default)]
pub struct InceptionMetrics {
    network: Option<Inception>,
    /// Features of the real pictures, which are the same for every candidate.
    real: Mutex<Option<(Vec<Picture>, Features)>>,
}

impl InceptionMetrics {
    /// With a network; without one they say how to give it.
    pub fn new(network: Option<Inception>) -> Self {
        Self { network, real: Mutex::default() }
    }

    fn of_real(&self, network: &Inception, real: &[Picture]) -> Features {
        let mut known = self.real.lock().expect("no other thread ends while it holds this");
        if let Some((pictures, features)) = known.as_ref()
            && pictures == real
        {
            return features.clone();
        }
        let features = network.features(real, BATCH);
        *known = Some((real.to_vec(), features.clone()));
        features
    }
}

/// Pictures at once on a device that is not the CPU.
const BATCH: usize = 16;

impl SetMetric for InceptionMetrics {
    fn metrics(&self) -> Vec<Metric> {
        vec![
            Metric::new("FID", Better::Lower).with_digits(2),
            Metric::new("KID", Better::Lower).with_digits(4),
            Metric::new("precision, k = 3", Better::Higher),
            Metric::new("recall, k = 3", Better::Higher),
        ]
    }

    fn missing(&self) -> Option<String> {
        self.network.is_none().then(|| "give Inception-v3's weights by --inception FILE".into())
    }

    fn measures(&self, target: Modality) -> bool {
        target == Modality::Satellite
    }

    fn compute(&self, real: &[Picture], made: &[Picture]) -> Result<Vec<Number>, String> {
        let network = self.network.as_ref().ok_or("there is no network")?;
        let (real, made) = (self.of_real(network, real), network.features(made, BATCH));
        let text = |error: crate::metrics::MetricsError| error.to_string();
        let statistics = |features| Statistics::of(features).map_err(text);
        let frechet = frechet_distance(&statistics(&real)?, &statistics(&made)?).map_err(text)?;
        let kernel = kernel_distance(&real, &made, KernelSubsets::usual(&real, &made)).map_err(text)?;
        let near = precision_recall(&real, &made, NEIGHBOURS).map_err(text)?;
        let number = |value| Number { value: Some(value), ..Default::default() };
        Ok(vec![
            number(frechet),
            Number { deviation: Some(kernel.deviation), ..number(kernel.mean) },
            number(near.precision),
            number(near.recall),
        ])
    }
}

/// LPIPS by one classifier; also between samples of one input, as their diversity.
#[derive(Debug)]
pub struct LpipsMetric {
    backbone: Backbone,
    network: Option<Lpips>,
}

impl LpipsMetric {
    /// One for each classifier that LPIPS knows; those without a network are said to be missing.
    pub fn all(networks: Vec<Lpips>) -> Vec<Arc<dyn PictureMetric>> {
        let mut networks: Vec<Option<Lpips>> = networks.into_iter().map(Some).collect();
        [Backbone::Alex, Backbone::Vgg, Backbone::Squeeze]
            .into_iter()
            .map(|backbone| {
                let is_it = |network: &&mut Option<Lpips>| {
                    network.as_ref().is_some_and(|network| network.backbone() == backbone)
                };
                let network = networks.iter_mut().find(is_it).and_then(Option::take);
                Arc::new(Self { backbone, network }) as Arc<dyn PictureMetric>
            })
            .collect()
    }
}

impl PictureMetric for LpipsMetric {
    fn metric(&self) -> Metric {
        Metric::new(format!("LPIPS, {}", self.backbone), Better::Lower)
    }

    fn missing(&self) -> Option<String> {
        self.network.is_none().then(|| format!("give the weights by --lpips FILE ({})", self.backbone))
    }

    fn measures_diversity(&self) -> bool {
        true
    }

    fn compute(&self, made: &[Picture], real: &[Picture]) -> Result<Vec<f64>, String> {
        let network = self.network.as_ref().ok_or("there is no network")?;
        network.distances(made, real).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_weights_says_the_flag() {
        let inception = InceptionMetrics::default();
        assert!(inception.missing().unwrap().contains("--inception"));
        assert!(inception.measures(Modality::Satellite) && !inception.measures(Modality::Map));
        let names: Vec<String> = LpipsMetric::all(Vec::new())
            .iter()
            .map(|metric| {
                assert!(metric.missing().unwrap().contains("--lpips"));
                metric.metric().name
            })
            .collect();
        assert_eq!(names, ["LPIPS, alex", "LPIPS, vgg", "LPIPS, squeeze"]);
    }
}
