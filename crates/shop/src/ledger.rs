//! A database without telemetry of its own: one line in, one line out, over TCP. Its clients time what they ask.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{HistogramOpts, HistogramVec, Registry};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Time that a statement takes.
const STATEMENT_TIME: Duration = Duration::from_millis(1);
/// Time that a client waits for the answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum number of accounts.
const MAX_ACCOUNTS: usize = 10_000;
/// Upper bounds of the client's histogram, in seconds: those that OpenTelemetry's conventions advise.
const BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Serves connections until the task is aborted.
///
/// # Errors
/// Returns an error if the listener fails.
pub(crate) async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let accounts: Arc<Mutex<HashMap<String, u64>>> = Arc::default();
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(answer(stream, Arc::clone(&accounts)));
    }
}

/// Answers each line `ADD <account>` with the account's number of entries.
async fn answer(stream: TcpStream, accounts: Arc<Mutex<HashMap<String, u64>>>) {
    let (input, mut output) = stream.into_split();
    let mut lines = BufReader::new(input).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        tokio::time::sleep(STATEMENT_TIME).await;
        let count = {
            let mut accounts = accounts.lock().await;
            if accounts.len() >= MAX_ACCOUNTS {
                accounts.clear();
            }
            let count = accounts.entry(line).or_default();
            *count += 1;
            *count
        };
        if output.write_all(format!("{count}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A client with one connection, and the metric that an instrumented database client exports.
pub(crate) struct LedgerClient {
    port: u16,
    host: String,
    connection: Mutex<Option<BufReader<TcpStream>>>,
    duration: HistogramVec,
}

impl LedgerClient {
    /// Creates a client of the ledger that is known as `host`.
    ///
    /// # Errors
    /// Returns an error if the metric cannot be registered.
    pub(crate) fn new(service: &str, host: &str, port: u16, registry: &Registry) -> anyhow::Result<Self> {
        let opts = HistogramOpts::new("db_client_operation_duration_seconds", "Duration of database client operations")
            .const_label("service", service)
            .const_label("db_system_name", "other_sql")
            .const_label("server_address", host)
            .buckets(BUCKETS.to_vec());
        let duration = HistogramVec::new(opts, &["error_type"])?;
        registry.register(Box::new(duration.clone()))?;
        Ok(Self { port, host: host.to_owned(), connection: Mutex::default(), duration })
    }

    /// Adds an entry to an account.
    ///
    /// # Errors
    /// Returns an error if the ledger does not answer.
    pub(crate) async fn add(&self, account: &str) -> Result<(), String> {
        let started = Instant::now();
        let result = tokio::time::timeout(TIMEOUT, self.exchange(account)).await;
        let (error_type, result) = match result {
            Ok(Ok(())) => ("", Ok(())),
            Ok(Err(error)) => ("connection", Err(format!("{}: {error}", self.host))),
            Err(_) => ("timeout", Err(format!("{} did not answer within {} s", self.host, TIMEOUT.as_secs()))),
        };
        self.duration.with_label_values(&[error_type]).observe(started.elapsed().as_secs_f64());
        result
    }

    async fn exchange(&self, account: &str) -> std::io::Result<()> {
        let mut held = self.connection.lock().await;
        let mut connection = match held.take() {
            Some(connection) => connection,
            None => BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).await?),
        };
        connection.get_mut().write_all(format!("ADD {account}\n").as_bytes()).await?;
        let mut line = String::new();
        if connection.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        // Kept only after an answer: a connection with an answer under way would give it to the next caller.
        *held = Some(connection);
        Ok(())
    }
}
