use std::fs;

use tempfile::TempDir;

use super::*;
use crate::aggregation::definition::Definition;

/// Files that are watched, and what came of it.
struct Watched {
    folder: TempDir,
    changing: Arc<Changing>,
    levels: Arc<std::sync::Mutex<Vec<String>>>,
}

fn load(path: &Path, text: String) -> Result<Command, SettingsError> {
    let zone = path.with_file_name("zone");
    let arguments =
        [Path::new("sheaf-node"), "--config".as_ref(), path, "--zone-file".as_ref(), &zone];
    Settings::load(arguments.map(Into::into), [], |_| Ok(text))
}

impl Watched {
    /// Files with these contents, which are watched from now on.
    fn begin(settings: &str, zone: Option<&str>) -> Watched {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sheaf.yaml");
        fs::write(&path, settings).unwrap();
        if let Some(zone) = zone {
            fs::write(folder.path().join("zone"), zone).unwrap();
        }
        let Ok(Command::Run(loaded)) = load(&path, settings.to_owned()) else {
            panic!("bad settings")
        };
        let (changing, levels) = (Arc::new(Changing::new(&loaded)), Arc::default());
        let reload: Reload = Box::new(move |text| load(&path, text));
        let log = Log::told(Arc::clone(&levels));
        tokio::spawn(watch(*loaded, reload, log, Arc::clone(&changing)));
        Watched { folder, changing, levels }
    }

    /// Writes a file as Kubernetes does: by putting another one in its place.
    fn replace(&self, file: &str, text: &str) {
        let (new, path) = (self.folder.path().join("new"), self.folder.path().join(file));
        fs::write(&new, text).unwrap();
        fs::rename(&new, path).unwrap();
    }

    /// Waits until a change must have been noticed.
    async fn noticed(&self) {
        sleep(2 * LOOK_AGAIN).await;
    }

    fn zone(&self) -> Option<String> {
        self.changing.zone.borrow().clone()
    }

    fn aggregations(&self) -> Vec<String> {
        let aggregations = self.changing.aggregations.borrow();
        aggregations.iter().map(|Definition { name, .. }| name.as_str().to_owned()).collect()
    }

    fn levels(&self) -> Vec<String> {
        self.levels.lock().unwrap().clone()
    }
}

fn counting(attribute: &str) -> String {
    format!("attribute: {attribute}\n")
}

#[tokio::test(start_paused = true)]
async fn a_zone_may_be_filled_in_later_and_changed() {
    for begin in [None, Some(""), Some("\n")] {
        let watched = Watched::begin(&counting("foo"), begin);
        assert_eq!(watched.zone(), None);
        watched.replace("zone", "eu-1a\n");
        watched.noticed().await;
        assert_eq!(watched.zone().as_deref(), Some("eu-1a"));
        watched.replace("zone", "eu-1b");
        watched.noticed().await;
        assert_eq!(watched.zone().as_deref(), Some("eu-1b"));
    }
    assert_eq!(Watched::begin("", Some("eu-1a\n")).zone().as_deref(), Some("eu-1a"));
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_is_known_does_not_become_unknown() {
    let watched = Watched::begin(&counting("foo"), Some("eu-1a"));
    for text in ["", "not a zone", "eu-1a"] {
        watched.replace("zone", text);
        watched.noticed().await;
        assert_eq!(watched.zone().as_deref(), Some("eu-1a"), "{text}");
    }
    fs::remove_file(watched.folder.path().join("zone")).unwrap();
    watched.noticed().await;
    assert_eq!(watched.zone().as_deref(), Some("eu-1a"));
}

#[tokio::test(start_paused = true)]
async fn aggregations_that_change_in_the_file_are_told_once() {
    let watched = Watched::begin(&counting("foo"), None);
    let mut told = watched.changing.aggregations.subscribe();
    watched.noticed().await;
    assert!(!told.has_changed().unwrap(), "nothing has changed");
    watched.replace("sheaf.yaml", &counting("bar"));
    watched.noticed().await;
    assert_eq!(watched.aggregations(), ["by-bar"]);
    told.mark_unchanged();
    watched.replace("sheaf.yaml", &format!("# the same\n{}", counting("bar")));
    watched.noticed().await;
    assert!(!told.has_changed().unwrap(), "only a remark has");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_used_changes_nothing_until_it_can() {
    let watched = Watched::begin(&counting("foo"), None);
    for text in ["attribute: []\n", "atribute: bar\n", "attribute: bar\nlogLevel: loud\n"] {
        watched.replace("sheaf.yaml", text);
        watched.noticed().await;
        assert_eq!((watched.aggregations(), watched.levels()), (vec!["by-foo".to_owned()], vec![]));
    }
    fs::remove_file(watched.folder.path().join("sheaf.yaml")).unwrap();
    watched.noticed().await;
    assert_eq!(watched.aggregations(), ["by-foo"]);
    watched.replace("sheaf.yaml", &counting("bar"));
    watched.noticed().await;
    assert_eq!(watched.aggregations(), ["by-bar"]);
}

#[tokio::test(start_paused = true)]
async fn the_log_is_changed_once_and_what_needs_a_restart_is_left_alone() {
    let watched = Watched::begin(&counting("foo"), None);
    watched.replace("sheaf.yaml", "attribute: foo\nlogLevel: debug\nqueueSize: 1GiB\n");
    watched.noticed().await;
    watched.replace("sheaf.yaml", "attribute: foo\nlogLevel: debug\n");
    watched.noticed().await;
    assert_eq!(watched.levels(), ["openraft=warn,debug"]);
    assert_eq!(watched.aggregations(), ["by-foo"]);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_came_while_the_node_started_is_noticed() {
    let watched = Watched::begin(&counting("foo"), None);
    watched.replace("sheaf.yaml", &counting("bar"));
    watched.noticed().await;
    assert_eq!(watched.aggregations(), ["by-bar"]);
}
