//! Real PostgreSQL and Redis servers, as Debian packages them: unpacked by `cargo xtask test`, never installed, each
//! with a folder, a free loopback port and a password of its own.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::server::command;

/// The superuser of a test's PostgreSQL.
const USER: &str = "wardroom";
/// PostgreSQL refuses to run as root. If the tests do, it runs in a user namespace in which root has this user id: what
/// it may read and write stays the same.
const MAPPED_ID: u32 = 1000;
/// Maximum duration of a server's start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running PostgreSQL server with the superuser `wardroom`.
pub struct PostgresServer {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// Password of the superuser.
    pub password: String,
    log: PathBuf,
    child: Child,
}

impl PostgresServer {
    /// Creates a server in `dir` and starts it.
    ///
    /// # Errors
    /// Returns an error if it does not start; its log is in the error.
    pub fn start(dir: &Path) -> anyhow::Result<Self> {
        let (data, password_file, log) = (dir.join("data"), dir.join("password"), dir.join("postgresql.log"));
        std::fs::create_dir_all(dir)?;
        let password = format!("p{:x}", crate::now_ms());
        std::fs::write(&password_file, &password)?;
        let initdb = postgres_command("initdb", dir)?
            .arg("-D")
            .arg(&data)
            .args(["-U", USER, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"])
            .arg(format!("--pwfile={}", password_file.display()))
            .output()
            .context("initdb cannot be run")?;
        ensure!(initdb.status.success(), "initdb: {}", String::from_utf8_lossy(&initdb.stderr));
        let port = free_port()?;
        let settings = ["unix_socket_directories=", "listen_addresses=127.0.0.1", "fsync=off", "full_page_writes=off"];
        let mut postgres = postgres_command("postgres", dir)?;
        postgres.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        postgres.args(settings.iter().chain(&["jit=off", "max_connections=200"]).flat_map(|setting| ["-c", *setting]));
        let child = postgres.stdout(Stdio::null()).stderr(File::create(&log)?).stdin(Stdio::null()).spawn()?;
        let mut server = Self { port, password, log, child };
        await_start("postgres", &mut server.child, &server.log, || {
            // A connection may be accepted before the server is ready: the log says when it is.
            std::fs::read_to_string(dir.join("postgresql.log"))
                .is_ok_and(|log| log.contains("database system is ready to accept connections"))
        })?;
        Ok(server)
    }

    /// URL of a database for the superuser, without the password.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Creates a database.
    ///
    /// # Errors
    /// Returns an error if the server refuses.
    pub fn create_database(&self, name: &str) -> anyhow::Result<()> {
        self.execute("postgres", &format!("CREATE DATABASE \"{name}\"")).map(drop)
    }

    /// Runs SQL as the superuser; returns what `psql` prints, without headers.
    ///
    /// # Errors
    /// Returns an error if the server refuses.
    pub fn execute(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let output = self.psql(database)?.args(["-c", sql]).output().context("psql cannot be run")?;
        ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// A client that is connected to a database as the superuser; what it reads on its standard input is executed.
    ///
    /// # Errors
    /// Returns an error if the program is missing.
    pub fn psql(&self, database: &str) -> anyhow::Result<Command> {
        let mut psql = program("POSTGRES_BIN", "/usr/lib/postgresql/15/bin", "psql")?;
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        psql.args(["-U", USER, "-d", database]).env("PGPASSWORD", &self.password);
        Ok(psql)
    }

    /// Returns the server's log: it counts what was done to connections.
    ///
    /// # Errors
    /// Returns an error if it cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // SIGQUIT: the server and its backends end at once, and leave no shared memory behind.
        drop(command(Path::new("kill")).args(["-QUIT", &self.child.id().to_string()]).status());
        drop(self.child.wait());
    }
}

/// A running Redis server.
pub struct RedisServer {
    /// Port on 127.0.0.1.
    pub port: u16,
    /// Password of the default user.
    pub password: String,
    child: Child,
}

impl RedisServer {
    /// Starts a server that keeps nothing.
    ///
    /// # Errors
    /// Returns an error if it does not start; its log is in the error.
    pub fn start(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let (port, password, log) = (free_port()?, format!("p{:x}", crate::now_ms()), dir.join("redis.log"));
        let mut redis = program("REDIS_BIN", "/usr/bin", "redis-server")?;
        redis.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--requirepass", &password]);
        let child = redis.arg("--dir").arg(dir).stdin(Stdio::null()).stdout(File::create(&log)?).spawn()?;
        let mut server = Self { port, password, child };
        await_start("redis-server", &mut server.child, &log, || {
            std::fs::read_to_string(&log).is_ok_and(|log| log.contains("Ready to accept connections"))
        })?;
        Ok(server)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until a server is ready.
pub(crate) fn await_start(
    name: &str,
    child: &mut Child,
    log: &Path,
    is_ready: impl Fn() -> bool,
) -> anyhow::Result<()> {
    let started = Instant::now();
    while !is_ready() {
        let has_exited = child.try_wait()?.is_some();
        if has_exited || started.elapsed() > START_TIMEOUT {
            drop(child.kill());
            bail!("{name} does not start: {}", std::fs::read_to_string(log).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A program of a Debian package in the folder that a variable names, with the unpacked libraries.
pub(crate) fn program(variable: &str, default_folder: &str, name: &str) -> anyhow::Result<Command> {
    let path = folder(variable).unwrap_or_else(|| default_folder.into()).join(name);
    ensure!(path.exists(), "{} is missing; run `cargo xtask test`", path.display());
    let mut program = command(&path);
    set_library_path(&mut program);
    Ok(program)
}

/// A program of PostgreSQL's server, in a folder of its own.
fn postgres_command(name: &str, dir: &Path) -> anyhow::Result<Command> {
    let path = folder("POSTGRES_BIN").unwrap_or_else(|| "/usr/lib/postgresql/15/bin".into()).join(name);
    ensure!(path.exists(), "{} is missing; run `cargo xtask test`", path.display());
    let mut program = if is_root() {
        let mut wrapper = command(Path::new("unshare"));
        wrapper.args(["--user", &format!("--map-user={MAPPED_ID}"), &format!("--map-group={MAPPED_ID}")]).arg(&path);
        wrapper
    } else {
        command(&path)
    };
    set_library_path(&mut program);
    program.current_dir(dir);
    Ok(program)
}

fn is_root() -> bool {
    command(Path::new("id")).arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}

#[expect(clippy::disallowed_methods, reason = "xtask passes the paths of programs in the environment")]
fn folder(variable: &str) -> Option<PathBuf> {
    std::env::var(variable).ok().map(PathBuf::from)
}

#[expect(clippy::disallowed_methods, reason = "xtask passes the paths of programs in the environment")]
fn set_library_path(program: &mut Command) {
    if let Ok(libraries) = std::env::var("CLIENT_LIBRARIES") {
        program.env("LD_LIBRARY_PATH", libraries);
    }
}
