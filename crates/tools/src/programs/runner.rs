//! The tool runner: a process that starts programs for the executor, over a pair of sockets that only the two have.
//!
//! One JSON object a line in both directions, with a number that joins answer and call, so that many programs run at
//! the same time. When the executor exits, the runner waits for what it has started (a half-applied change is worse
//! than one that ends late) and exits, too.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wardroom_respond::ToolError;

use super::{ProgramCall, ProgramOutput, Programs};

/// Subcommand that runs [`serve`].
const SUBCOMMAND: &str = "tool-runner";
/// Time beyond that of a program in which its answer must come.
const ANSWER_MARGIN: Duration = Duration::from_secs(30);

#[derive(Debug, Serialize, Deserialize)]
struct NumberedCall {
    number: u64,
    call: ProgramCall,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    number: u64,
    result: Result<ProgramOutput, String>,
}

/// Who waits for which answer; `None` once the runner is gone.
type Waiting = Arc<Mutex<Option<BTreeMap<u64, Sender<Result<ProgramOutput, String>>>>>>;

/// A running tool runner, as the executor sees it.
#[derive(Debug)]
pub struct ToolRunner {
    stream: Mutex<UnixStream>,
    waiting: Waiting,
    next: AtomicU64,
    reader: Once,
    _child: Child,
}

impl ToolRunner {
    /// Starts this binary as the runner. Call before the process gives up the right to start programs; no thread is
    /// started here.
    ///
    /// # Errors
    /// Returns an error if the process cannot be started.
    #[expect(clippy::disallowed_methods, reason = "the executor starts its tool runner before it is confined")]
    pub fn start(executor_config: &Path) -> std::io::Result<Self> {
        let (own, other) = UnixStream::pair()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(SUBCOMMAND).arg("--executor-config").arg(executor_config);
        let child = command.stdin(Stdio::from(OwnedFd::from(other))).stdout(Stdio::null()).spawn()?;
        let waiting = Arc::new(Mutex::new(Some(BTreeMap::new())));
        Ok(Self { stream: Mutex::new(own), waiting, next: AtomicU64::new(0), reader: Once::new(), _child: child })
    }

    /// Starts the thread that reads answers: at the first call, because threads that exist before the confinement are
    /// not confined.
    fn start_reader(&self) {
        self.reader.call_once(|| {
            let waiting = Arc::clone(&self.waiting);
            match self.stream.lock().unwrap_or_else(PoisonError::into_inner).try_clone() {
                Ok(stream) => drop(std::thread::spawn(move || read_answers(stream, &waiting))),
                Err(error) => {
                    tracing::error!(%error, "the tool runner cannot be used");
                    *waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
                }
            }
        });
    }
}

fn read_answers(stream: UnixStream, waiting: &Waiting) {
    for line in BufReader::new(stream).lines() {
        let answer = line.ok().and_then(|line| serde_json::from_str::<Answer>(&line).ok());
        let Some(Answer { number, result }) = answer else { break };
        let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = waiting.as_mut().and_then(|waiting| waiting.remove(&number)) {
            // The caller may have given up.
            drop(sender.send(result));
        }
    }
    tracing::error!("the tool runner has exited; restart the executor");
    *waiting.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

impl Programs for ToolRunner {
    fn run(&self, call: &ProgramCall) -> Result<ProgramOutput, ToolError> {
        self.start_reader();
        let gone = || ToolError::Unavailable("the tool runner has exited; restart the executor".to_owned());
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = channel();
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.as_mut().ok_or_else(gone)?.insert(number, sender);
        }
        let timeout = call.timeout + ANSWER_MARGIN;
        let mut line = serde_json::to_string(&NumberedCall { number, call: call.clone() })
            .map_err(|error| ToolError::Invalid(error.to_string()))?;
        line.push('\n');
        let sent = self.stream.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
        sent.map_err(|_| gone())?;
        match receiver.recv_timeout(timeout) {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(refused)) => Err(ToolError::Invalid(refused)),
            Err(_) => Err(ToolError::Unavailable("the tool runner did not answer".to_owned())),
        }
    }
}

/// Runs the tool runner on its standard input, which is a socket. `programs` is asked for what may be started at every
/// call, so that a change of the executor's file counts at once. Returns when the executor has exited and everything
/// that was started has ended.
///
/// # Errors
/// Returns an error if the standard input is no socket.
pub fn serve<P: Programs>(programs: impl Fn() -> Result<P, String> + Send + Sync) -> std::io::Result<()> {
    let stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    serve_stream(stream, programs)
}

fn serve_stream<P: Programs>(
    stream: UnixStream,
    programs: impl Fn() -> Result<P, String> + Send + Sync,
) -> std::io::Result<()> {
    let answers = Mutex::new(stream.try_clone()?);
    std::thread::scope(|scope| {
        for line in BufReader::new(stream).lines() {
            let call = line.ok().and_then(|line| serde_json::from_str::<NumberedCall>(&line).ok());
            let Some(NumberedCall { number, call }) = call else { break };
            let (answers, programs) = (&answers, &programs);
            scope.spawn(move || {
                let result = programs().and_then(|programs| programs.run(&call).map_err(|error| error.to_string()));
                let mut line = serde_json::to_string(&Answer { number, result }).unwrap_or_default();
                line.push('\n');
                // If the executor is gone, there is no reader.
                drop(answers.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes()));
            });
        }
    });
    Ok(())
}
