//! What outputs of a model say about themselves.

use earthmapper_geo::{Place, Provenance};

use crate::config::EarthMapperConfig;
use crate::translator::GenerationOptions;

impl EarthMapperConfig {
    /// The label of an output: everything needed to make it again. `source` is a name, never a path: where a file lay on
    /// somebody's machine is nobody's business.
    pub fn label(
        &self,
        task: &str,
        seed: u64,
        source: Option<String>,
        place: Option<Place>,
        options: &GenerationOptions,
    ) -> Provenance {
        let mut provenance = Provenance::new(self.name.clone(), task);
        provenance.seed = Some(seed);
        provenance.source = source;
        provenance.extra.insert("options".into(), serde_json::to_string(options).expect("plain data"));
        if let Some(place) = place {
            provenance.extra.insert("place".into(), serde_json::to_string(&place).expect("plain data"));
        }
        provenance
    }
}
