//! Files that are read again when they change: the settings', and the zone's.
//!
//! They are read every two seconds. A file that Kubernetes keeps is replaced by a link that
//! changes, and on other disks nobody tells of a change at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::app::changing::{Changing, zone_in};
use crate::app::settings::{Command, Settings, SettingsError, ZoneSource};
use crate::app::telemetry::Log;
use crate::blocking;

/// How long a change may go unnoticed.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Reads the settings once more, for a text in place of that of the file.
pub type Reload = Box<dyn Fn(String) -> Result<Command, SettingsError> + Send + Sync>;

/// Notices what changes in the files that the settings name, for as long as it is polled.
pub async fn watch(settings: Settings, reload: Reload, log: Log, changing: Arc<Changing>) {
    let zone_file = match &settings.zone {
        ZoneSource::File(path) => Some(path.clone()),
        ZoneSource::Settings(_) => None,
    };
    let mut zone = zone_file.map(|path| ZoneFile { path, refused: None });
    let mut file = settings.config.clone().map(|path| SettingsFile { path, seen: None, settings });
    loop {
        sleep(LOOK_AGAIN).await;
        if let Some(zone) = &mut zone {
            zone.look(&changing).await;
        }
        if let Some(file) = &mut file {
            file.look(&reload, &log, &changing).await;
        }
    }
}

struct ZoneFile {
    path: PathBuf,
    /// What was wrong with it the last time.
    refused: Option<String>,
}

impl ZoneFile {
    /// Takes over the zone that the file names, if it names another one.
    async fn look(&mut self, changing: &Changing) {
        match reading(&self.path, zone_in).await {
            // A zone that is known does not become unknown.
            Ok(None) => self.refused = None,
            Ok(named) => {
                self.refused = None;
                let is_new = |zone: &mut Option<String>| {
                    *zone != named && {
                        *zone = named.clone();
                        true
                    }
                };
                if changing.zone.send_if_modified(is_new) {
                    info!(zone = named, "the node knows its zone");
                }
            }
            Err(reason) if self.refused.as_ref() == Some(&reason) => {}
            Err(reason) => {
                warn!(file = %self.path.display(), reason, "the zone cannot be read");
                self.refused = Some(reason);
            }
        }
    }
}

struct SettingsFile {
    path: PathBuf,
    /// What it had the last time, or why it could not be read. Nothing before the first time,
    /// so that a change is noticed that came while the node started.
    seen: Option<Result<String, String>>,
    /// What the node runs with.
    settings: Settings,
}

impl SettingsFile {
    /// Takes over what may change while the node runs, if the file has changed.
    async fn look(&mut self, reload: &Reload, log: &Log, changing: &Changing) {
        let text = |path: &Path| std::fs::read_to_string(path).map_err(|error| error.to_string());
        let now = reading(&self.path, text).await;
        if self.seen.as_ref() == Some(&now) {
            return;
        }
        self.seen = Some(now.clone());
        let file = self.path.display();
        match now.map(reload) {
            Ok(Ok(Command::Run(settings))) => self.take_over(*settings, log, changing),
            Ok(Ok(Command::Print(_))) => {}
            Ok(Err(error)) => error!(%error, "the settings stay as they were"),
            Err(reason) => error!(%file, reason, "the settings stay as they were"),
        }
    }

    fn take_over(&mut self, now: Settings, log: &Log, changing: &Changing) {
        if now.log_level != self.settings.log_level {
            match log.set(&now.log_level) {
                Ok(()) => info!("the log has other events from now on"),
                Err(error) => error!(%error, "the log stays as it is"),
            }
        }
        let is_new = now.aggregations != self.settings.aggregations;
        let Settings { aggregations, log_level, .. } = now.clone();
        self.settings = Settings { aggregations, log_level, ..self.settings.clone() };
        if is_new {
            info!("the settings have other aggregations");
            changing.aggregations.send_replace(now.aggregations.clone());
        }
        if now != self.settings {
            warn!("some of the changed settings take effect at the next start only");
        }
    }
}

async fn reading<T: Send + 'static>(
    path: &Path,
    read: impl FnOnce(&Path) -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let path = path.to_owned();
    let done = blocking::run(move || read(&path)).await;
    done.unwrap_or_else(|interrupted| Err(interrupted.to_string()))
}

#[cfg(test)]
mod tests;
