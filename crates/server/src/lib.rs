//! Map tiles made by a model when somebody looks at them: an HTTP server, and a page to look with.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | [`Config`]: the file that says where to listen and what to serve |
//! | [`sources`] | grounds by their id: COGs, folders, MBTiles, PMTiles, vector data |
//! | [`remote`] | tiles of other servers, from hosts that are allowed |
//! | [`demo`] | an invented town, served when nothing else is named |
//! | [`engine`] | the bounded queue and the one thread that owns the model |
//! | [`tiles`] | from a request for a tile to its bytes: caches, engine, formats |
//! | [`cache`], [`disk`] | what is kept, bounded in bytes |
//! | [`jobs`] | whole areas into PMTiles, over restarts |
//! | [`routes`] | what is served where, as `openapi.json` describes it |
//! | [`guard`], [`http`] | who may do what, and how slow a client may be |
//! | [`page`] | the page, embedded |
//! | [`metrics`] | what is counted, for Prometheus |
//!
//! A tile served is the tile that `earthmapper tile` makes of the same source with the same seed, to the pixel.

pub mod app;
pub mod cache;
pub mod config;
pub mod demo;
pub mod disk;
pub mod engine;
pub mod guard;
pub mod http;
pub mod jobs;
pub mod metrics;
pub mod page;
pub mod remote;
pub mod routes;
pub mod sources;
pub mod tiles;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

pub use app::{App, ServedModel, StartError};
pub use config::{Config, ConfigError};
pub use routes::router;

/// How often it is looked whether to stop.
const LOOK: Duration = Duration::from_millis(50);

/// Serves until `is_stopped`; then finishes what was begun. `on_listening` is told the address, whose port may have
/// been chosen by the operating system.
///
/// # Errors
/// [`StartError`].
pub fn run(
    config: Config,
    model: ServedModel,
    token: Option<String>,
    on_listening: impl FnOnce(SocketAddr),
    is_stopped: impl Fn() -> bool,
) -> Result<(), StartError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(StartError::System)?;
    runtime.block_on(async {
        let (address, limits) = (config.listen, config.limits);
        let listen = |cause| StartError::Listen { address, cause };
        // Before the sources are opened and the model is warm: a port that is taken is said at once.
        let listener = tokio::net::TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let app = App::start(Config { listen: address, ..config }, model, token)?;
        on_listening(address);
        let announcing = app.clone();
        let stop = async move {
            while !is_stopped() {
                tokio::time::sleep(LOOK).await;
            }
            announcing.announce_stop();
        };
        http::serve(listener, router(app.clone()), limits, stop).await;
        let _ = tokio::task::spawn_blocking(move || app.stop()).await;
        Ok(())
    })
}
