//! `sheaf-node`: load, start, run, drain with a deadline.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use sheaf_node::app::settings::{Command, Settings, SettingsError};
use sheaf_node::app::telemetry::{self, Log};
use sheaf_node::app::{self, AppError};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// How long work that nobody waits for any more may take to end.
const LAST_WORK: Duration = Duration::from_secs(2);

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _scenario = sheaf_node::failpoint::from_environment();
    match load(|path| std::fs::read_to_string(path)) {
        Ok(Command::Run(settings)) => start(*settings),
        Ok(Command::Print(text)) => say(io::stdout(), &text, ExitCode::SUCCESS),
        Err(error) => {
            let text = format!("sheaf-node: {error}\n");
            say(io::stderr(), &text, ExitCode::from(SettingsError::EXIT_CODE))
        }
    }
}

/// Reads the command line and the environment, which stay as they are, and the file.
fn load(read_file: impl FnOnce(&Path) -> io::Result<String>) -> Result<Command, SettingsError> {
    Settings::load(std::env::args_os(), std::env::vars_os(), read_file)
}

fn say(mut to: impl Write, text: &str, code: ExitCode) -> ExitCode {
    // Whoever closed the pipe does not want to know.
    let _ = to.write_all(text.as_bytes());
    code
}

fn start(settings: Settings) -> ExitCode {
    let log = match telemetry::start(settings.log_format, &settings.log_level) {
        Ok(log) => log,
        Err(error) => {
            let text = format!("sheaf-node: start the log: {error}\n");
            return say(io::stderr(), &text, ExitCode::FAILURE);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.threads)
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(run(settings, log));
            // What a cancelled task has left in the database must not see the process's end: the
            // database's own globals would be gone.
            runtime.shutdown_timeout(LAST_WORK);
            ended
        }
        Err(source) => Err(AppError::Serve(source)),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(%error, "the node has stopped");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings, log: Log) -> Result<(), AppError> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(AppError::Serve)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(AppError::Serve)?;
    let asked = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => info!("asked to stop by SIGTERM"),
            _ = interrupt.recv() => info!("asked to stop by SIGINT"),
        }
        asked.cancel();
    });
    let reload = Box::new(|text| load(|_| Ok(text)));
    app::run(settings, reload, log, stop).await
}
