//! Who said what, and who wins.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;

use clap::FromArgMatches;

use super::SettingsError;
use super::flags::{self, Flags};

/// Where a value comes from, as an error names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A flag, without its dashes.
    Flag(String),
    /// An environment variable.
    Variable(String),
    /// A key of the settings file.
    File {
        /// The file.
        path: PathBuf,
        /// The line of the value, from 1.
        line: u64,
        /// The key.
        key: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) => write!(f, "flag --{name}"),
            Origin::Variable(name) => write!(f, "environment variable {name}"),
            Origin::File { path, line, key } => write!(f, "{}:{line}: {key}", path.display()),
        }
    }
}

/// What one or more sources say, by the name of the setting (`data_dir`).
#[derive(Debug, Default)]
pub(super) struct Given(BTreeMap<String, (Origin, Vec<OsString>)>);

impl Given {
    pub(super) fn set(&mut self, id: &str, origin: Origin, values: Vec<OsString>) {
        self.0.insert(id.to_owned(), (origin, values));
    }

    /// Replaces what the stronger source says too; a list is replaced as a whole.
    pub(super) fn overrule_with(&mut self, stronger: Given) {
        self.0.extend(stronger.0);
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.0.contains_key(id)
    }

    pub(super) fn origin(&self, id: &str) -> Option<&Origin> {
        self.0.get(id).map(|(origin, _)| origin)
    }

    pub(super) fn path(&self, id: &str) -> Option<PathBuf> {
        self.0.get(id).and_then(|(_, values)| values.last()).map(PathBuf::from)
    }

    /// The values as flags, with defaults for what nobody said.
    pub(super) fn flags(&self) -> Result<Flags, String> {
        let mut line = vec![OsString::from("sheaf-node")];
        for (id, (_, values)) in &self.0 {
            line.extend(values.iter().map(|value| flags::flag(id, value)));
        }
        flags::command()
            .try_get_matches_from(line)
            .and_then(|matches| Flags::from_arg_matches(&matches))
            .map_err(|error| flags::one_line(&error))
    }
}

/// What the variables say that begin with `SHEAF_`; an empty one says nothing.
pub(super) fn from_environment(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Given, SettingsError> {
    let command = flags::command();
    let mut given = Given::default();
    for (name, value) in environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with("SHEAF_")) else {
            continue;
        };
        if value.is_empty() || is_service_link(name) {
            continue;
        }
        let origin = Origin::Variable(name.to_owned());
        let Some(setting) = command.get_arguments().find(|arg| flags::variable(arg) == name) else {
            let reason = "there is no such setting (see --help)".to_owned();
            return Err(SettingsError::Invalid { origin, reason });
        };
        let id = setting.get_id().as_str();
        let values = if flags::is_list(setting) { between_commas(&value) } else { vec![value] };
        for value in &values {
            flags::check(id, value)
                .map_err(|reason| SettingsError::Invalid { origin: origin.clone(), reason })?;
        }
        given.set(id, origin, values);
    }
    Ok(given)
}

fn between_commas(list: &OsStr) -> Vec<OsString> {
    match list.to_str() {
        Some(text) => text.split(',').map(|item| item.trim().into()).collect(),
        None => vec![list.to_owned()],
    }
}

/// Whether Kubernetes set the variable, for a Service whose name begins with "sheaf".
///
/// Such are `SHEAF_SERVICE_HOST`, `SHEAF_SERVICE_PORT_OTLP`, `SHEAF_PORT`
/// and `SHEAF_PORT_4317_TCP_ADDR`; no setting has a name of these forms.
fn is_service_link(name: &str) -> bool {
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT")
        || ["_TCP", "_UDP", "_SCTP"].iter().any(|protocol| name.contains(protocol))
}
