//! What the operating system says about this process, under the names that
//! Prometheus' own clients use.

use std::fmt::{Display, Write};
use std::{fs, io};

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use tracing::debug;

/// Appends the figures as OpenMetrics text; what cannot be read is left out.
pub(super) fn metrics(out: &mut String) {
    match read() {
        Ok(figures) => figures.write(out),
        Err(error) => debug!(%error, "read the figures of this process"),
    }
}

#[derive(Debug, PartialEq)]
struct Figures {
    cpu_seconds: f64,
    resident_bytes: u64,
    /// Seconds since 1970.
    started: f64,
    open_files: u64,
    /// `None` if there is no limit.
    max_files: Option<u64>,
}

fn read() -> io::Result<Figures> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let boot = fs::read_to_string("/proc/stat")?;
    let open_files = fs::read_dir("/proc/self/fd")?.count() as u64 - 1; // one of them reads the folder
    let (ticks, page) = (clock_ticks_per_second() as f64, page_size() as u64);
    let stat = Stat::parse(&stat).ok_or_else(|| malformed("/proc/self/stat"))?;
    let booted = boot_time(&boot).ok_or_else(|| malformed("/proc/stat"))?;
    Ok(Figures {
        cpu_seconds: stat.cpu_ticks as f64 / ticks,
        resident_bytes: stat.resident_pages * page,
        started: booted as f64 + stat.started_ticks as f64 / ticks,
        open_files,
        max_files: getrlimit(Resource::Nofile).current,
    })
}

fn malformed(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("unknown content of {path}"))
}

/// What proc(5) has in `/proc/self/stat`, in its units.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    /// Since the machine was booted.
    started_ticks: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in brackets, and may hold anything.
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Stat {
            cpu_ticks: number(14)? + number(15)?,
            started_ticks: number(22)?,
            resident_pages: number(24)?,
        })
    }
}

/// When the machine was booted, in seconds since 1970.
fn boot_time(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

impl Figures {
    fn write(&self, out: &mut String) {
        let cpu = self.cpu_seconds;
        append(out, "process_cpu_seconds", "counter", "_total", "Processor time used", cpu);
        let mut gauge =
            |name, help, value: &dyn Display| append(out, name, "gauge", "", help, value);
        gauge("process_resident_memory_bytes", "Memory in use", &self.resident_bytes);
        gauge("process_start_time_seconds", "Start, in seconds since 1970", &self.started);
        gauge("process_open_fds", "Open file descriptors", &self.open_files);
        if let Some(max) = &self.max_files {
            gauge("process_max_fds", "File descriptors that may be open", max);
        }
    }
}

/// Appends one metric with one sample.
fn append(out: &mut String, name: &str, kind: &str, suffix: &str, help: &str, value: impl Display) {
    let unit = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit));
    let unit = unit.map(|unit| format!("# UNIT {name} {unit}\n")).unwrap_or_default();
    // Writing to a `String` cannot fail.
    let _ =
        write!(out, "# HELP {name} {help}.\n# TYPE {name} {kind}\n{unit}{name}{suffix} {value}\n");
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_program_name_with_brackets_and_blanks_moves_no_field() {
        let line = "7 (a) b (c) S 1 1 1 0 -1 4194560 9 9 9 9 250 50 0 0 20 0 8 0 4242 999 1024 18";
        let stat = Stat { cpu_ticks: 300, started_ticks: 4242, resident_pages: 1024 };
        assert_eq!(Stat::parse(line), Some(stat));
        assert_eq!(Stat::parse("7 (short) S 1 1"), None);
    }

    #[test]
    fn the_figures_of_this_process_are_plausible() {
        let figures = read().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - 3600.0..=now + 1.0).contains(&figures.started), "{figures:?}");
        assert!((1 << 20..1 << 34).contains(&figures.resident_bytes), "{figures:?}");
        assert!((0.0..3600.0).contains(&figures.cpu_seconds), "{figures:?}");
        assert!(figures.open_files >= 3, "{figures:?}");
    }

    #[test]
    fn the_figures_are_written_as_openmetrics() {
        let mut text = String::new();
        let figures = Figures {
            cpu_seconds: 1.5,
            resident_bytes: 4096,
            started: 1.75,
            open_files: 3,
            max_files: None,
        };
        figures.write(&mut text);
        assert_eq!(
            text,
            "# HELP process_cpu_seconds Processor time used.\n\
             # TYPE process_cpu_seconds counter\n\
             # UNIT process_cpu_seconds seconds\n\
             process_cpu_seconds_total 1.5\n\
             # HELP process_resident_memory_bytes Memory in use.\n\
             # TYPE process_resident_memory_bytes gauge\n\
             # UNIT process_resident_memory_bytes bytes\n\
             process_resident_memory_bytes 4096\n\
             # HELP process_start_time_seconds Start, in seconds since 1970.\n\
             # TYPE process_start_time_seconds gauge\n\
             # UNIT process_start_time_seconds seconds\n\
             process_start_time_seconds 1.75\n\
             # HELP process_open_fds Open file descriptors.\n\
             # TYPE process_open_fds gauge\n\
             process_open_fds 3\n"
        );
    }
}
