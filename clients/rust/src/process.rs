//! The child process: started without a shell, in a separate process group, and never left behind.
//!
//! Owns the child, its signals and its stderr. Refuses to know the messages on its pipes.
//!
//! **A worker ends with its client**, by the first of these events: its stdin ends (it drains and exits); the worker sees
//! that the process `processId` has exited; the last handle here is dropped, and its whole group is killed. On Windows the child itself is killed;
//! to catch its children too, put the agent into a Job Object with `JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE`.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::AsyncRead;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, watch};

use crate::call::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::framing::{Line, Lines};
use crate::io::Io;

const TAIL_LINES: usize = 40;
const TAIL_LINE_BYTES: usize = 1024;
const LOG_LINE_BYTES: usize = 1024 * 1024;
/// The time for reading a worker's last log lines, after its output has ended or it was killed.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// From SIGTERM to SIGKILL: longer than the worker's own grace of 5 s.
const TERMINATING: Duration = Duration::from_secs(7);

/// What is to be started, and how.
#[derive(Clone, Default)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: Vec<(OsString, OsString)>,
    pub(crate) clear_environment: bool,
    pub(crate) directory: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug)]
enum Signal {
    Terminate,
    Kill,
}

/// A running child. When this is dropped, its group is killed.
pub(crate) struct Process {
    pub(crate) id: u32,
    signals: mpsc::UnboundedSender<Signal>,
    exit: watch::Receiver<Option<ExitStatus>>,
    stderr: Arc<Tail>,
}

impl Process {
    /// Must be called on the I/O thread, which then watches the child.
    pub(crate) fn spawn(launch: &Launch, io: &Io) -> Result<(Process, ChildStdin, ChildStdout)> {
        let mut command = Command::new(&launch.program);
        if launch.clear_environment {
            command.env_clear();
        }
        command.args(&launch.arguments).envs(launch.environment.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &launch.directory {
            check_directory(directory)?;
            command.current_dir(directory);
        }
        #[cfg(unix)]
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| not_started(launch, &error))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(id), (Some(stdin), Some(stdout), Some(stderr))) = (child.id(), pipes) else {
            return Err(Error::new(ErrorKind::WorkerStart, "the worker has no pipes")); // impossible: they were requested
        };
        let stderr_tail = Arc::new(Tail::default());
        let (signals, requested) = mpsc::unbounded_channel();
        let (exited, exit) = watch::channel(None);
        io.register_group(id);
        let logging = tokio::spawn(log(stderr, id, Arc::clone(&stderr_tail)));
        let io = io.clone();
        tokio::spawn(async move {
            let status = Owned(child).wait(requested).await;
            io.forget_group(id);
            // A process that the worker has started may hold the pipe open, and may write as long as it likes.
            let _ = tokio::time::timeout(LAST_WORDS, logging).await;
            exited.send_replace(Some(status));
        });
        Ok((Process { id, signals, exit, stderr: stderr_tail }, stdin, stdout))
    }

    pub(crate) async fn exited(&self) -> Option<ExitStatus> {
        let mut exit = self.exit.clone();
        exit.wait_for(Option::is_some).await.ok().and_then(|status| *status)
    }

    pub(crate) fn kill(&self) {
        let _ = self.signals.send(Signal::Kill); // no task receives it after the end
    }

    /// The last lines of it.
    pub(crate) fn stderr(&self) -> Vec<String> {
        self.stderr.lines()
    }

    pub(crate) fn witness(&self) -> Witness {
        Witness { id: self.id, signals: self.signals.downgrade(), exit: self.exit.clone(), stderr: Arc::clone(&self.stderr) }
    }

    /// Call it once stdin is closed: waits `grace` for the worker to drain, then insists. Returns when it has ended.
    pub(crate) async fn end(&self, grace: Duration) {
        if tokio::time::timeout(grace, self.exited()).await.is_ok() {
            return;
        }
        tracing::warn!(pid = self.id, "the worker did not end in time; terminating it");
        let _ = self.signals.send(Signal::Terminate);
        if tokio::time::timeout(TERMINATING, self.exited()).await.is_err() {
            self.kill();
            self.exited().await;
        }
    }

    /// Resident memory in bytes, if the system reports it (Linux).
    pub(crate) fn memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
    }
}

/// Sees how a worker ended, without keeping it alive.
pub(crate) struct Witness {
    id: u32,
    signals: mpsc::WeakUnboundedSender<Signal>,
    exit: watch::Receiver<Option<ExitStatus>>,
    stderr: Arc<Tail>,
}

impl Witness {
    /// Call it when the worker's output has ended, so it is of no more use: ends the worker too, and returns how it ended.
    pub(crate) async fn report(mut self, kind: ErrorKind, reason: &str) -> Error {
        if tokio::time::timeout(LAST_WORDS, self.exit.wait_for(Option::is_some)).await.is_err() {
            if let Some(signals) = self.signals.upgrade() {
                let _ = signals.send(Signal::Kill);
            }
            let _ = self.exit.wait_for(Option::is_some).await;
        }
        let how = (*self.exit.borrow()).map_or_else(|| "it was killed".to_owned(), |status| status.to_string());
        let said = format!("the worker (pid {}) is gone: {reason}; {how}", self.id);
        Error::new(kind, said).with_stderr(self.stderr.lines())
    }
}

/// The child, killed with its group if this is dropped before it has ended, as a runtime does that shuts down.
struct Owned(Child);

impl Owned {
    async fn wait(mut self, mut requested: mpsc::UnboundedReceiver<Signal>) -> ExitStatus {
        let group = self.0.id();
        loop {
            tokio::select! {
                status = self.0.wait() => {
                    // Processes that the worker has started and left behind. The group's number is not reused while one of them lives.
                    signal_group(group, Signal::Kill);
                    return status.unwrap_or_default();
                }
                signal = requested.recv() => if let Some(signal) = signal { signal_group(group, signal) } else {
                    signal_group(group, Signal::Kill);
                    let _ = self.0.start_kill();
                    return self.0.wait().await.unwrap_or_default();
                }
            }
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        signal_group(self.0.id(), Signal::Kill); // no id: it was waited for
    }
}

/// Kills a process group, if it still exists.
pub(crate) fn kill_group(group: u32) {
    signal_group(Some(group), Signal::Kill);
}

fn check_directory(directory: &Path) -> Result<()> {
    let problem = match directory.metadata() {
        Ok(data) if data.is_dir() => return Ok(()),
        Ok(_) => "it is not a directory".to_owned(),
        Err(error) => error.to_string(),
    };
    let message = format!("the worker's working directory {} can't be used: {problem}; correct current_dir", directory.display());
    Err(Error::new(ErrorKind::WorkerStart, message))
}

#[cfg(unix)]
fn signal_group(group: Option<u32>, signal: Signal) {
    use rustix::process::{Pid, Signal as Unix, kill_process_group};

    let pid = group.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let signal = match signal {
        Signal::Terminate => Unix::TERM,
        Signal::Kill => Unix::KILL,
    };
    if let Some(pid) = pid {
        let _ = kill_process_group(pid, signal); // it may have ended
    }
}

#[cfg(not(unix))]
fn signal_group(_: Option<u32>, _: Signal) {} // `kill_on_drop` and `start_kill` end the child itself

fn not_started(launch: &Launch, error: &std::io::Error) -> Error {
    let kind = if error.kind() == std::io::ErrorKind::NotFound { ErrorKind::WorkerNotFound } else { ErrorKind::WorkerStart };
    Error::new(kind, format!("{} can't be started: {error}", launch.program.display()))
}

// --- stderr ------------------------------------------------------------------------------------------------------------------

/// The last lines.
#[derive(Default)]
struct Tail(Mutex<VecDeque<String>>);

impl Tail {
    fn push(&self, line: &str) {
        let mut lines = lock(&self.0);
        if lines.len() == TAIL_LINES {
            lines.pop_front();
        }
        lines.push_back(line.chars().take(TAIL_LINE_BYTES).collect());
    }

    fn lines(&self) -> Vec<String> {
        lock(&self.0).iter().cloned().collect()
    }
}

/// Reads stderr to its end, whatever is in it: a full pipe would stop the worker.
async fn log<R: AsyncRead + Unpin>(stderr: R, pid: u32, tail: Arc<Tail>) {
    let mut lines = Lines::new(stderr, LOG_LINE_BYTES);
    loop {
        match lines.next().await {
            Ok(Line::Whole(line)) => keep(line, pid, &tail),
            Ok(Line::TooLong) => lines.skip(),
            Ok(Line::End) | Err(_) => return keep(lines.rest(), pid, &tail),
        }
    }
}

fn keep(line: &[u8], pid: u32, tail: &Tail) {
    let line = String::from_utf8_lossy(line);
    let line = line.trim_end();
    if !line.is_empty() {
        tail.push(line);
        forward(pid, line);
    }
}

/// A line of the worker's log with `--log-format json`.
#[derive(Deserialize)]
struct Record {
    level: String,
    message: String,
    #[serde(default)]
    logger: String,
    #[serde(flatten)]
    fields: serde_json::Map<String, serde_json::Value>,
}

fn forward(pid: u32, line: &str) {
    let Ok(Record { level, message, logger, mut fields }) = serde_json::from_str::<Record>(line) else {
        tracing::info!(target: "omni_bridge::worker", pid, "{line}");
        return;
    };
    fields.shift_remove("time");
    let fields = serde_json::Value::Object(fields);
    match level.as_str() {
        "critical" | "error" => tracing::error!(target: "omni_bridge::worker", pid, logger, %fields, "{message}"),
        "warning" => tracing::warn!(target: "omni_bridge::worker", pid, logger, %fields, "{message}"),
        "debug" => tracing::debug!(target: "omni_bridge::worker", pid, logger, %fields, "{message}"),
        _ => tracing::info!(target: "omni_bridge::worker", pid, logger, %fields, "{message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_the_last_lines_and_no_more_of_each_than_a_person_reads() {
        let tail = Tail::default();
        (0..100).for_each(|number| tail.push(&format!("{number} {}", "x".repeat(5000))));
        let lines = tail.lines();
        assert_eq!(lines.len(), TAIL_LINES);
        assert!(lines[0].starts_with("60 ") && lines[TAIL_LINES - 1].starts_with("99 "));
        assert!(lines.iter().all(|line| line.len() <= TAIL_LINE_BYTES));
    }

    /// Keeps the level and the message of each event.
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<String>>>);

    impl tracing::field::Visit for Seen {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            if field.name() != "pid" {
                lock(&self.0).push(format!("{}={value:?}", field.name()));
            }
        }
    }

    impl tracing::Subscriber for Seen {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            assert_eq!(event.metadata().target(), "omni_bridge::worker");
            lock(&self.0).push(event.metadata().level().to_string());
            event.record(&mut self.clone());
        }
    }

    #[test]
    fn each_line_of_the_log_is_an_event_of_its_level() {
        let cases = [
            (r#"{"time":"t","level":"critical","message":"m"}"#, ["ERROR", "message=m", "logger=\"\"", "fields={}"].as_slice()),
            (r#"{"level":"error","message":"m","logger":"l"}"#, &["ERROR", "message=m", "logger=\"l\"", "fields={}"]),
            (r#"{"level":"warning","message":"m","ms":7}"#, &["WARN", "message=m", "logger=\"\"", "fields={\"ms\":7}"]),
            (r#"{"level":"debug","message":"{m}"}"#, &["DEBUG", "message={m}", "logger=\"\"", "fields={}"]),
            (r#"{"level":"new","message":"m"}"#, &["INFO", "message=m", "logger=\"\"", "fields={}"]),
            ("Traceback {", &["INFO", "message=Traceback {"]),
        ];
        for (line, wanted) in cases {
            let seen = Seen::default();
            tracing::subscriber::with_default(seen.clone(), || forward(1, line));
            let mut got = lock(&seen.0).clone();
            let mut wanted = wanted.to_vec();
            got.sort();
            wanted.sort_unstable();
            assert_eq!(got, wanted, "{line}");
        }
    }

    #[tokio::test]
    async fn stderr_is_drained_whatever_is_in_it() {
        let mut input = b"one\n\xff\xfe\n\n".to_vec();
        input.extend(vec![b'x'; LOG_LINE_BYTES * 2]);
        input.extend(b"\n{\"level\":\"warning\",\"message\":\"m\"}\n{\"level\":7}\nlast");
        let tail = Arc::new(Tail::default());
        log(input.as_slice(), 1, Arc::clone(&tail)).await;
        let lines = tail.lines();
        assert_eq!(lines.first().map(String::as_str), Some("one"));
        assert_eq!(lines.last().map(String::as_str), Some("last"));
    }
}
