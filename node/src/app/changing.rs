//! Settings that take effect while the node runs.

use std::path::Path;

use tokio::sync::watch;

use crate::aggregation::definition::Definition;
use crate::app::settings::{Settings, ZoneSource, zone};

/// What may change while the node runs, as it is at the moment.
pub struct Changing {
    /// What is counted; never empty, and no two of one name.
    pub aggregations: watch::Sender<Vec<Definition>>,
    /// What this machine may fail together with, if it is known.
    pub zone: watch::Sender<Option<String>>,
}

impl Changing {
    /// As the settings, and the file of the zone if they name one, say it at the start.
    pub fn new(settings: &Settings) -> Changing {
        let zone = match &settings.zone {
            ZoneSource::Settings(zone) => zone.clone(),
            ZoneSource::File(path) => zone_in(path).unwrap_or_default(),
        };
        Changing {
            aggregations: watch::Sender::new(settings.aggregations.clone()),
            zone: watch::Sender::new(zone),
        }
    }
}

/// The zone that a file names; none while it is empty or is not there.
///
/// # Errors
/// When it has something else, and says what to write instead.
pub fn zone_in(path: &Path) -> Result<Option<String>, String> {
    match std::fs::read_to_string(path) {
        Ok(text) if text.trim().is_empty() => Ok(None),
        Ok(text) => zone(text.trim()).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}
