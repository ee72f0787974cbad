//! What the server is told in its file: where it listens, its sources, and how much it gives.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use earthmapper::scene::Seam;
use earthmapper_geo::BoundingBox;
use earthmapper_geo::dataset::SourceOptions;
use serde::Deserialize;

use crate::remote::Template;

/// First parts of paths that are the server's own, so that no source can be called so.
const RESERVED: [&str; 8] = ["v1", "assets", "catalog", "health", "ready", "metrics", "wmts", "openapi.json"];

/// What is wrong with a configuration. Each message ends with the cure.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {cause}; check the name", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        cause: std::io::Error,
    },
    /// The file is not understood.
    #[error("{}: {cause}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        cause: Box<toml::de::Error>,
    },
    /// A value cannot be meant.
    #[error("{key}: {problem}")]
    Value {
        /// Which key.
        key: String,
        /// What is wrong, and the cure.
        problem: String,
    },
}

/// The whole configuration. Every key has a default; unknown keys are errors.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// What clients call the server, for addresses in its answers; without it, what each request says.
    pub public_url: Option<String>,
    /// Folder for jobs and their results. Without it they go with the process.
    pub data: Option<PathBuf>,
    /// Whether the demo is served; without a word, when there is no other source.
    pub demo: Option<bool>,
    /// Whether pages from elsewhere may read tiles (`Access-Control-Allow-Origin: *`).
    pub open_to_other_pages: bool,
    /// The most that is given to a request.
    pub limits: Limits,
    /// How work waits for the model.
    pub engine: EngineOptions,
    /// What is kept.
    pub cache: CacheOptions,
    /// Tiles of other servers.
    pub remote: RemoteOptions,
    /// What is served.
    #[serde(rename = "source")]
    pub sources: Vec<SourceConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000),
            public_url: None,
            data: None,
            demo: None,
            open_to_other_pages: true,
            limits: Limits::default(),
            engine: EngineOptions::default(),
            cache: CacheOptions::default(),
            remote: RemoteOptions::default(),
            sources: Vec::new(),
        }
    }
}

/// The most that is given to a request.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Pixels of a picture that is sent.
    pub pixels: u64,
    /// Results of one request.
    pub samples: usize,
    /// Tiles of one job.
    pub job_tiles: u64,
    /// Jobs that wait or run.
    pub jobs_waiting: usize,
    /// Finished jobs that are kept; older ones go.
    pub jobs_kept: usize,
    /// Requests of one address that wait for the model at once.
    pub per_client: usize,
    /// Open connections.
    pub connections: usize,
    /// Seconds until the head of a request is there.
    pub head_seconds: u64,
    /// Seconds in which a client must take or give something.
    pub idle_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 32 << 20,
            pixels: 1 << 21,
            samples: 8,
            job_tiles: 20_000,
            jobs_waiting: 16,
            jobs_kept: 64,
            per_client: 64,
            connections: 1024,
            head_seconds: 10,
            idle_seconds: 30,
        }
    }
}

/// How work waits for the model.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct EngineOptions {
    /// Requests that wait; more are sent away with 503.
    pub queue: usize,
    /// Windows that the model translates at once.
    pub batch_size: usize,
    /// Seconds that a tile is waited for.
    pub tile_seconds: u64,
    /// Seconds that the answer to a POST is waited for.
    pub task_seconds: u64,
    /// Windows that are remembered per zoom for the neighbours of a tile.
    pub windows: usize,
    /// Pairs of source and zoom whose windows are remembered.
    pub pyramids: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { queue: 128, batch_size: 4, tile_seconds: 60, task_seconds: 180, windows: 64, pyramids: 6 }
    }
}

/// What is kept of what was made.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct CacheOptions {
    /// Megabytes in memory.
    pub memory_megabytes: u64,
    /// A folder for more, which outlasts the process.
    pub folder: Option<PathBuf>,
    /// Megabytes in the folder.
    pub folder_megabytes: u64,
    /// Seconds for which browsers and proxies may keep a tile without asking.
    pub max_age_seconds: u64,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self { memory_megabytes: 256, folder: None, folder_megabytes: 4096, max_age_seconds: 3600 }
    }
}

/// Which other servers may be asked for tiles, and how long.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct RemoteOptions {
    /// Hosts, with their port where addresses name one. None unless named.
    pub hosts: Vec<String>,
    /// Seconds that a tile is waited for.
    pub seconds: u64,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self { hosts: Vec::new(), seconds: 10 }
    }
}

/// One ground, with its photograph, its map, or both.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The name in addresses: 1 to 64 small letters, digits, `_` and `-`.
    pub id: String,
    /// The name for people.
    #[serde(default)]
    pub name: Option<String>,
    /// The photograph: a COG, a folder of tiles, MBTiles, PMTiles, or the address of another server's tiles.
    #[serde(default)]
    pub satellite: Option<SourceOptions>,
    /// The map: the same, or vector data.
    #[serde(default)]
    pub map: Option<SourceOptions>,
    /// Pixels a side of tiles cut from rasters or drawn.
    #[serde(default = "tile_side")]
    pub tile_side: u32,
    /// How tiles are joined, `blend` or `crop`.
    #[serde(default)]
    pub seam: SeamName,
    /// The lowest zoom served.
    #[serde(default)]
    pub min_zoom: Option<u8>,
    /// The deepest zoom served.
    #[serde(default)]
    pub max_zoom: Option<u8>,
    /// The ground of another server's tiles: west, south, east, north in degrees.
    #[serde(default)]
    pub bounds: Option<BoundingBox>,
    /// Serve zooms whose pixels are far from the model's, too.
    #[serde(default)]
    pub force: bool,
    /// Changes the names of what is cached: for sources that change under the same name and time.
    #[serde(default)]
    pub version: String,
}

fn tile_side() -> u32 {
    256
}

/// Names of [`Seam`]; outpainting depends on which tiles were made before, and tiles must not.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum SeamName {
    /// [`Seam::Blend`].
    #[default]
    Blend,
    /// [`Seam::Crop`].
    Crop,
}

impl From<SeamName> for Seam {
    fn from(name: SeamName) -> Self {
        match name {
            SeamName::Blend => Self::Blend,
            SeamName::Crop => Self::Crop,
        }
    }
}

impl Config {
    /// Reads a file. Paths in it are relative to the folder that the program is started in.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|cause| ConfigError::Unreadable { path: path.into(), cause })?;
        let config: Self = toml::from_str(&text)
            .map_err(|cause| ConfigError::Parse { path: path.into(), cause: Box::new(cause) })?;
        config.check()?;
        Ok(config)
    }

    /// Whether the demo is served.
    pub fn with_demo(&self) -> bool {
        self.demo.unwrap_or(self.sources.is_empty())
    }

    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key: &str, problem: &str| {
            Err(ConfigError::Value { key: key.to_owned(), problem: problem.to_owned() })
        };
        if let Some(url) = &self.public_url
            && (!(url.starts_with("http://") || url.starts_with("https://"))
                || url.contains(|c: char| c.is_whitespace() || c.is_control() || "\"<>?#{}".contains(c)))
        {
            return wrong("public_url", "must begin with http:// or https:// and hold no ? or #");
        }
        for (key, value) in [
            ("limits.body_bytes", self.limits.body_bytes as u64),
            ("limits.pixels", self.limits.pixels),
            ("limits.samples", self.limits.samples as u64),
            ("limits.per_client", self.limits.per_client as u64),
            ("limits.connections", self.limits.connections as u64),
            ("limits.head_seconds", self.limits.head_seconds),
            ("limits.idle_seconds", self.limits.idle_seconds),
            ("engine.queue", self.engine.queue as u64),
            ("engine.batch_size", self.engine.batch_size as u64),
            ("engine.pyramids", self.engine.pyramids as u64),
            ("remote.seconds", self.remote.seconds),
        ] {
            if value == 0 {
                return wrong(key, "is 0; give 1 or more");
            }
        }
        let mut seen = HashSet::new();
        for source in &self.sources {
            source.check(&self.remote)?;
            if !seen.insert(&source.id) || (self.with_demo() && source.id == crate::demo::ID) {
                return wrong(&format!("source {:?}", source.id), "is there twice; give each its own id");
            }
        }
        if self.sources.is_empty() && !self.with_demo() {
            return wrong("source", "is missing and the demo is off; name a source");
        }
        Ok(())
    }
}

impl SourceConfig {
    fn check(&self, remote: &RemoteOptions) -> Result<(), ConfigError> {
        let wrong = |key: &str, problem: &str| {
            Err(ConfigError::Value { key: format!("source {:?}: {key}", self.id), problem: problem.into() })
        };
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        if self.id.is_empty() || self.id.len() > 64 || !self.id.bytes().all(allowed) {
            return wrong("id", "use 1 to 64 small letters, digits, _ and -");
        }
        if RESERVED.contains(&self.id.as_str()) {
            return wrong("id", "is a word of the server's own; choose another");
        }
        if self.satellite.is_none() && self.map.is_none() {
            return wrong("satellite, map", "are both missing; name one or both");
        }
        if !(64..=1024).contains(&self.tile_side) {
            return wrong("tile_side", "must be 64 to 1024 pixels");
        }
        if self.min_zoom.zip(self.max_zoom).is_some_and(|(low, high)| low > high) {
            return wrong("min_zoom", "is above max_zoom");
        }
        let layers = || [&self.satellite, &self.map].into_iter().flatten();
        for layer in layers() {
            if let Some(template) = remote_tiles(layer) {
                let checked = template.and_then(|template| self.check_remote(layer, &template, remote));
                checked.or_else(|problem| wrong("path", &problem))?;
            }
        }
        if self.bounds.is_some() && layers().all(|layer| remote_tiles(layer).is_none()) {
            return wrong("bounds", "is for tiles of another server; files say themselves where they lie");
        }
        Ok(())
    }

    /// What another server's tiles need, since nobody is asked about them.
    fn check_remote(
        &self,
        layer: &SourceOptions,
        template: &Template,
        remote: &RemoteOptions,
    ) -> Result<(), String> {
        let host = template.authority();
        if !remote.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host)) {
            return Err(format!(
                "is an address, and {host} is not allowed; if it may be asked, add it to hosts in [remote]"
            ));
        }
        if self.bounds.is_none() || self.min_zoom.is_none() || self.max_zoom.is_none() {
            return Err("is an address, which needs bounds, min_zoom and max_zoom beside it".into());
        }
        if layer.attribution.is_none() {
            return Err("is an address, which needs an attribution: whose tiles are these?".into());
        }
        let plain = SourceOptions {
            attribution: layer.attribution.clone(),
            licence: layer.licence.clone(),
            ..SourceOptions::new(&layer.path)
        };
        if *layer != plain {
            return Err("is an address, with which only attribution and licence go".into());
        }
        Ok(())
    }
}

/// The address that stands in place of a path, if one does.
pub(crate) fn remote_tiles(layer: &SourceOptions) -> Option<Result<Template, String>> {
    let text = layer.path.to_string_lossy();
    text.contains("://").then(|| Template::parse(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn nothing_is_the_demo_on_this_machine_only() {
        let config = parsed("").unwrap();
        assert!(config.with_demo() && config.listen.ip().is_loopback());
        let config = parsed("[[source]]\nid = \"a\"\nmap = { path = \"a.pmtiles\" }").unwrap();
        assert!(!config.with_demo());
        assert_eq!(config.sources[0].tile_side, 256);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let source = |body: &str| format!("[[source]]\n{body}\n");
        for (text, word) in [
            ("lisen = \"0.0.0.0:1\"".to_owned(), "lisen"),
            ("public_url = \"ftp://a\"".to_owned(), "http"),
            ("public_url = \"http://a/?x\"".to_owned(), "http"),
            ("demo = false".to_owned(), "source"),
            ("[limits]\npixels = 0".to_owned(), "limits.pixels"),
            (source("id = \"a\""), "both missing"),
            (source("id = \"../a\"\nmap = { path = \"a\" }"), "letters"),
            (source("id = \"v1\"\nmap = { path = \"a\" }"), "server's own"),
            (source("id = \"a\"\nmap = { path = \"https://a/b.tif\" }"), "{z}"),
            (source("id = \"a\"\nmap = { path = \"https://a/{z}/{x}/{y}.png\" }"), "a is not allowed"),
            (source("id = \"a\"\nbounds = [0, 0, 1, 1]\nmap = { path = \"a\" }"), "another server"),
            (source("id = \"a\"\nmap = { path = \"a\" }\nmin_zoom = 3\nmax_zoom = 2"), "above"),
            (source("id = \"a\"\nmap = { path = \"a\" }\n").repeat(2), "twice"),
            (format!("demo = true\n{}", source("id = \"town\"\nmap = { path = \"a\" }")), "twice"),
        ] {
            let error = parsed(&text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn other_servers_are_asked_only_when_named() {
        let with = |hosts: &str, rest: &str, layer: &str| {
            let address = "https://tiles.example.org/{z}/{x}/{y}.png";
            parsed(&format!(
                "remote.hosts = [{hosts}]\n[[source]]\nid = \"a\"\n{rest}\nmap = {{ path = \"{address}\"{layer} }}"
            ))
        };
        let (host, credit) = ("\"Tiles.Example.org\"", ", attribution = \"they\"");
        let ground = "bounds = [0, 0, 1, 1]\nmin_zoom = 14\nmax_zoom = 16";
        assert!(with(host, ground, credit).unwrap().sources[0].bounds.is_some());
        for (hosts, rest, layer, word) in [
            ("", ground, credit, "not allowed"),
            ("\"example.org\"", ground, credit, "not allowed"),
            ("\"tiles.example.org:8443\"", ground, credit, "not allowed"),
            ("\"*\"", ground, credit, "not allowed"),
            (host, "min_zoom = 14\nmax_zoom = 16", credit, "bounds"),
            (host, "bounds = [0, 0, 1, 1]\nmax_zoom = 16", credit, "min_zoom"),
            (host, ground, "", "attribution"),
            (host, ground, ", attribution = \"they\", bands = [1]", "only attribution"),
        ] {
            let error = with(hosts, rest, layer).unwrap_err();
            assert!(error.contains(word), "{hosts} {rest} {layer}: {error}");
        }
    }

    #[test]
    fn errors_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serve.toml");
        assert!(matches!(Config::read(&path), Err(ConfigError::Unreadable { .. })));
        std::fs::write(&path, "demo = 7").unwrap();
        let error = Config::read(&path).unwrap_err().to_string();
        assert!(error.contains("serve.toml") && error.contains("demo"), "{error}");
        std::fs::write(&path, "demo = true\n[cache]\nmemory_megabytes = 8\n").unwrap();
        assert_eq!(Config::read(&path).unwrap().cache.memory_megabytes, 8);
    }
}
