//! Parameters of queries and what they mean.

use std::ops::RangeInclusive;

use axum::http::{HeaderMap, header};
use earthmapper::guidance::Guidance;
use earthmapper::translator::GenerationOptions;
use earthmapper::{LonLat, Modality, Place};
use serde::Deserialize;

use super::reply::Problem;
use crate::app::App;
use crate::sources::Source;

/// Temperatures between the likeliest code alone and any code at all.
const TEMPERATURES: RangeInclusive<f32> = 0.01..=100.0;

/// Ground sizes of a pixel in metres, from a leaf to half a country.
const GROUND_SIZES: RangeInclusive<f64> = 0.001..=100_000.0;

/// Longitudes in degrees: once around the Earth, either way.
const LONGITUDES: RangeInclusive<f64> = -360.0..=360.0;

/// The most codes that `top_k` may keep; no codebook has so many.
const MOST_CODES: usize = 1_000_000;

/// How tiles are asked for. Further parameters are not looked at: some clients add their own against caches.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct TileParams {
    /// What is made; without a word, what the source can.
    pub to: Option<Modality>,
    /// Seed of the whole pyramid.
    pub seed: Option<u64>,
}

/// Which picture of a source as it is.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct OriginalParams {
    /// The photograph or the map.
    pub of: Option<Modality>,
}

/// How pictures are made.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MakeParams {
    /// What is made of a picture.
    pub to: Option<Modality>,
    /// What the picture with the hole is.
    #[serde(rename = "as")]
    pub kind: Option<Modality>,
    /// Seed.
    pub seed: Option<u64>,
    /// Results.
    pub samples: Option<usize>,
    /// Guidance: `off`, `A,B,G`, `constant:S` or `ramp:S`.
    pub guidance: Option<String>,
    /// Temperature of sampling.
    pub temperature: Option<f32>,
    /// Likeliest codes that are kept; 0 keeps all.
    pub top_k: Option<usize>,
    /// Probability up to which codes are kept; 0 keeps all.
    pub top_p: Option<f32>,
    /// Views of each window, toward the map.
    pub views: Option<usize>,
    /// Factor by which the picture is resampled for the model.
    pub scale: Option<f64>,
    /// Latitude in degrees.
    pub lat: Option<f64>,
    /// Longitude in degrees.
    pub lon: Option<f64>,
    /// Ground size of a pixel in metres.
    pub metres_per_pixel: Option<f64>,
    /// `png`, `jpg`, `webp` or `json`.
    pub format: Option<Answer>,
}

/// How results are sent.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// One PNG.
    Png,
    /// One JPEG.
    Jpg,
    /// One WebP.
    Webp,
    /// All results in one document.
    Json,
}

impl MakeParams {
    /// The options of generation, on top of the model's own.
    pub fn options(&self, defaults: &GenerationOptions) -> Result<GenerationOptions, Problem> {
        let bad = |text: String| Err(Problem::BadRequest(text));
        let mut options = defaults.clone();
        if let Some(guidance) = &self.guidance {
            options.guidance = match guidance.parse::<Guidance>() {
                Ok(guidance) => guidance,
                Err(text) => return bad(format!("guidance: {text}")),
            };
        }
        if let Some(temperature) = self.temperature {
            if !TEMPERATURES.contains(&temperature) {
                return bad("temperature: must be a number between 0.01 and 100".into());
            }
            options.sampler.temperature = temperature;
        }
        if self.top_k.is_some_and(|codes| codes > MOST_CODES) {
            return bad(format!("top_k: must be a number between 0 and {MOST_CODES}"));
        }
        options.sampler.top_k = self.top_k.unwrap_or(options.sampler.top_k);
        if let Some(top_p) = self.top_p {
            if !(0.0..=1.0).contains(&top_p) {
                return bad("top_p: must be a number between 0 and 1".into());
            }
            options.sampler.top_p = top_p;
        }
        Ok(options)
    }

    /// The options of a translation, on top of the model's own.
    pub fn translation(
        &self,
        defaults: &GenerationOptions,
        to: Modality,
    ) -> Result<GenerationOptions, Problem> {
        let mut options = self.options(defaults)?;
        if let Some(views) = self.views {
            options.views = views;
            options.views_toward(to).map_err(|error| Problem::BadRequest(error.to_string()))?;
        }
        Ok(options)
    }

    /// How many results, within the limit.
    pub fn samples(&self, app: &App) -> Result<usize, Problem> {
        let most = app.config.limits.samples;
        match self.samples.unwrap_or(1) {
            samples if (1..=most).contains(&samples) => Ok(samples),
            _ => Err(Problem::BadRequest(format!("samples: must be 1 to {most}"))),
        }
    }

    /// The place, as the model may be told it: one trained without places takes a coordinate for noise.
    pub fn place(&self, app: &App) -> Result<Option<Place>, Problem> {
        let within = |value: Option<f64>, range: &RangeInclusive<f64>| {
            value.is_none_or(|value| range.contains(&value))
        };
        if !within(self.lon, &LONGITUDES) {
            return Err(Problem::BadRequest("lon: must be a number between -360 and 360".into()));
        }
        if !within(self.metres_per_pixel, &GROUND_SIZES) {
            let text = "metres_per_pixel: must be a number between 0.001 and 100000";
            return Err(Problem::BadRequest(text.into()));
        }
        let place = match (self.lat, self.lon) {
            (None, None) => return Ok(None),
            (Some(latitude), Some(longitude)) => LonLat::new(longitude, latitude)
                .and_then(|position| Place::new(position, self.metres_per_pixel))
                .map_err(|error| Problem::BadRequest(error.to_string()))?,
            _ => return Err(Problem::BadRequest("lat and lon: give both or neither".into())),
        };
        Ok(Some(place).filter(|_| app.facts.config.trained_on.places_known))
    }

    /// Refuses parameters that this path has no use for.
    pub fn only(&self, allowed: &[&str]) -> Result<(), Problem> {
        let given = [
            ("to", self.to.is_some()),
            ("as", self.kind.is_some()),
            ("samples", self.samples.is_some()),
            ("views", self.views.is_some()),
            ("scale", self.scale.is_some()),
        ];
        match given.iter().find(|(name, is_given)| *is_given && !allowed.contains(name)) {
            Some((name, _)) => Err(Problem::BadRequest(format!("{name}: means nothing here; leave it out"))),
            None => Ok(()),
        }
    }
}

/// What of a source is meant when nothing is said: the map of a photograph, else the photograph of a map.
pub fn direction(source: &Source, to: Option<Modality>) -> Option<Modality> {
    match to {
        Some(to) => source.translation(to).map(|_| to),
        None => source.directions().next(),
    }
}

/// The address under which the client reaches the server, without a slash at the end.
pub fn base_url(app: &App, headers: &HeaderMap) -> String {
    if let Some(url) = &app.config.public_url {
        return url.trim_end_matches('/').to_owned();
    }
    // Only what can be an authority goes into documents.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<axum::http::uri::Authority>().ok());
    let plain = host.filter(|host| !host.as_str().contains(['@', '"', '\'', '<', '>', '&']));
    let host = plain.map_or_else(|| app.config.listen.to_string(), |host| host.to_string());
    format!("http://{host}")
}
