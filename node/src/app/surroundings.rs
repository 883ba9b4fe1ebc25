//! What a node stands on and looks at: its database, the time, the ways to others. A
//! simulation brings its own.

use std::io;
use std::sync::Arc;

use crate::app::engine::{Engine, EngineError};
use crate::app::room;
use crate::app::settings::{Settings, StatsFormat};
use crate::checkpoint::identity::Entropy;
use crate::cluster::peers::Peers;
use crate::event::time::Clock;
use crate::sink::Sink;
use crate::sink::stdout::{Format, Stdout};
use crate::store::Store;

/// What a node stands on and looks at.
pub struct Surroundings {
    /// What stamps are taken from.
    pub clock: Clock,
    /// What the birth of a new volume is made of.
    pub entropy: Entropy,
    /// The ways to other nodes.
    pub peers: Peers,
    /// Opens the node's database; may take long.
    pub store: Arc<dyn Fn() -> Result<Arc<Store>, EngineError> + Send + Sync>,
    /// Where closed windows go.
    pub sink: Box<dyn Fn() -> Box<dyn Sink> + Send + Sync>,
    /// The free bytes of the disk that the database is on.
    pub free: room::Free,
}

impl Surroundings {
    /// Those of a process of its own: this machine's disk, clock and network.
    pub fn of_machine(settings: &Settings) -> Surroundings {
        let opened = settings.clone();
        let folder = settings.data_dir.clone();
        let format = match settings.stats_format {
            StatsFormat::Json => Format::Json,
            StatsFormat::Text => Format::Text,
        };
        Surroundings {
            clock: Clock::system(),
            entropy: Entropy::of_system(),
            peers: Peers::over_tcp(),
            store: Arc::new(move || Engine::open_store(&opened)),
            sink: Box::new(move || Box::new(Stdout::new(io::stdout(), format))),
            free: Arc::new(move || room::free(&folder)),
        }
    }
}
