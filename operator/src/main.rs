//! `sheaf-operator`: load, start, run, drain with a deadline.

use std::process::ExitCode;

use clap::Parser as _;
use sheaf_operator::app::settings::Settings;
use sheaf_operator::app::{self, AppError, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// A node's allocator: it gives memory back, of which an idle operator has little.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    if let Err(error) = telemetry::start(settings.log_format, &settings.log_level) {
        // There is no log to tell it to.
        let _ = std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("sheaf-operator: {error}\n").as_bytes(),
        );
        return ExitCode::FAILURE;
    }
    match run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "the operator has stopped");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> Result<(), AppError> {
    let stop = CancellationToken::new();
    let heard = |kind| {
        let what = "hear signals".to_owned();
        signal(kind).map_err(|source| AppError::Io { what, source })
    };
    let mut terminate = heard(SignalKind::terminate())?;
    let mut interrupt = heard(SignalKind::interrupt())?;
    let asked = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => info!("asked to stop by SIGTERM"),
            _ = interrupt.recv() => info!("asked to stop by SIGINT"),
        }
        asked.cancel();
    });
    app::run(settings, stop).await
}
