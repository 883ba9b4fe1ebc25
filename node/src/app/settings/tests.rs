use std::cell::Cell;

use super::*;
use crate::aggregation::definition::Unique;

const FILE: &str = "sheaf.yaml";

/// The result for flags, variables and the content of a file (none if empty).
fn load(flags: &[&str], variables: &[(&str, &str)], file: &str) -> Result<Settings, String> {
    let mut arguments = vec!["sheaf-node"];
    if !file.is_empty() {
        arguments.extend(["--config", FILE]);
    }
    arguments.extend(flags);
    let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
    let read = |path: &Path| {
        assert_eq!(path, Path::new(FILE));
        Ok(file.to_owned())
    };
    match Settings::load(arguments.into_iter().map(OsString::from), variables, read) {
        Ok(Command::Run(settings)) => Ok(*settings),
        Ok(Command::Print(text)) => panic!("printed {text}"),
        Err(error) => Err(error.to_string()),
    }
}

fn refusal(flags: &[&str], variables: &[(&str, &str)], file: &str) -> String {
    let line = load(flags, variables, file).unwrap_err();
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

/// Name, attribute, uniqueness and seconds of each aggregation.
fn counts(settings: &Settings) -> Vec<(&str, &str, Unique, u32)> {
    let list = settings.aggregations.iter();
    list.map(|Definition { name, kind }| {
        let Kind::DistinctLogs(distinct) = kind else { panic!("{name} does not count") };
        (name.as_str(), distinct.attribute.as_str(), distinct.unique, distinct.window.seconds())
    })
    .collect()
}

/// The initial members, as text.
fn members(settings: &Settings) -> Vec<String> {
    settings.initial_members.addresses().iter().map(ToString::to_string).collect()
}

#[test]
fn a_node_that_is_told_nothing_runs_with_the_defaults() {
    let settings = load(&[], &[], "").unwrap();
    assert_eq!(settings.data_dir, Path::new("./data"));
    assert_eq!(counts(&settings), [("by-service-name", "service.name", Unique::Body, 10)]);
    assert_eq!(settings.otlp_grpc_listen.to_string(), "0.0.0.0:4317");
    assert_eq!(settings.otlp_http_listen.to_string(), "0.0.0.0:4318");
    assert_eq!(settings.chunk_http_listen.to_string(), "0.0.0.0:8080");
    assert_eq!(settings.admin_listen.to_string(), "0.0.0.0:9464");
    assert_eq!(settings.peer_listen.to_string(), "0.0.0.0:9465");
    assert_eq!(settings.control_listen.to_string(), "127.0.0.1:9466");
    assert_eq!(settings.control_token_file, None);
    assert_eq!(settings.zone, ZoneSource::Settings(None));
    assert_eq!(settings.copies, Copies::ONE);
    assert_eq!(settings.voters, Voters::FIVE);
    assert_eq!(settings.stats_format, StatsFormat::Json);
    assert_eq!(settings.stats_limit, 1000);
    assert_eq!(settings.log_format, LogFormat::Text);
    assert_eq!(settings.log_level.to_env_filter().to_string(), "openraft=warn,info");
    assert_eq!(settings.max_request_size, 64 << 20);
    assert_eq!(settings.queue_size, 192 << 20);
    assert_eq!(settings.memory_limit, 256 << 20);
    assert_eq!(settings.disk_reserve, 1 << 30);
    assert_eq!(settings.journal_limit, 4 << 30);
    assert_eq!(settings.drain_timeout, Duration::from_secs(25));
    assert_eq!(settings.connection_max_age, Duration::from_secs(300));
    assert!(settings.threads >= 1);
}

#[test]
fn the_default_ports_are_those_that_the_client_knows() {
    let settings = load(&[], &[], "").unwrap();
    assert_eq!(settings.otlp_grpc_listen.port(), sheaf_proto::names::OTLP_GRPC_PORT);
    assert_eq!(settings.otlp_http_listen.port(), sheaf_proto::names::OTLP_HTTP_PORT);
    assert_eq!(settings.chunk_http_listen.port(), sheaf_proto::names::CHUNK_PORT);
    assert_eq!(settings.admin_listen.port(), sheaf_proto::names::ADMIN_PORT);
    assert_eq!(settings.peer_listen.port(), sheaf_proto::names::PEER_PORT);
    assert_eq!(settings.control_listen.port(), sheaf_proto::names::CONTROL_PORT);
}

#[test]
fn a_flag_is_stronger_than_a_variable_and_a_variable_than_the_file() {
    let file = "statsLimit: 1\nthreads: 1\nwindow: 1\n";
    let variables = [("SHEAF_STATS_LIMIT", "2"), ("SHEAF_THREADS", "2")];
    let settings = load(&["--stats-limit", "3"], &variables, file).unwrap();
    assert_eq!((settings.stats_limit, settings.threads), (3, 2));
    assert_eq!(counts(&settings)[0].3, 1);
}

#[test]
fn every_setting_can_be_given_by_file() {
    let file = r#"
dataDir: /srv/sheaf
attribute: [foo, K8s.Pod]
window: 1m 30s
unique: none
otlpGrpcListen: "[::1]:1"
otlpHttpListen: 127.0.0.1:2
chunkHttpListen: 127.0.0.1:7
adminListen: 127.0.0.1:3
peerListen: 127.0.0.1:4
peerAddress: Sheaf-0.sheaf:5
initialMembers: [sheaf-0.sheaf:5, "[fd00::1]:5"]
initialCount: 4
controlListen: 0.0.0.0:6
controlTokenFile: /run/token
zone: eu_1.a-b
voters: 3
statsFormat: text
statsLimit: 7
logFormat: json
logLevel: warn,sheaf_node=debug
maxRequestSize: 1MiB
queueSize: 4MB
memoryLimit: 8388608
diskReserve: 0
journalLimit: 1.5GiB
drainTimeout: 500ms
connectionMaxAge: 90s
threads: 5
"#;
    let settings = load(&[], &[], file).unwrap();
    assert_eq!(settings.data_dir, Path::new("/srv/sheaf"));
    assert_eq!(
        counts(&settings),
        [("by-foo", "foo", Unique::None, 90), ("by-k8s-pod", "K8s.Pod", Unique::None, 90)]
    );
    assert_eq!(settings.otlp_grpc_listen.to_string(), "[::1]:1");
    assert_eq!(settings.otlp_http_listen.port(), 2);
    assert_eq!(settings.chunk_http_listen.port(), 7);
    assert_eq!(settings.admin_listen.port(), 3);
    assert_eq!(settings.peer_listen.port(), 4);
    assert_eq!(settings.peer_address.to_string(), "sheaf-0.sheaf:5");
    assert_eq!(members(&settings), ["sheaf-0.sheaf:5", "[fd00::1]:5"]);
    assert_eq!(settings.initial_members.count(), 4);
    assert_eq!(settings.control_listen.port(), 6);
    assert_eq!(settings.control_token_file.as_deref(), Some(Path::new("/run/token")));
    assert_eq!(settings.zone, ZoneSource::Settings(Some("eu_1.a-b".to_owned())));
    assert_eq!(Ok(settings.voters), Voters::try_from(3));
    assert_eq!(settings.stats_format, StatsFormat::Text);
    assert_eq!(settings.stats_limit, 7);
    assert_eq!(settings.log_format, LogFormat::Json);
    assert_eq!(
        settings.log_level.to_env_filter().to_string(),
        "sheaf_node=debug,openraft=warn,warn"
    );
    assert_eq!((settings.max_request_size, settings.queue_size), (1 << 20, 4_000_000));
    assert_eq!((settings.memory_limit, settings.disk_reserve), (8 << 20, 0));
    assert_eq!(settings.journal_limit, 3 << 29);
    assert_eq!(settings.drain_timeout, Duration::from_millis(500));
    assert_eq!(settings.connection_max_age, Duration::from_secs(90));
    assert_eq!(settings.threads, 5);
}

#[test]
fn every_setting_has_a_flag_a_variable_and_a_default_in_the_help() {
    let arguments = ["sheaf-node", "--help"].map(OsString::from);
    let Ok(Command::Print(help)) = Settings::load(arguments, [], |_| unreachable!()) else {
        panic!("no help")
    };
    let words: Vec<&str> = help.split_whitespace().collect();
    let help = words.join(" ");
    for setting in [
        "data-dir",
        "attribute",
        "window",
        "unique",
        "otlp-grpc-listen",
        "otlp-http-listen",
        "chunk-http-listen",
        "admin-listen",
        "peer-listen",
        "control-listen",
        "control-token-file",
        "peer-address",
        "initial-members",
        "initial-count",
        "zone",
        "zone-file",
        "copies",
        "voters",
        "stats-format",
        "stats-limit",
        "log-format",
        "log-level",
        "max-request-size",
        "queue-size",
        "memory-limit",
        "disk-reserve",
        "journal-limit",
        "drain-timeout",
        "connection-max-age",
        "threads",
    ] {
        let (_, about) = help.split_once(&format!("--{setting} <")).unwrap();
        let about = about.split(" --").next().unwrap();
        let variable = format!("[env: SHEAF_{}]", setting.replace('-', "_").to_uppercase());
        assert!(about.contains(&variable), "{about}");
        assert!(about.contains("[default: "), "{about}");
    }
}

#[test]
fn the_list_of_a_file_is_taken_in_its_order() {
    let file = "
aggregations:
  - {name: by-foo, type: DistinctLogs, distinctLogs: {attribute: foo, unique: Record, windowSeconds: 60}}
  - name: all
    type: DistinctLogs
    distinctLogs:
      attribute: bar
";
    let settings = load(&[], &[], file).unwrap();
    assert_eq!(
        counts(&settings),
        [("by-foo", "foo", Unique::Record, 60), ("all", "bar", Unique::Body, 10)]
    );
}

const LIST: &str =
    "aggregations: [{name: a, type: DistinctLogs, distinctLogs: {attribute: foo}}]\n";

#[test]
fn an_attribute_by_flag_or_variable_replaces_the_list_of_the_file() {
    let by_flag = load(&["--attribute", "bar", "--window", "5s"], &[], LIST).unwrap();
    assert_eq!(counts(&by_flag), [("by-bar", "bar", Unique::Body, 5)]);
    let by_variable = load(&[], &[("SHEAF_ATTRIBUTE", "x, y")], LIST).unwrap();
    assert_eq!(counts(&by_variable).iter().map(|count| count.1).collect::<Vec<_>>(), ["x", "y"]);
}

#[test]
fn the_attributes_of_a_stronger_source_replace_those_of_a_weaker_one() {
    let variables = [("SHEAF_ATTRIBUTE", "b,c")];
    let settings =
        load(&["--attribute", "d", "--attribute=e"], &variables, "attribute: a").unwrap();
    assert_eq!(counts(&settings).iter().map(|count| count.1).collect::<Vec<_>>(), ["d", "e"]);
}

#[test]
fn a_window_or_uniqueness_that_the_list_would_hide_is_refused() {
    for line in [
        refusal(&["--window", "5s"], &[], LIST),
        refusal(&[], &[("SHEAF_UNIQUE", "None")], LIST),
        refusal(&[], &[], &format!("{LIST}attribute: foo\n")),
    ] {
        assert!(line.contains("does not change the aggregations of sheaf.yaml"), "{line}");
    }
    assert!(refusal(&["--window", "5s"], &[], LIST).starts_with("flag --window"));
    assert!(refusal(&[], &[], &format!("{LIST}window: 1s\n")).starts_with("sheaf.yaml:2: window"));
}

#[test]
fn two_attributes_that_make_one_name_are_refused() {
    let line = refusal(&["--attribute", "a.b", "--attribute", "a-b"], &[], "");
    assert!(line.contains("by-a-b"), "{line}");
}

#[test]
fn an_unknown_setting_is_named_with_its_source() {
    let line = refusal(&["--windwo", "1s"], &[], "");
    assert!(line.contains("'--windwo'") && line.contains("'--window'"), "{line}");
    let line = refusal(&[], &[("SHEAF_WINDWO", "1s")], "");
    assert!(line.starts_with("environment variable SHEAF_WINDWO: there is no"), "{line}");
    let line = refusal(&[], &[], "threads: 1\nwindwo: {a: [1]}\n");
    assert!(line.starts_with("sheaf.yaml:2: windwo: there is no"), "{line}");
    let line = refusal(&[], &[], "config: other.yaml\n");
    assert!(line.starts_with("sheaf.yaml:1: config: there is no"), "{line}");
}

#[test]
fn a_bad_value_is_named_with_its_source_even_if_a_stronger_one_overrules_it() {
    let line = refusal(&["--window", "10x"], &[], "");
    assert!(line.contains("'10x'") && line.contains("--window"), "{line}");
    let line = refusal(&["--window", "1s"], &[("SHEAF_WINDOW", "10x")], "");
    assert!(
        line.starts_with("environment variable SHEAF_WINDOW: invalid value '10x': write"),
        "{line}"
    );
    let line = refusal(&["--window", "1s"], &[], "threads: 1\n\nwindow: 10x\n");
    assert!(line.starts_with("sheaf.yaml:3: window: invalid value '10x': write"), "{line}");
}

#[test]
fn values_outside_their_range_are_refused() {
    for (flag, value) in [
        ("window", "0"),
        ("window", "1.5s"),
        ("window", "-1s"),
        ("window", "2d"),
        ("window", ""),
        ("attribute", ""),
        ("unique", "Bodies"),
        ("data-dir", ""),
        ("otlp-grpc-listen", "4317"),
        ("otlp-http-listen", "localhost:4318"),
        ("chunk-http-listen", "8080"),
        ("admin-listen", ":9464"),
        ("peer-listen", "sheaf-0.sheaf:9465"),
        ("peer-address", "sheaf-0.sheaf"),
        ("peer-address", "0.0.0.0:9465"),
        ("peer-address", "10.0.0.1:0"),
        ("initial-members", ""),
        ("initial-members", "9465"),
        ("initial-members", "a:1,,b:1"),
        ("initial-count", "0"),
        ("initial-count", "1001"),
        ("control-listen", "9466"),
        ("control-token-file", ""),
        ("zone-file", ""),
        ("voters", "0"),
        ("voters", "2"),
        ("voters", "7"),
        ("voters", "all"),
        ("copies", "0"),
        ("copies", "4"),
        ("copies", "two"),
        ("zone", ""),
        ("zone", "eu 1a"),
        ("zone", &"z".repeat(64)),
        ("stats-format", "yaml"),
        ("stats-limit", "-1"),
        ("stats-limit", "1000001"),
        ("log-format", "xml"),
        ("log-level", "inf"),
        ("log-level", "info,a=b"),
        ("log-level", ""),
        ("max-request-size", "0"),
        ("max-request-size", "2GiB"),
        ("max-request-size", "64 apples"),
        ("queue-size", "1"),
        ("memory-limit", "1KiB"),
        ("disk-reserve", "-1"),
        ("journal-limit", "0"),
        ("drain-timeout", "-1s"),
        ("drain-timeout", "2h"),
        ("connection-max-age", "999ms"),
        ("connection-max-age", "169h"),
        ("threads", "0"),
        ("threads", "2000"),
    ] {
        let line = refusal(&[&format!("--{flag}={value}")], &[], "");
        assert!(line.contains(flag), "{flag}={value}: {line}");
    }
}

#[test]
fn durations_and_sizes_can_be_written_in_several_ways() {
    for (text, seconds) in
        [("10", 10), ("10s", 10), ("2m", 120), ("1h", 3600), ("PT1M", 60), ("24h", 86_400)]
    {
        let settings = load(&["--window", text], &[], "").unwrap();
        assert_eq!(counts(&settings)[0].3, seconds, "{text}");
    }
    for (text, bytes) in
        [("2097152", 2 << 20), ("2MiB", 2 << 20), ("2 MB", 2_000_000), ("0.5GiB", 1 << 29)]
    {
        let settings = load(&["--memory-limit", text], &[], "").unwrap();
        assert_eq!(settings.memory_limit, bytes, "{text}");
    }
}

#[test]
fn a_bad_file_is_named_with_the_line() {
    for (file, place, word) in [
        ("threads: 1\nthreads: 2\n", "sheaf.yaml:2: ", "duplicate"),
        ("threads: 1\nwindow: [1s]\n", "sheaf.yaml:2: ", "scalar"),
        ("threads: 1\nwindow:\n", "sheaf.yaml:2: ", "null"),
        ("threads: 1\nattribute: []\n", "sheaf.yaml:2: ", "or a list of texts"),
        ("threads: 1\nattribute: 5\n", "sheaf.yaml:2: ", "or a list of texts"),
        ("threads: 1\nattribute: yes\n", "sheaf.yaml:2: ", "or a list of texts"),
        ("threads: 1\nattribute: -1.5\n", "sheaf.yaml:2: ", "or a list of texts"),
        ("threads: 1\nattribute:\n", "sheaf.yaml:2: ", "or a list of texts"),
        ("threads: 1\nattribute: {a: b}\n", "sheaf.yaml:2: ", "or a list of texts"),
        ("threads: 1\nattribute: ['', b]\n", "sheaf.yaml:2: ", "attribute"),
        ("threads: 1\ninitialMembers: [a:1, b]\n", "sheaf.yaml:2: ", "'b'"),
        ("threads: 1\ninitialMembers: []\n", "sheaf.yaml:2: ", "or a list of texts"),
        ("threads: 1\naggregations: []\n", "sheaf.yaml:2: ", "empty"),
        (
            "threads: 1\naggregations:\n  - {name: a, type: Distinct}\n",
            "sheaf.yaml:3: ",
            "Distinct",
        ),
        ("aggregations:\n  - {name: a, typ: DistinctLogs}\n", "sheaf.yaml:2: ", "typ"),
        ("aggregations:\n  - name: A\n    type: DistinctLogs\n", "sheaf.yaml:2: ", "lower-case"),
        (
            "aggregations:\n  - name: a\n    type: LogFiles\n    logFiles: {compression: Zstd}\n",
            "sheaf.yaml:2: ",
            "partBytes",
        ),
        ("- 1\n", "sheaf.yaml:1: ", "mapping"),
        ("threads: 1\n  window: [", "sheaf.yaml:", ""),
        ("threads: 1\n---\nthreads: 2\n", "sheaf.yaml:", "document"),
    ] {
        let line = refusal(&[], &[], file);
        assert!(line.starts_with(place) && line.contains(word), "{file}: {line}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let read = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let variables = [("SHEAF_CONFIG".into(), "missing.yaml".into())];
    let error = Settings::load([OsString::from("sheaf-node")], variables, read).unwrap_err();
    assert_eq!(error.to_string(), "settings file missing.yaml: entity not found");
}

#[test]
fn the_file_of_the_flag_is_read_in_place_of_that_of_the_variable() {
    let reads = Cell::new(0);
    let read = |path: &Path| {
        reads.set(reads.get() + 1);
        assert_eq!(path, Path::new("flag.yaml"));
        Ok(String::new())
    };
    let arguments = ["sheaf-node", "--config=flag.yaml"].map(OsString::from);
    let variables = [("SHEAF_CONFIG".into(), "variable.yaml".into())];
    assert!(matches!(Settings::load(arguments, variables, read), Ok(Command::Run(_))));
    assert_eq!(reads.get(), 1);
}

#[test]
fn a_queue_that_cannot_hold_what_the_largest_request_takes_is_refused() {
    let line = refusal(&["--max-request-size", "65MiB"], &[], "");
    assert!(line.contains("queue-size is 192.0 MiB") && line.contains("195.0 MiB"), "{line}");
    assert!(load(&["--max-request-size", "65MiB", "--queue-size", "195MiB"], &[], "").is_ok());
}

#[test]
fn a_control_port_that_other_machines_reach_needs_a_token() {
    for listen in ["0.0.0.0:9466", "[::]:9466", "10.0.0.1:9466", "[::ffff:10.0.0.1]:9466"] {
        let line = refusal(&["--control-listen", listen], &[], "");
        assert!(line.starts_with(&format!("control-listen is {listen}, which other")), "{line}");
        let flags = ["--control-listen", listen, "--control-token-file", "token"];
        assert!(load(&flags, &[], "").is_ok(), "{listen}");
    }
    for listen in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(load(&["--control-listen", listen], &[], "").is_ok(), "{listen}");
    }
}

#[test]
fn the_zone_is_said_in_one_place() {
    let settings = load(&["--zone-file", "/etc/zone"], &[], "").unwrap();
    assert_eq!(settings.zone, ZoneSource::File("/etc/zone".into()));
    let line = refusal(&["--zone-file", "/etc/zone", "--zone", "a"], &[], "");
    assert!(line.contains("'--zone-file <FILE>' cannot be used with '--zone <NAME>'"), "{line}");
    let line = refusal(&[], &[("SHEAF_ZONE_FILE", "/etc/zone")], "zone: a\n");
    assert!(line.contains("--zone-file"), "{line}");
}

#[test]
fn empty_variables_and_those_of_a_kubernetes_service_say_nothing() {
    let variables = [
        ("SHEAF_WINDOW", ""),
        ("SHEAF_SERVICE_HOST", "10.0.0.1"),
        ("SHEAF_SERVICE_PORT", "4317"),
        ("SHEAF_SERVICE_PORT_OTLP_GRPC", "4317"),
        ("SHEAF_PORT", "tcp://10.0.0.1:4317"),
        ("SHEAF_PORT_4317_TCP", "tcp://10.0.0.1:4317"),
        ("SHEAF_NODE_PORT_4317_TCP_ADDR", "10.0.0.1"),
        ("HOME", "/root"),
    ];
    assert_eq!(load(&[], &variables, "").unwrap(), load(&[], &[], "").unwrap());
}

#[test]
fn a_node_tells_others_where_it_listens_or_else_the_name_of_its_machine() {
    let told = |flags: &[&str]| load(flags, &[], "").unwrap().peer_address.to_string();
    assert_eq!(told(&["--peer-listen", "10.0.0.1:1"]), "10.0.0.1:1");
    assert_eq!(told(&["--peer-listen", "[::1]:0"]), "[::1]:0");
    assert_eq!(
        told(&["--peer-listen", "10.0.0.1:1", "--peer-address", "a.example:2"]),
        "a.example:2"
    );
    let host = host_name().to_ascii_lowercase();
    assert_eq!(told(&["--peer-listen", "0.0.0.0:1"]), format!("{host}:1"));
    assert_eq!(told(&["--peer-listen", "[::]:0"]), format!("{host}:0"));
}

#[test]
fn a_machine_without_a_usable_name_has_to_be_told_one() {
    let flags = Given::default().flags().unwrap();
    let line = peer_address(&flags, "(none)").unwrap_err().to_string();
    assert!(line.contains("\"(none)\"") && line.contains("peer-address"), "{line}");
    assert_eq!(peer_address(&flags, "Node-A").unwrap().to_string(), "node-a:9465");
}

#[test]
fn initial_members_come_one_by_one_or_between_commas() {
    let listen = ["--peer-listen", "10.0.0.2:1"];
    let flags = |more: &[&'static str]| load(&[&listen, more].concat(), &[], "").unwrap();
    let wanted = ["10.0.0.1:1", "10.0.0.2:1"];
    let one_by_one = ["--initial-members", "10.0.0.1:1", "--initial-members", "10.0.0.2:1"];
    assert_eq!(members(&flags(&one_by_one)), wanted);
    assert_eq!(members(&flags(&["--initial-members", "10.0.0.1:1,10.0.0.2:1"])), wanted);
    let variables = [("SHEAF_INITIAL_MEMBERS", "10.0.0.1:1, 10.0.0.2:1")];
    assert_eq!(members(&load(&listen, &variables, "").unwrap()), wanted);
    let stronger = ["--initial-members", "10.0.0.2:1"];
    let settings = load(&[listen, stronger].concat(), &variables, "").unwrap();
    assert_eq!(members(&settings), ["10.0.0.2:1"]);
}

#[test]
fn initial_members_that_could_form_no_cluster_are_refused() {
    for (address, members, count, word) in [
        ("10.0.0.3:1", "10.0.0.1:1,10.0.0.2:1", "2", "does not contain this node, 10.0.0.3:1"),
        ("a:1", "a:1,b:1", "1", "initial-count is 1, but initial-members names 2"),
        ("a:1", "a:1,b:1,a:1", "3", "names a:1 twice"),
    ] {
        let flags =
            ["--peer-address", address, "--initial-members", members, "--initial-count", count];
        let line = refusal(&flags, &[], "");
        assert!(line.contains(word), "{line}");
    }
    let line = refusal(&["--initial-count", "3"], &[], "");
    assert!(line.starts_with("initial-count is 3, but initial-members names nobody"), "{line}");
    let line = refusal(&["--initial-members", "sheaf:9465"], &[], "");
    assert!(line.contains("one DNS name, sheaf:9465: say with initial-count"), "{line}");
}
