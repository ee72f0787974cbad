//! Flags about how tokens are drawn.

use anyhow::Result;
use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use earthmapper::Modality;
use earthmapper::guidance::{Complexity, Guidance, KeyPointForce};
use earthmapper::sampler::SamplerConfig;
use earthmapper::translator::{Decode, GenerationOptions};
use earthmapper::views::View;

use super::{positive, share};
use crate::exit::Usage;

/// How tokens are drawn; what is not given is the model's own choice for the direction.
#[derive(Args, Debug, Clone)]
pub struct GenerationArgs {
    /// Seed: the same seed gives the same picture.
    #[arg(long, default_value_t = 0, env = "EARTHMAPPER_SEED")]
    pub seed: u64,
    /// Guidance: off, a complexity triple A,B,G, constant:S or ramp:S.
    #[arg(long, value_parser = str::parse::<Guidance>, env = "EARTHMAPPER_GUIDANCE")]
    pub guidance: Option<Guidance>,
    /// What complexity guidance measures.
    #[arg(long, value_enum, env = "EARTHMAPPER_COMPLEXITY")]
    pub complexity: Option<ComplexityName>,
    /// Key point force.
    #[arg(long, value_enum, env = "EARTHMAPPER_KEY_POINTS")]
    pub key_points: Option<KeyPointName>,
    /// Threshold of the key points, 0 … 1 [default: 0.7].
    #[arg(long, value_parser = share, env = "EARTHMAPPER_TAU")]
    pub tau: Option<f32>,
    /// Strength of --key-points attract [default: 1].
    #[arg(long, value_parser = finite, env = "EARTHMAPPER_STRENGTH")]
    pub strength: Option<f32>,
    /// Temperature of --key-points sharpen [default: 0.5].
    #[arg(long, value_parser = positive::<f32>, env = "EARTHMAPPER_SHARPNESS")]
    pub sharpness: Option<f32>,
    /// Temperature of sampling.
    #[arg(long, value_parser = positive::<f32>, env = "EARTHMAPPER_TEMPERATURE")]
    pub temperature: Option<f32>,
    /// Keep the likeliest codes only; 0 keeps all.
    #[arg(long, env = "EARTHMAPPER_TOP_K")]
    pub top_k: Option<usize>,
    /// Keep the likeliest codes up to this probability; 0 keeps all.
    #[arg(long, value_parser = share, env = "EARTHMAPPER_TOP_P")]
    pub top_p: Option<f32>,
    /// Always take the likeliest code.
    #[arg(
        long,
        conflicts_with_all = ["top_k", "top_p", "temperature"],
        value_parser = BoolishValueParser::new(),
        env = "EARTHMAPPER_GREEDY"
    )]
    pub greedy: bool,
    /// Which embeddings are decoded.
    #[arg(long, value_enum, env = "EARTHMAPPER_DECODE")]
    pub decode: Option<DecodeName>,
}

/// In how many views translations are made; what is not given is the model's own choice.
#[derive(Args, Debug, Clone)]
pub struct ViewsArgs {
    /// Toward the map: translate so many magnified and turned corners of each window and take, per pixel, the colour nearest to the others'. Better maps for as many times the work.
    #[arg(long, value_name = "1|4|8|16", value_parser = views, env = "EARTHMAPPER_VIEWS")]
    pub views: Option<usize>,
}

impl ViewsArgs {
    /// The options with what the flag says.
    ///
    /// # Errors
    /// [`Usage`] for several views toward the satellite.
    pub fn applied(&self, options: GenerationOptions, to: Modality) -> Result<GenerationOptions> {
        let options = GenerationOptions { views: self.views.unwrap_or(options.views), ..options };
        match self.views.map(|_| options.views_toward(to)) {
            Some(Err(_)) => Err(Usage(format!("--views {} needs --to map", options.views)).into()),
            _ => Ok(options),
        }
    }
}

fn views(text: &str) -> Result<usize, String> {
    let count = text.trim().parse().ok().filter(|&count| View::some(count).is_some());
    count.ok_or_else(|| "must be 1, 4, 8 or 16".into())
}

/// Names of [`Complexity`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ComplexityName {
    /// Mean token entropy.
    TokenEntropy,
    /// Grey-level entropy of the picture so far.
    GreyLevels,
}

/// Names of [`KeyPointForce`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum KeyPointName {
    /// No force.
    Off,
    /// The paper's equations to the letter.
    IndexAdd,
    /// Toward the expected embedding.
    Attract,
    /// A sharper distribution.
    Sharpen,
}

/// Names of [`Decode`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DecodeName {
    /// The drawn code's embedding.
    Sampled,
    /// The mean embedding at the finest scale.
    ExpectedLast,
    /// The mean embedding at every scale.
    Expected,
}

impl GenerationArgs {
    /// The options, on top of `defaults`.
    ///
    /// # Errors
    /// [`Usage`] when a flag belongs to something that is off: it would be ignored without a word.
    pub fn options(&self, defaults: &GenerationOptions) -> Result<GenerationOptions> {
        let mut options = defaults.clone();
        if let Some(guidance) = &self.guidance {
            options.guidance = guidance.clone();
        }
        if let Some(name) = self.complexity {
            let Guidance::Complexity(guidance) = &mut options.guidance else {
                return Err(Usage("--complexity needs a triple: --guidance A,B,G".into()).into());
            };
            guidance.complexity = match name {
                ComplexityName::TokenEntropy => Complexity::TokenEntropy,
                ComplexityName::GreyLevels => Complexity::GreyLevels,
            };
        }
        if let Some(name) = self.key_points {
            options.key_points = match name {
                KeyPointName::Off => KeyPointForce::Off,
                KeyPointName::IndexAdd => KeyPointForce::IndexAdd { tau: 0.7 },
                KeyPointName::Attract => KeyPointForce::Attract { tau: 0.7, strength: 1.0 },
                KeyPointName::Sharpen => KeyPointForce::Sharpen { tau: 0.7, temperature: 0.5 },
            };
        }
        self.adjust(&mut options.key_points)?;
        if self.greedy {
            options.sampler = SamplerConfig::greedy();
        }
        options.sampler.temperature = self.temperature.unwrap_or(options.sampler.temperature);
        options.sampler.top_k = self.top_k.unwrap_or(options.sampler.top_k);
        options.sampler.top_p = self.top_p.unwrap_or(options.sampler.top_p);
        options.decode = match self.decode {
            None => options.decode,
            Some(DecodeName::Sampled) => Decode::Sampled,
            Some(DecodeName::ExpectedLast) => Decode::ExpectedLast,
            Some(DecodeName::Expected) => Decode::Expected,
        };
        Ok(options)
    }

    /// Puts `--tau`, `--strength` and `--sharpness` into the force that is chosen.
    fn adjust(&self, force: &mut KeyPointForce) -> Result<()> {
        let (mut tau, mut strength, mut sharpness) = (self.tau, self.strength, self.sharpness);
        match force {
            KeyPointForce::Off => {}
            KeyPointForce::IndexAdd { tau: own } => *own = tau.take().unwrap_or(*own),
            KeyPointForce::Attract { tau: own, strength: own_strength } => {
                *own = tau.take().unwrap_or(*own);
                *own_strength = strength.take().unwrap_or(*own_strength);
            }
            KeyPointForce::Sharpen { tau: own, temperature } => {
                *own = tau.take().unwrap_or(*own);
                *temperature = sharpness.take().unwrap_or(*temperature);
            }
        }
        let left = [
            (tau, "--tau needs --key-points index-add, attract or sharpen"),
            (strength, "--strength needs --key-points attract"),
            (sharpness, "--sharpness needs --key-points sharpen"),
        ];
        match left.into_iter().find(|(value, _)| value.is_some()) {
            Some((_, text)) => Err(Usage(text.into()).into()),
            None => Ok(()),
        }
    }
}

fn finite(text: &str) -> Result<f32, String> {
    let value: f32 = text.trim().parse().map_err(|_| format!("{text:?} is not a number"))?;
    if value.is_finite() { Ok(value) } else { Err(format!("{text} is not finite")) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use earthmapper::guidance::ComplexityGuidance;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        generation: GenerationArgs,
    }

    fn options(flags: &str, defaults: &GenerationOptions) -> Result<GenerationOptions> {
        let flags = Flags::try_parse_from(format!("x {flags}").split_whitespace())?;
        flags.generation.options(defaults)
    }

    #[test]
    fn nothing_given_is_the_models_choice() {
        let defaults = GenerationOptions {
            guidance: Guidance::Ramp(2.0),
            key_points: KeyPointForce::Sharpen { tau: 0.3, temperature: 0.9 },
            decode: Decode::ExpectedLast,
            ..Default::default()
        };
        assert_eq!(options("", &defaults).unwrap(), defaults);
        let tuned = options("--tau 0.5", &defaults).unwrap();
        assert_eq!(tuned.key_points, KeyPointForce::Sharpen { tau: 0.5, temperature: 0.9 });
    }

    #[test]
    fn every_flag_arrives() {
        let flags = "--guidance 8,6,4 --complexity grey-levels --key-points attract --tau 0.2 --strength 3 \
                     --temperature 0.5 --top-k 7 --top-p 0.4 --decode expected";
        let made = options(flags, &GenerationOptions::default()).unwrap();
        let mut guidance = ComplexityGuidance::new(8.0, 6.0, 4.0);
        guidance.complexity = Complexity::GreyLevels;
        assert_eq!(made.guidance, Guidance::Complexity(guidance));
        assert_eq!(made.key_points, KeyPointForce::Attract { tau: 0.2, strength: 3.0 });
        assert_eq!(made.sampler, SamplerConfig { temperature: 0.5, top_k: 7, top_p: 0.4 });
        assert_eq!(made.decode, Decode::Expected);
    }

    #[test]
    fn flags_without_effect_are_refused() {
        let plain = GenerationOptions::default();
        for flags in [
            "--complexity grey-levels",
            "--guidance off --complexity grey-levels",
            "--tau 0.5",
            "--key-points index-add --strength 2",
            "--key-points attract --sharpness 2",
            "--greedy --top-k 3",
            "--tau 1.5 --key-points attract",
            "--temperature 0",
            "--temperature NaN",
            "--top-p -1",
            "--guidance 1,2",
            "--guidance constant:inf",
        ] {
            assert!(options(flags, &plain).is_err(), "{flags}");
        }
    }
}
